"""Edge geometry on the GPU: the Triton kernels of its two halves, one after the other."""

from __future__ import annotations

from functools import partial

from sdas_kernels.ops.edge_geometry import composition
from sdas_kernels.ops.radial_basis import triton as radial
from sdas_kernels.ops.spherical_harmonics import triton as harmonics

forward = partial(composition.forward, harmonics, radial)
backward = partial(composition.backward, harmonics, radial)
double_backward = partial(composition.double_backward, harmonics, radial)
