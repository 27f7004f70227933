"""What one call of an ATen operator costs in floating-point operations; the table behind :mod:`sdas_kernels.flops`.

A rule takes ``(args, kwargs, out)`` of the call and returns an int. Rules are keyed by the operator's name without
namespace, overload and the underscore of in-place forms; ``_foreach_`` forms are derived from the element-wise table.

One addition, subtraction, multiplication, division, negation, absolute value, square root or transcendental function
(exp, log, sin, tanh, erf, pow, ...) of one element counts 1, whatever it costs on the machine. Comparisons, selections
and what is made of them alone (maximum, clamp, relu, where, sorting) count 0, so do random numbers, conversions,
copies, views, index arithmetic and every operation whose result is not of floating or complex dtype. A compound
function counts what its formula takes: silu is x·σ(x), 2 operations; its derivative 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch

Rule = Callable[[Sequence[Any], dict[str, Any], Any], int]

_COUNT_ONE = """
abs acos acosh add angle asin asinh atan atan2 atanh cos cosh cumprod cumsum deg2rad digamma div divide erf erfc
erfinv exp exp2 expm1 fmod frac hypot i0 lgamma log log10 log1p log2 logaddexp mul multiply neg negative pow
rad2deg reciprocal remainder rsqrt rsub sigmoid sign sgn sin sinc sinh special_bessel_j0 special_bessel_j1 sqrt
square sub subtract tan tanh true_divide xlogy
"""

_COUNT_ZERO = """
_assert_async _assert_scalar _assert_tensor_metadata _conj _conj_physical  _has_compatible_shallow_copy_type
_local_scalar_dense _nested_tensor_size _pin_memory _reshape_alias  _reshape_copy _to_copy _unique _unique2
_unsafe_view alias all amax amin aminmax any arange argmax argmin  argsort as_strided as_strided_scatter bernoulli
bincount bitwise_and bitwise_left_shift bitwise_not  bitwise_or bitwise_right_shift bitwise_xor broadcast_tensors
broadcast_to bucketize cat ceil chunk clamp  clamp_max clamp_min clone col2im complex constant_pad_nd contiguous
copy copysign cummax cummin detach  diag_embed diagonal diagonal_scatter embedding empty empty_like empty_permuted
empty_strided eq equal  expand expand_copy exponential eye fill flip floor floor_divide full full_like gather ge gt
heaviside  im2col imag index index_copy index_fill index_select is_pinned is_same_size isfinite isinf isnan isneginf
isposinf item kthvalue le lift lift_fresh lift_fresh_copy linspace log_normal logical_and logical_not  logical_or
logical_xor logspace lt masked_fill masked_scatter masked_select max maximum median min minimum  movedim multinomial
narrow ne new_empty new_empty_strided new_full new_ones new_zeros nonzero  nonzero_static normal normal_functional
one_hot ones ones_like permute poisson positive put rand  rand_like randint randint_like randn randn_like random
randperm real record_stream relu repeat  repeat_interleave reshape resize resolve_conj resolve_neg roll rot90 round
scalar_tensor scatter  searchsorted select select_backward select_scatter set set_data signbit slice slice_backward
slice_scatter  sort split split_with_sizes squeeze stack sym_numel sym_size sym_storage_offset sym_stride t take
threshold  threshold_backward to topk transpose tril tril_indices triu triu_indices trunc unbind unfold
unfold_backward uniform unique_consecutive unique_dim unsqueeze value_selecting_reduction_backward view  view_as
view_as_complex view_as_real where zero zeros zeros_like
"""

PER_ELEMENT: dict[str, int] = dict.fromkeys(_COUNT_ONE.split(), 1)
PER_ELEMENT |= {
    "lerp": 3,
    "silu": 2,
    "silu_backward": 6,
    "sigmoid_backward": 3,
    "tanh_backward": 3,
    "softplus": 3,
    "softplus_backward": 4,
    "elu": 2,
    "elu_backward": 3,
    "gelu": 5,
    "gelu_backward": 10,
    "leaky_relu": 1,
    "leaky_relu_backward": 1,
    "log_sigmoid_forward": 3,
    "log_sigmoid_backward": 4,
    "mish": 4,
    "mse_loss": 2,
    "mse_loss_backward": 3,
    "smooth_l1_loss": 3,
    "huber_loss": 3,
    "linalg_cross": 3,
    "dropout": 1,
    "native_dropout": 1,
    "native_dropout_backward": 1,
    "_softmax": 4,
    "_softmax_backward_data": 4,
    "_log_softmax": 5,
    "_log_softmax_backward_data": 4,
}
"""FLOPs per element of the result; _softmax and its like: exp, subtraction, sum and division."""

FREE = frozenset(_COUNT_ZERO.split())
"""Operators that do no floating-point arithmetic."""


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def _counted(tensor: torch.Tensor) -> int:
    """Elements, or 0 for integers and bools."""
    return tensor.numel() if tensor.is_floating_point() or tensor.is_complex() else 0


def _first(value: Any) -> torch.Tensor:
    return next(iter(tensors_in(value)))


def _scale_differs(kwargs: dict[str, Any], name: str) -> int:
    """1 where a factor that defaults to 1 is another number."""
    return int(kwargs.get(name, 1) != 1)


def _element_wise(cost: int) -> Rule:
    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        return (cost + _scale_differs(kwargs, "alpha")) * _counted(_first(out))

    return rule


def _added_product(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """addcmul and addcdiv; their factor is a keyword in the plain form and the fourth argument in the foreach form."""
    factor = args[3] if len(args) > 3 else kwargs.get("value", 1)
    scaled = isinstance(factor, (torch.Tensor, list, tuple)) or factor != 1
    return (2 + scaled) * _counted(_first(out))


def _power(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    return (2 if len(args) > 1 and args[1] == 3 and not isinstance(args[1], torch.Tensor) else 1) * _counted(out)


def _matrix_product(first: int) -> Rule:
    """2·m·n·k of the product of ``args[first]`` [.., m, k] with the next, and one addition where something is added."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        product = 2 * out.numel() * args[first].shape[-1]
        scales = sum(_scale_differs(kwargs, name) for name in ("alpha", "beta"))
        added = out.numel() * ((kwargs.get("beta", 1) != 0) + scales) if first else 0
        return product + added

    return rule


