"""Compare a model with labelled frames: errors in meV and meV/Å, and the predictions themselves."""

from sdas.evaluate.evaluation import Evaluation, evaluate
from sdas.evaluate.files import load_evaluation, save_evaluation
from sdas.evaluate.metrics import energy_metrics, force_metrics, force_metrics_by_element

__all__ = [
    "Evaluation",
    "energy_metrics",
    "evaluate",
    "force_metrics",
    "force_metrics_by_element",
    "load_evaluation",
    "save_evaluation",
]
