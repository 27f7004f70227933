"""Free energies by Wang–Landau: over energy, and along collective variables in dynamics."""

from sdas.free_energy.bias import WangLandauBias
from sdas.free_energy.comparison import SamplingError, sampling_error
from sdas.free_energy.density_of_states import DensityOfStates, density_of_states
from sdas.free_energy.landscape import Landscape
from sdas.free_energy.reweighting import Reweighting, reweight
from sdas.free_energy.run import free_energy
from sdas.free_energy.single_points import SinglePoints
from sdas.free_energy.variables import Axis, parse_variable

__all__ = [
    "Axis",
    "DensityOfStates",
    "Landscape",
    "Reweighting",
    "SamplingError",
    "SinglePoints",
    "WangLandauBias",
    "density_of_states",
    "free_energy",
    "parse_variable",
    "reweight",
    "sampling_error",
]
