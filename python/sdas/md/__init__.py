"""Molecular dynamics with a trained model: an ASE calculator, a resumable simulation, and the energy drift."""

from sdas.md.calculator import SDASCalculator
from sdas.md.drift import Drift, energy_drift
from sdas.md.replicas import Replicas
from sdas.md.settings import MDSettings
from sdas.md.simulation import MDResult, UnstableRunError, simulate

__all__ = [
    "Drift",
    "MDResult",
    "MDSettings",
    "Replicas",
    "SDASCalculator",
    "UnstableRunError",
    "energy_drift",
    "simulate",
]
