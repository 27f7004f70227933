# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code=assignment
"""Edge softmax on the GPU by Triton: forward, backward and double backward over receivers, and the keys' gradient.

A program is one node and a block of heads, one warp unless `sdas_kernels.tuning` found otherwise. An edge is a tile
`[heads, T]` of what the query meets, key and geometry side by side (T = D + M + n), so that a logit is one sum over an
axis and the gradients of geometry one over the other. A program goes through its edges twice, in their order. The first
time it sums the softmax's denominator and the other averages of a node online, rescaling as the largest logit grows;
they are linear in exp(e), those of the second derivative too, since Σ g α̇ = Σ g (α ė + u ḟ) - drift Σ g α. The second
time it makes what belongs to edges. Logits are computed both times: a number stored by one thread is not seen by
another without a barrier, and a row of keys is read again from the cache.

Blocks of heads write parts of the gradients of geometry, which PyTorch sums: nothing is added atomically. The formulas
of the derivatives are in `reference.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdas_kernels import tuning
from sdas_kernels.triton_support import LAUNCH

# Left alone, ptxas aims at 96 registers in the double backward and spills two of them.
MOST_REGISTERS = {tl.float32: {"maxnreg": 128}, tl.float64: {}}


@triton.jit
def _heads(HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """This program's node, its heads and which of them exist."""
    heads = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0).to(tl.int64), heads, heads < HEADS


