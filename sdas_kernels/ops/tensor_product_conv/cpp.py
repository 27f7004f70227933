"""The convolution on the CPU by the compiled kernels of `csrc/ops/tensor_product_conv`.

Three contractions make the ladder: `reduce` to the receivers, `reduce` with everything transposed to the senders, and
`edge` for y and the weight. A specification with paths that mix channels goes edge by edge through the tensor product.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdas_kernels import memory
from sdas_kernels.ops.tensor_product import cpp as product
from sdas_kernels.ops.tensor_product_conv import blocks, composition
from sdas_kernels.ops.tensor_product_conv.blocks import Radial
from sdas_kernels.ops.tensor_product_conv.kernel import Job, of_receivers, of_senders, pack
from sdas_kernels.ops.tensor_product_conv.tables import tables


def forward(x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str) -> Tensor:
    """`[N, dim1]`, `[E, dim2]`, `[numel]` or `[E, numel]` -> `[N, dim_out]`."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.forward(product, x, y, weight, index, spec)
    return Job(t, y=y, weight=weight).to_receivers(of_receivers(index), **{"in": pack(t.to_receivers, x)})


def backward(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor, index: list[Tensor], spec: str, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by x, y and the weight, each where `needs` says so, else of no elements."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.backward(product, grad, x, y, weight, index, spec, needs)
    job, grad = Job(t, y=y, weight=weight), pack(t.to_senders, grad)
    found = [None, _like(y, needs[1]), _like(weight, needs[2])]
    if needs[0]:
        found[0] = job.to_senders(of_senders(index), **{"in": grad})
    if needs[1] or needs[2]:
        job.edge(of_receivers(index), *found[1:], grad=grad, **{"in": pack(t.to_receivers, x)})
    by_x, by_y, by_weight = (x.new_empty(0) if result is None else result for result in found)
    return by_x, by_y, by_weight


def double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <(grad_x, grad_y, grad_weight), backward(grad, x, y, weight)> by grad, x, y and the weight."""
    t = tables(spec, x.dtype)
    if t is None:
        operands = grad_x, grad_y, grad_weight, grad, x, y, weight, index
        return composition.double_backward(product, *operands, spec, needs)
    job = Job(t, y=y, weight=weight, y_step=grad_y, weight_step=grad_weight)
    found: list[Tensor | None] = [None, None, _like(y, needs[2]), _like(weight, needs[3])]
    packed: dict[str, Tensor | None] = {}
    if needs[0] or needs[2] or needs[3]:
        step = None if grad_x is None else pack(t.to_receivers, grad_x)
        packed = {"in": pack(t.to_receivers, x), "in_step": step}
    if any(needs[1:]):
        packed_grad = pack(t.to_senders, grad)
    if needs[0]:
        found[0] = job.to_receivers(of_receivers(index), **packed)
    if needs[1]:
        found[1] = job.to_senders(of_senders(index), **{"in": packed_grad})
    if needs[2] or needs[3]:
        job.edge(of_receivers(index), *found[2:], grad=packed_grad, **packed)
    by_grad, by_x, by_y, by_weight = (x.new_empty(0) if result is None else result for result in found)
    return by_grad, by_x, by_y, by_weight


def basis_forward(x: Tensor, y: Tensor, hidden: Tensor, basis: Tensor, index: list[Tensor], spec: str) -> Tensor:
    """`[N, dim_out]`, the weights being hidden · basis."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.basis_forward(forward, x, y, hidden, basis, index, spec)
    return blocks.forward(t, x, y, Radial(hidden, basis), index)


def basis_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, y, hidden and basis, each where `needs` says so, else of no elements."""
    t = tables(spec, x.dtype)
    if t is None:
        return composition.basis_backward(backward, grad, x, y, hidden, basis, index, spec, needs)
    by_x, by_y, by_hidden, by_basis = blocks.backward(t, grad, x, y, Radial(hidden, basis), index, needs)
    return by_x, by_y, by_hidden, by_basis


def basis_double_backward(
    grad_x: Tensor | None,
    grad_y: Tensor | None,
    grad_hidden: Tensor | None,
    grad_basis: Tensor | None,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    hidden: Tensor,
    basis: Tensor,
    index: list[Tensor],
    spec: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <grad_*, basis_backward(grad, x, y, hidden, basis)> by grad, x, y, hidden and basis."""
    t = tables(spec, x.dtype)
    if t is None:
        steps, operands = (grad_x, grad_y, grad_hidden, grad_basis), (grad, x, y, hidden, basis)
        first, second = backward, double_backward
        return composition.basis_double_backward(first, second, *steps, *operands, index, spec, needs)
    radial = Radial(hidden, basis, grad_hidden, grad_basis)
    found = blocks.double_backward(t, grad_x, grad_y, grad, x, y, radial, index, needs)
    by_grad, by_x, by_y, by_hidden, by_basis = found
    return by_grad, by_x, by_y, by_hidden, by_basis


def _like(tensor: Tensor, wanted: bool) -> Tensor | None:
    return memory.empty_like(tensor) if wanted else None