def _linear(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    return 2 * out.numel() * args[0].shape[-1] + (out.numel() if bias is not None else 0)


def _dot(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    return max(0, 2 * _counted(args[0]) - 1)


def _outer_added(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    return 2 * out.numel()


def _convolution(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    weight, transposed = args[1], args[6]
    sites = args[0].numel() // args[0].shape[1] if transposed else out.numel() // out.shape[1]
    bias = out.numel() if args[2] is not None else 0
    return 2 * sites * weight.numel() + bias


def _convolution_backward(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    grad, source, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    sites = source.numel() // source.shape[1] if transposed else grad.numel() // grad.shape[1]
    return 2 * sites * weight.numel() * (int(mask[0]) + int(mask[1])) + (grad.numel() if mask[2] else 0)


def _reduction(per_input: int, per_output: int) -> Rule:
    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        result = _first(out)
        if not _counted(result):
            return 0
        return max(0, per_input * _first(args).numel() + per_output * result.numel())

    return rule


def _added_elements(position: int, name: str) -> Rule:
    """One addition per element of the operand at ``position``, or called ``name``."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        operand = args[position] if len(args) > position else kwargs[name]
        scaled = _scale_differs(kwargs, "alpha")
        return (1 + scaled) * _counted(operand) if isinstance(operand, torch.Tensor) else _counted(_first(out))

    return rule


def _index_put(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    if not accumulate or not _counted(args[0]):
        return 0
    indices = [index for index in args[1] if index is not None]
    rows = prod(torch.broadcast_shapes(*(index.shape for index in indices))) if indices else 1
    indexed = prod(args[0].shape[d] for d, index in enumerate(args[1]) if index is not None)
    return rows * (args[0].numel() // max(1, indexed))


def _scatter(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Only scatters that reduce do arithmetic, one operation per index."""
    return args[2].numel() if kwargs.get("reduce") is not None and _counted(args[0]) else 0


def _norm_layer(per_element: int) -> Rule:
    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        return per_element * _first(args).numel()

    return rule


def _fused_optimizer(per_element: int) -> Rule:
    """Adam: two running means (3 + 4), root, its correction and guard (3), step (3); weight decay adds 2."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        decay = 2 if kwargs.get("weight_decay") else 0
        return (per_element + decay) * sum(t.numel() for t in args[0])

    return rule


def _factorization(of_order: Callable[[int, int], int]) -> Rule:
    """Textbook operation count of a dense factorization of every matrix [.., m, n] of the first argument."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        m, n = args[0].shape[-2:]
        return args[0].shape[:-2].numel() * of_order(max(m, n), min(m, n))

    return rule


def _trilinear(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Product of three broadcast operands, summed to the result: two products and one addition per point."""
    unsqueezed = list(args[:3])
    for k in range(3):
        for dimension in args[3 + k]:
            unsqueezed[k] = unsqueezed[k].unsqueeze(dimension)
    return 3 * torch.broadcast_shapes(*(operand.shape for operand in unsqueezed)).numel()


def _distance(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    return 3 * out.numel() * args[0].shape[-1]


def _attention(query: int, products: int, softmax: int) -> Rule:
    """Fused dot-product attention: `query`, place of queries `[.., L, D]`, before keys `[.., S, D]`; matrix products
    over L × S × D, and per logit its scaling and what the softmax or its derivative takes."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        queries, keys = args[query], args[query + 1]
        logits = queries.numel() // queries.shape[-1] * keys.shape[-2]
        return int(logits * (2 * products * queries.shape[-1] + 1 + softmax))

    return rule


RULES: dict[str, Rule] = {name: _element_wise(cost) for name, cost in PER_ELEMENT.items()}
RULES |= dict.fromkeys(FREE, lambda args, kwargs, out: 0)
RULES |= {
    "pow": _power,
    "addcmul": _added_product,
    "addcdiv": _added_product,
    "mm": _matrix_product(0),
    "bmm": _matrix_product(0),
    "mv": _matrix_product(0),
    "addmm": _matrix_product(1),
    "_addmm_activation": _matrix_product(1),
    "baddbmm": _matrix_product(1),
    "addbmm": lambda args, kwargs, out: 2 * args[1].numel() * args[2].shape[-1] + out.numel(),
    "addmv": _matrix_product(1),
    "addr": _outer_added,
    "linear": _linear,
    "dot": _dot,
    "vdot": _dot,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "_trilinear": _trilinear,
    "linalg_lstsq": _factorization(lambda m, n: 2 * m * n * n),
    "linalg_qr": _factorization(lambda m, n: 2 * m * n * n),
    "linalg_inv_ex": _factorization(lambda m, n: 2 * n**3),
    "linalg_cholesky_ex": _factorization(lambda m, n: n**3 // 3),
    "linalg_lu_factor_ex": _factorization(lambda m, n: 2 * n**3 // 3),
    "_linalg_solve_ex": _factorization(lambda m, n: 2 * n**3 // 3),
    "_linalg_det": _factorization(lambda m, n: 2 * n**3 // 3),
    "_linalg_slogdet": _factorization(lambda m, n: 2 * n**3 // 3),
    "_linalg_eigh": _factorization(lambda m, n: 9 * n**3),
    "_linalg_svd": _factorization(lambda m, n: 4 * m * n * n + 8 * n**3),
    "_cdist_forward": _distance,
    "_pdist_forward": _distance,
    "sum": _reduction(1, -1),
    "nansum": _reduction(1, -1),
    "prod": _reduction(1, -1),
    "trace": lambda args, kwargs, out: max(0, min(args[0].shape) - 1) if _counted(out) else 0,
    "mean": _reduction(1, 0),
    "var": _reduction(4, 0),
    "var_mean": _reduction(4, 0),
    "std": _reduction(4, 1),
    "std_mean": _reduction(4, 1),
    "logsumexp": _reduction(3, 0),
    "_logcumsumexp": _reduction(3, 0),
    "linalg_vector_norm": _reduction(2, 0),
    "norm": _reduction(2, 0),
    "native_layer_norm": _norm_layer(8),
    "native_layer_norm_backward": _norm_layer(14),
    "native_group_norm": _norm_layer(8),
    "native_group_norm_backward": _norm_layer(14),
    "_fused_rms_norm": _norm_layer(4),
    "_fused_rms_norm_backward": _norm_layer(9),
    "index_add": _added_elements(3, "source"),
    "scatter_add": _added_elements(3, "src"),
    "scatter_reduce": _added_elements(3, "src"),
    "index_reduce": _added_elements(3, "source"),
    "embedding_dense_backward": _added_elements(0, "grad_output"),
    "_embedding_bag_dense_backward": _added_elements(0, "grad"),
    "segment_reduce": _added_elements(0, "data"),
    "_segment_reduce_backward": _added_elements(0, "grad"),
    "scatter": _scatter,
    "index_put": _index_put,
    "_index_put_impl": _index_put,
    "_unsafe_index_put": _index_put,
    "_scaled_dot_product_flash_attention_for_cpu": _attention(0, 2, 4),
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention(1, 5, 8),
    "allclose": lambda args, kwargs, out: 4 * _counted(args[0]),
    "_fused_adam": _fused_optimizer(13),
    "_fused_adamw": _fused_optimizer(13),
    "_fused_sgd": _fused_optimizer(4),
}


def _foreach(cost: Rule) -> Rule:
    """A ``_foreach_`` operator does the work of its element-wise form on every tensor of its first argument."""

    def rule(args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
        return sum(cost([tensor, *args[1:]], kwargs, tensor) for tensor in args[0])

    return rule


_FOREACH_RULES = ("addcmul", "addcdiv")


def find_rule(name: str) -> Rule | None:
    """The rule of an ATen operator, ``name`` without namespace and overload; None if there is none."""
    for candidate in (name, name.removesuffix("_")):
        if candidate in RULES:
            return RULES[candidate]
        element = candidate.removeprefix("_foreach_")
        if element == "norm":
            return lambda args, kwargs, out: sum(2 * tensor.numel() for tensor in args[0])
        if element != candidate and (element in PER_ELEMENT or element in FREE or element in _FOREACH_RULES):
            return _foreach(RULES[element])
    return None
