"""Pools of frames by inexpensive engines: force fields, tight binding, models."""

from sdas.simulate.molecule import Molecule, from_frames, from_sequence, from_smiles
from sdas.simulate.pool import Pool, simulate_pool

__all__ = ["Molecule", "Pool", "from_frames", "from_sequence", "from_smiles", "simulate_pool"]
