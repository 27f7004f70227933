"""Clebsch–Gordan tensor product of two features, along any set of weighted paths.

    z[b, w k] += a Σ_{u, v, i, j} W[u, v, w] C^{l3 k}_{l1 i, l2 j} x[b, u i] y[b, v j]          for every path

with a the path's factor and C the coupling tensor of unit norm. The connection mode of a path says which indices of
multiplicity the weight W has, and which are shared:

    uvw  W_uvw, z_w    uvu  W_uv, z_u    uvv  W_uv, z_v    uvuv  W_uv, z_uv    uuw  W_uw, z_w, v = u
    uuu  W_u, z_u, v = u    uvu<v  W_q, z_q over pairs q = (u < v)    u<vw  W_qw, z_w, sum over pairs q = (u < v)

Features are in e3nn's layout (`mul_ir`), and modes, order and shape of the weights are those of e3nn's `TensorProduct`.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from sdas_kernels import native, triton_support
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.dispatch import Backend, register
from sdas_kernels.flops import register_ladder
from sdas_kernels.ops.checks import check_floating
from sdas_kernels.ops.tensor_product import autograd, flops
from sdas_kernels.ops.tensor_product.spec import MODES, Instruction, TensorProductSpec

__all__ = ["MODES", "Instruction", "TensorProductSpec", "tensor_product"]


def _cuequivariance() -> tuple[bool, str]:
    if find_spec("cuequivariance_torch") is None:
        return False, "cuequivariance-torch is not installed"
    return True, "segmented polynomials of cuequivariance-torch"


register(Backend("tensor_product", "reference", f"{__name__}.reference"))
register(
    Backend("tensor_product", "cpp", f"{__name__}.cpp", ("cpu",), (torch.float32, torch.float64), native.available)
)
register(Backend("tensor_product", "cuequivariance", f"{__name__}.cuequivariance", available=_cuequivariance))
register(triton_support.backend("tensor_product", f"{__name__}.triton", (*triton_support.DTYPES, torch.float16)))
register_ladder("tensor_product", flops)


@in_operand_dtype
def tensor_product(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, spec: TensorProductSpec | str
) -> torch.Tensor:
    """Clebsch–Gordan tensor product, trilinear in (x, y, weight) along the paths that have a weight.

    Args:
        x: `[B, irreps_in1.dim]`, any floating dtype, any device, any strides.
        y: `[B, irreps_in2.dim]`, of the same dtype and device.
        weight: `[weight_numel]`, or `[B, weight_numel]` for a weight per sample; may be None where no path has one.
        spec: irreps and paths, a `TensorProductSpec` or its string.

    Returns:
        `[B, irreps_out.dim]`; entries that no path reaches are zero. Twice differentiable by x, y and the weight.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or shape.
    """
    if isinstance(spec, str):
        spec = TensorProductSpec.parse(spec)
    if not isinstance(spec, TensorProductSpec):
        raise TypeError(f"tensor_product: spec must be a TensorProductSpec or its string, got {type(spec).__name__}")
    numel, (dim1, dim2, _) = spec.weight_numel, spec.dims
    if weight is None:
        if numel:
            raise ValueError(f"tensor_product: weight must be [{numel}] or [B, {numel}], got None")
        check_floating("tensor_product", x=x, y=y)
        weight = x.new_empty(0)
    check_floating("tensor_product", x=x, y=y, weight=weight)
    if x.ndim != 2 or x.shape[1] != dim1:
        raise ValueError(f"tensor_product: x must be [B, {dim1}], got {list(x.shape)}")
    batch = x.shape[0]
    if y.ndim != 2 or y.shape[1] != dim2 or y.shape[0] != batch:
        raise ValueError(f"tensor_product: y must be [{batch}, {dim2}], got {list(y.shape)}")
    if weight.ndim not in (1, 2) or weight.shape[-1] != numel or (weight.ndim == 2 and weight.shape[0] != batch):
        raise ValueError(f"tensor_product: weight must be [{numel}] or [{batch}, {numel}], got {list(weight.shape)}")
    return autograd.tensor_product(x.contiguous(), y.contiguous(), weight.contiguous(), spec.text)
