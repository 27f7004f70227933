"""What models say of frames: energies, forces, stresses and features, and how sure they are."""

from sdas.predict.calibration import Calibration
from sdas.predict.ensemble import EnsemblePrediction, combine, predict_ensemble
from sdas.predict.gradient_features import gradient_features
from sdas.predict.last_layer import LastLayer, frame_features
from sdas.predict.prediction import Prediction, predict, predict_batches

__all__ = [
    "Calibration",
    "EnsemblePrediction",
    "LastLayer",
    "Prediction",
    "combine",
    "frame_features",
    "gradient_features",
    "predict",
    "predict_batches",
    "predict_ensemble",
]
