"""SDAS: train, grow, label and run machine-learned force fields built on :mod:`sdas_kernels`."""

__version__ = "0.1.0"
