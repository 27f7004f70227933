"""What a model says of frames: energies, forces, stresses and features."""

from sdas.predict.prediction import Prediction, predict, predict_batches

__all__ = ["Prediction", "predict", "predict_batches"]