@triton.jit
def _rows(rows, heads, head_mask, WIDTH: tl.constexpr, ROW: tl.constexpr, T: tl.constexpr, DTYPE: tl.constexpr):
    """Rows of a node's heads, `[heads, T]`, of which WIDTH are there and the others zero."""
    t = tl.arange(0, T)
    mask = head_mask[:, None] & (t < WIDTH)[None, :]
    return tl.load(rows + heads[:, None] * ROW + t[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _target(
    key, harmonics, radial, e, sender, heads, head_mask,
    HEADS: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """[key | Y | R] of an edge, `[heads, T]`."""
    t = tl.arange(0, T)
    y = tl.load(harmonics + e * M + t - D, mask=(t >= D) & (t < D + M), other=0.0).to(DTYPE)
    r = tl.load(radial + e * N + t - (D + M), mask=(t >= D + M) & (t < D + M + N), other=0.0).to(DTYPE)
    return _rows(key + sender * (HEADS * D), heads, head_mask, D, D, T, DTYPE) + (y + r)[None, :]


@triton.jit
def _of_edge(x, e, heads, head_mask, HEADS: tl.constexpr, DTYPE: tl.constexpr):
    """`[heads]` of an edge or a node."""
    return tl.load(x + e * HEADS + heads, mask=head_mask, other=0.0).to(DTYPE)


@triton.jit
def _start(sink):
    """The largest logit so far and the denominator relative to it: the sink's alone."""
    return sink, tl.where(sink == float("-inf"), 0.0, 1.0).to(sink.dtype)


@triton.jit
def _raise(top, logit):
    """The largest logit with one more, the factor of sums so far, and the weight of the one."""
    higher = tl.maximum(top, logit)
    return higher, tl.exp(top - higher), tl.exp(logit - higher)


@triton.jit
def _finish(sink, top, total):
    """The largest logit, finite; 1/Z, where there is anything to divide; exp(s)/Z."""
    top = tl.where(top == float("-inf"), 0.0, top)
    inverse = 1.0 / tl.where(total == 0, 1.0, total)
    return top, inverse, tl.exp(sink - top) * inverse


@triton.jit
def _store_target(
    out_harmonics, out_radial, edge, by_target, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr
):
    """Y's and R's part of a row `[T]`."""
    t = tl.arange(0, T)
    tl.store(out_harmonics + edge * M + t - D, by_target, mask=(t >= D) & (t < D + M))
    tl.store(out_radial + edge * N + t - (D + M), by_target, mask=(t >= D + M) & (t < D + M + N))


@triton.jit
def _store_node(
    out_query, out_sink, node, heads, head_mask, by_query, by_sink,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Rows `[heads, T]` and `[heads]` of a node."""
    t = tl.arange(0, T)
    to_query = out_query + node * (HEADS * WIDTH) + heads[:, None] * WIDTH + t[None, :]
    tl.store(to_query, by_query, mask=head_mask[:, None] & (t < WIDTH)[None, :])
    tl.store(out_sink + node * HEADS + heads, by_sink, mask=head_mask)


@triton.jit
def softmax(
    out_alpha, query, key, sink, harmonics, radial, envelope, senders, row_ptr,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """α of a node's edges. Grid: receivers, blocks of heads."""
    width: tl.constexpr = D + M + N
    node, heads, head_mask = _heads(HEADS, BLOCK)
    first, last = tl.load(row_ptr + node), tl.load(row_ptr + node + 1)
    q = _rows(query + node * (HEADS * width), heads, head_mask, width, width, T, DTYPE)
    s = _of_edge(sink, node, heads, head_mask, HEADS, DTYPE)
    top, total = _start(s)
    for e in range(first, last):
        target = _target(key, harmonics, radial, e, tl.load(senders + e), heads, head_mask, HEADS, D, M, N, T, DTYPE)
        top, factor, weight = _raise(top, tl.sum(q * target, 1))
        total = total * factor + weight * tl.load(envelope + e).to(DTYPE)
    top, inverse, _ = _finish(s, top, total)
    for e in range(first, last):
        target = _target(key, harmonics, radial, e, tl.load(senders + e), heads, head_mask, HEADS, D, M, N, T, DTYPE)
        alpha = tl.exp(tl.sum(q * target, 1) - top) * inverse * tl.load(envelope + e).to(DTYPE)
        tl.store(out_alpha + e * HEADS + heads, alpha, mask=head_mask)


@triton.jit(do_not_specialize=["edges"])
def softmax_backward(
    out_query, out_sink, out_harmonics, out_radial, out_envelope, out_logit,
    grad, query, key, sink, harmonics, radial, envelope, senders, row_ptr, edges,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """By logit `[E, K]`, and all gradients but the keys'. Grid: receivers, blocks of heads."""
    width: tl.constexpr = D + M + N
    node, heads, head_mask = _heads(HEADS, BLOCK)
    part = tl.program_id(1).to(tl.int64) * edges
    first, last = tl.load(row_ptr + node), tl.load(row_ptr + node + 1)
    q = _rows(query + node * (HEADS * width), heads, head_mask, width, width, T, DTYPE)
    s = _of_edge(sink, node, heads, head_mask, HEADS, DTYPE)
    top, total = _start(s)
    mean = tl.zeros((BLOCK,), DTYPE)
    for e in range(first, last):
        target = _target(key, harmonics, radial, e, tl.load(senders + e), heads, head_mask, HEADS, D, M, N, T, DTYPE)
        top, factor, weight = _raise(top, tl.sum(q * target, 1))
        weight = weight * tl.load(envelope + e).to(DTYPE)
        total = total * factor + weight
        mean = mean * factor + weight * _of_edge(grad, e, heads, head_mask, HEADS, DTYPE)
    top, inverse, sink_weight = _finish(s, top, total)
    mean = mean * inverse
    by_query = tl.zeros((BLOCK, T), DTYPE)
    for e in range(first, last):
        target = _target(key, harmonics, radial, e, tl.load(senders + e), heads, head_mask, HEADS, D, M, N, T, DTYPE)
        u = tl.exp(tl.sum(q * target, 1) - top) * inverse
        slope = u * (_of_edge(grad, e, heads, head_mask, HEADS, DTYPE) - mean)
        by_logit = slope * tl.load(envelope + e).to(DTYPE)
        by_query += by_logit[:, None] * target
        tl.store(out_logit + e * HEADS + heads, by_logit, mask=head_mask)
        _store_target(out_harmonics, out_radial, part + e, tl.sum(by_logit[:, None] * q, 0), D, M, N, T)
        tl.store(out_envelope + part + e, tl.sum(slope, 0))
    _store_node(out_query, out_sink, node, heads, head_mask, by_query, -sink_weight * mean, HEADS, width, T)


@triton.jit(do_not_specialize=["edges"])
def softmax_double_backward(
    out_alpha, out_query, out_sink, out_harmonics, out_radial, out_envelope, out_logit, out_logit_step,
    query_step, key_step, sink_step, harmonics_step, radial_step, envelope_step,
    grad, query, key, sink, harmonics, radial, envelope, senders, row_ptr, edges,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The same of a backward along the steps, and α's step. Grid: receivers, blocks of heads."""
    width: tl.constexpr = D + M + N
    node, heads, head_mask = _heads(HEADS, BLOCK)
    part = tl.program_id(1).to(tl.int64) * edges
    first, last = tl.load(row_ptr + node), tl.load(row_ptr + node + 1)
    q = _rows(query + node * (HEADS * width), heads, head_mask, width, width, T, DTYPE)
    q_step = _rows(query_step + node * (HEADS * width), heads, head_mask, width, width, T, DTYPE)
    s = _of_edge(sink, node, heads, head_mask, HEADS, DTYPE)
    s_step = _of_edge(sink_step, node, heads, head_mask, HEADS, DTYPE)
    top, total = _start(s)
    mean = tl.zeros((BLOCK,), DTYPE)
    drift = tl.zeros((BLOCK,), DTYPE)
    moment = tl.zeros((BLOCK,), DTYPE)
    for e in range(first, last):
        j = tl.load(senders + e)
        target = _target(key, harmonics, radial, e, j, heads, head_mask, HEADS, D, M, N, T, DTYPE)
        target_step = _target(key_step, harmonics_step, radial_step, e, j, heads, head_mask, HEADS, D, M, N, T, DTYPE)
        g = _of_edge(grad, e, heads, head_mask, HEADS, DTYPE)
        f = tl.load(envelope + e).to(DTYPE)
        top, factor, weight = _raise(top, tl.sum(q * target, 1))
        logit_step = tl.sum(q_step * target + q * target_step, 1)
        unscaled = weight * (logit_step * f + tl.load(envelope_step + e).to(DTYPE))
        total = total * factor + weight * f
        mean = mean * factor + weight * f * g
        drift = drift * factor + unscaled
        moment = moment * factor + unscaled * g
    top, inverse, sink_weight = _finish(s, top, total)
    mean = mean * inverse
    drift = drift * inverse + sink_weight * s_step
    total_step = moment * inverse - mean * drift
    by_query = tl.zeros((BLOCK, T), DTYPE)
    for e in range(first, last):
        j = tl.load(senders + e)
        target = _target(key, harmonics, radial, e, j, heads, head_mask, HEADS, D, M, N, T, DTYPE)
        target_step = _target(key_step, harmonics_step, radial_step, e, j, heads, head_mask, HEADS, D, M, N, T, DTYPE)
        f = tl.load(envelope + e).to(DTYPE)
        u = tl.exp(tl.sum(q * target, 1) - top) * inverse
        logit_step = tl.sum(q_step * target + q * target_step, 1)
        alpha_step = u * (f * (logit_step - drift) + tl.load(envelope_step + e).to(DTYPE))
        excess = _of_edge(grad, e, heads, head_mask, HEADS, DTYPE) - mean
        by_logit = excess * alpha_step - u * f * total_step
        by_logit_step = u * f * excess
        by_query += by_logit[:, None] * target + by_logit_step[:, None] * target_step
        by_target = tl.sum(by_logit[:, None] * q + by_logit_step[:, None] * q_step, 0)
        tl.store(out_alpha + e * HEADS + heads, alpha_step, mask=head_mask)
        tl.store(out_logit + e * HEADS + heads, by_logit, mask=head_mask)
        tl.store(out_logit_step + e * HEADS + heads, by_logit_step, mask=head_mask)
        _store_target(out_harmonics, out_radial, part + e, by_target, D, M, N, T)
        tl.store(out_envelope + part + e, tl.sum(u * (excess * (logit_step - drift) - total_step), 0))
    by_sink = -sink_weight * (mean * (s_step - drift) + total_step)
    _store_node(out_query, out_sink, node, heads, head_mask, by_query, by_sink, HEADS, width, T)


@triton.jit
def to_senders(
    out_key, by_logit, by_logit_step, query, query_step, receivers, sender_order, sender_ptr,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
    DTYPE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """By key: Σ over what a node sends of by_logit q_i. Grid: senders, blocks of heads."""
    width: tl.constexpr = D + M + N
    node, heads, head_mask = _heads(HEADS, BLOCK)
    by_key = tl.zeros((BLOCK, T), DTYPE)
    for place in range(tl.load(sender_ptr + node), tl.load(sender_ptr + node + 1)):
        e = tl.load(sender_order + place)
        row = tl.load(receivers + e) * (HEADS * width)
        c = _of_edge(by_logit, e, heads, head_mask, HEADS, DTYPE)
        by_key += c[:, None] * _rows(query + row, heads, head_mask, D, width, T, DTYPE)
        if STEP:
            c = _of_edge(by_logit_step, e, heads, head_mask, HEADS, DTYPE)
            by_key += c[:, None] * _rows(query_step + row, heads, head_mask, D, width, T, DTYPE)
    t = tl.arange(0, T)
    to_key = out_key + node * (HEADS * D) + heads[:, None] * D + t[None, :]
    tl.store(to_key, by_key, mask=head_mask[:, None] & (t < D)[None, :])


def forward(
    query: Tensor, key: Tensor, sink: Tensor, harmonics: Tensor, radial: Tensor, envelope: Tensor, index: list[Tensor]
) -> Tensor:
    """`[E, K]`."""
    alpha = query.new_empty(len(envelope), query.shape[1])
    operands = (query, key, sink, harmonics, radial, envelope)
    _run(softmax, (alpha, *operands, index[1], index[2]), query, harmonics, radial)
    return alpha


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    sink: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    envelope: Tensor,
    index: list[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients by query, key, sink, harmonics, radial, envelope."""
    operands = (query, key, sink, harmonics, radial, envelope)
    by_query, by_key, by_sink = (torch.empty_like(t) for t in operands[:3])
    geometry = _parts(query, harmonics, radial, envelope)
    by_logit = torch.empty_like(grad, dtype=_sums_dtype(grad))
    arguments = (by_query, by_sink, *geometry, by_logit, grad, *operands, index[1], index[2], len(envelope))
    _run(softmax_backward, arguments, query, harmonics, radial)
    to_keys = (by_key, by_logit, by_logit, query, query, index[0], *index[3:])
    _run(to_senders, to_keys, query, harmonics, radial, STEP=False)
    return by_query, by_key, by_sink, *(_total(part, query.dtype) for part in geometry)


def double_backward(
    grad_query: Tensor,
    grad_key: Tensor,
    grad_sink: Tensor,
    grad_harmonics: Tensor,
    grad_radial: Tensor,
    grad_envelope: Tensor,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    sink: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    envelope: Tensor,
    index: list[Tensor],
) -> tuple[Tensor, ...]:
    """Gradients of <grad_*, backward(grad, ...)> by grad, query, key, sink, harmonics, radial, envelope."""
    steps = (grad_query, grad_key, grad_sink, grad_harmonics, grad_radial, grad_envelope)
    operands = (query, key, sink, harmonics, radial, envelope)
    by_query, by_key, by_sink = (torch.empty_like(t) for t in operands[:3])
    geometry = _parts(query, harmonics, radial, envelope)
    by_grad = torch.empty_like(grad)
    logits = [torch.empty_like(grad, dtype=_sums_dtype(grad)) for _ in range(2)]
    results = (by_grad, by_query, by_sink, *geometry, *logits)
    arguments = (*results, *steps, grad, *operands, index[1], index[2], len(envelope))
    _run(softmax_double_backward, arguments, query, harmonics, radial)
    to_keys = (by_key, *logits, query, grad_query, index[0], *index[3:])
    _run(to_senders, to_keys, query, harmonics, radial, STEP=True)
    return by_grad, by_query, by_key, by_sink, *(_total(part, query.dtype) for part in geometry)


def _sums_dtype(like: Tensor) -> torch.dtype:
    """What sums are kept in."""
    return torch.promote_types(like.dtype, torch.float32)


def _blocks(query: Tensor) -> tuple[int, int, int]:
    """T padded, heads of a program, programs per node."""
    heads, width = query.shape[1:]
    padded = triton.next_power_of_2(max(1, width))
    tile_bytes = tuning.launch("edge_softmax", query.device).size
    block = min(max(1, tile_bytes // _sums_dtype(query).itemsize // padded), triton.next_power_of_2(heads))
    return padded, block, triton.cdiv(heads, block)


def _parts(query: Tensor, *geometry: Tensor) -> list[Tensor]:
    """Where blocks of heads write their gradients of harmonics, radial and envelope."""
    programs = _blocks(query)[2]
    return [t.new_empty(programs, *t.shape, dtype=_sums_dtype(query)) for t in geometry]


def _total(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the blocks' parts."""
    return (parts[0] if len(parts) == 1 else parts.sum(0)).to(dtype)


def _run(kernel, arguments, query: Tensor, harmonics: Tensor, radial: Tensor, **constants) -> None:
    nodes, heads, width = query.shape
    padded, block, programs = _blocks(query)
    dtype = tl.float64 if query.dtype == torch.float64 else tl.float32
    options = LAUNCH | {"num_warps": tuning.launch("edge_softmax", query.device).num_warps}
    options |= MOST_REGISTERS[dtype] if kernel is softmax_double_backward else {}
    sizes = {"D": width - harmonics.shape[1] - radial.shape[1], "M": harmonics.shape[1], "N": radial.shape[1]}
    if nodes and heads:
        with torch.cuda.device_of(query):
            kernel[nodes, programs](
                *arguments, **constants, **sizes, HEADS=heads, BLOCK=block, T=padded, DTYPE=dtype, **options
            )
