"""Thin modules over the operators."""

from sdas_kernels.nn.captured import CapturedPotential
from sdas_kernels.nn.compiled import CompiledPotential
from sdas_kernels.nn.electronic_state import ElectronicEmbedding
from sdas_kernels.nn.frozen import FrozenPotential, InnerCutoffError, ListedPairs, OverlapError
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.growth import grow
from sdas_kernels.nn.inner_cutoff import InnerCutoff
from sdas_kernels.nn.layer import EquivariantRMSNorm, NodeProduct, NodeUpdate, SDASLayer
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention
from sdas_kernels.nn.paper import PaperAttention, PaperEmbedding, PaperLayer
from sdas_kernels.nn.sdas import SDAS
from sdas_kernels.nn.spherical_harmonics import SphericalHarmonics
from sdas_kernels.nn.tensor_product import (
    ElementwiseTensorProduct,
    FullTensorProduct,
    FullyConnectedTensorProduct,
    TensorProduct,
)
from sdas_kernels.nn.tensor_product_conv import TensorProductConv, uvu_paths, uvu_paths_apart
from sdas_kernels.nn.thinning import members, thinned, thinned_weights

__all__ = [
    "SDAS",
    "CapturedPotential",
    "CompiledPotential",
    "EdgeGeometry",
    "ElectronicEmbedding",
    "ElementwiseTensorProduct",
    "EquivariantLinear",
    "EquivariantRMSNorm",
    "FrozenPotential",
    "FullTensorProduct",
    "FullyConnectedTensorProduct",
    "InnerCutoff",
    "InnerCutoffError",
    "ListedPairs",
    "NeighborAttention",
    "NodeProduct",
    "NodeUpdate",
    "OverlapError",
    "PaperAttention",
    "PaperEmbedding",
    "PaperLayer",
    "SDASLayer",
    "SphericalHarmonics",
    "TensorProduct",
    "TensorProductConv",
    "grow",
    "members",
    "thinned",
    "thinned_weights",
    "uvu_paths",
    "uvu_paths_apart",
]
