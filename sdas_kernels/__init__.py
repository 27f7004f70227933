"""Fused kernels for equivariant neural networks on atoms, beneath thin PyTorch modules.

    import sdas_kernels as sk

Operators: `spherical_harmonics`, `radial_basis`, `edge_geometry`, `edge_softmax`, `neighbor_tensor_product`,
`neighbor_attention`, `tensor_product`, `tensor_product_conv`; each with first and second derivatives.
Modules: `sk.nn`. Atoms: `NeighborGraph`. Backends: `use_backend`, `explain`. What is kept between calls: `memory`.
Units: Å, eV, eV/Å.
"""

from sdas_kernels import memory, nn, profiling
from sdas_kernels.dispatch import explain, use_backend
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.irreps import Irrep, Irreps
from sdas_kernels.ops.edge_geometry import edge_geometry
from sdas_kernels.ops.edge_softmax import edge_softmax
from sdas_kernels.ops.neighbor_attention import neighbor_attention
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product
from sdas_kernels.ops.radial_basis import polynomial_envelope, radial_basis
from sdas_kernels.ops.spherical_harmonics import spherical_harmonics
from sdas_kernels.ops.tensor_product import TensorProductSpec, tensor_product
from sdas_kernels.ops.tensor_product_conv import tensor_product_conv
from sdas_kernels.version import __version__

__all__ = [
    "EdgeIndex",
    "Irrep",
    "Irreps",
    "NeighborGraph",
    "TensorProductSpec",
    "__version__",
    "edge_geometry",
    "edge_softmax",
    "explain",
    "memory",
    "neighbor_attention",
    "neighbor_tensor_product",
    "nn",
    "polynomial_envelope",
    "profiling",
    "radial_basis",
    "spherical_harmonics",
    "tensor_product",
    "tensor_product_conv",
    "use_backend",
]
