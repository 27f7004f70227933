"""The fused neighbor attention against the reference in float64: every rung of the ladder, at every SIMD level.

Sizes are random: few and many heads and channels, off every vector width; degrees up to those that are compiled; atoms
without neighbors, with repeated ones, and with more than a thousand. The level is chosen once per process, so each
level runs in a process of its own, which repeats this file.
"""

import random

import pytest
import torch

from sdas_kernels import native
from sdas_kernels.dispatch import use_backend
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.ops.neighbor_attention import cpp, neighbor_attention, reference
from sdas_kernels.paths import Paths

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
RESULTS = ("z", *cpp.BY_OPERANDS, "twice by grad", *(f"twice {name}" for name in cpp.BY_OPERANDS))

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def shape_of(seed):
    """Nodes, edges and sizes of the operands; one seed in five has a node of more than a thousand neighbors."""
    rng = random.Random(seed)
    crowd = seed % 5 == 4
    heads = rng.choice([1, 2, 3, 4, 8, 15, 16, 17, 32, 33])
    largest = 2 if crowd else 4
    return {
        "nodes": rng.randint(1, 30),
        "edges": 2200 if crowd else rng.randint(0, 200),
        "crowd": crowd,
        "heads": heads,
        "channels": heads * rng.choice([1, 2, 3, 4, 5, 8, 12, 16] if heads < 16 else [1, 2, 3]),
        "key": rng.randint(0, 5),
        "radial": rng.randint(0, 9),
        "degrees": (rng.randint(0, largest), rng.randint(0, largest), rng.randint(0, largest)),
        "even_only": rng.random() < 0.7,
    }


def draw(shape, seed, dtype=torch.float64):
    """Tangents of the operands, the incoming gradient, the operands; and the rest of a call."""
    random = torch.Generator().manual_seed(seed)
    n, e, heads, radial = (shape[name] for name in ("nodes", "edges", "heads", "radial"))
    lmax_in, lmax, lmax_out = shape["degrees"]
    receivers = torch.randint(0, n, (e,), generator=random)
    if shape["crowd"]:
        receivers[: e // 2 + 100] = n // 2
    edges = EdgeIndex.from_pairs(receivers.sort().values, torch.randint(0, n, (e,), generator=random), n)
    sizes = [
        (n, heads, shape["key"] + (lmax + 1) ** 2 + radial),
        (n, heads, shape["key"]),
        (n, heads),
        (n, (lmax_in + 1) ** 2, shape["channels"]),
        (heads, lmax + 1, radial),
        (e, (lmax + 1) ** 2),
        (e, radial),
        (e,),
    ]
    grad = (n, Paths(lmax_in, lmax, lmax_out, shape["even_only"]).rows, shape["channels"])
    drawn = [torch.randn(size, generator=random, dtype=torch.float64) for size in (*sizes, grad, *sizes)]
    drawn[9] /= 3
    drawn[16] = drawn[16].sigmoid()
    return [t.to(dtype) for t in drawn], (edges.tensors(), lmax_out, shape["even_only"])


def ladder(module, given, end):
    return [
        module.forward(*given[9:], *end),
        *module.backward(*given[8:], *end),
        *module.double_backward(*given, *end),
    ]


def poison(dtype):
    """Leave what is not a number in the memory that the next results are likely to get."""
    del [torch.full((size,), float("nan"), dtype=dtype) for size in (100, 1000, 10_000, 100_000)][:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(40))
def test_random_sizes_are_those_of_the_reference(seed, dtype):
    shape = shape_of(seed)
    given, end = draw(shape, seed)
    wanted = ladder(reference, given, end)
    poison(dtype)
    found = ladder(cpp, [t.to(dtype) for t in given], end)
    for name, a, b in zip(RESULTS, found, wanted, strict=True):
        assert a.shape == b.shape, name
        assert a.dtype == dtype
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            scale = max(1.0, b.abs().max().item())
            assert worst <= TOLERANCE[dtype] * scale, f"{name} of {shape}: off by {worst / scale:.3g}"


@pytest.mark.parametrize("seed", [3, 4, 7, 9])
def test_repeats_and_thread_counts_give_the_same_bits(seed):
    shape = shape_of(seed) | {"nodes": 70, "edges": 9000}
    given, end = draw(shape, seed, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(ladder(cpp, given, end))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_harmonics_above_the_compiled_degree_are_served_by_the_reference():
    shape = shape_of(0) | {"nodes": 4, "edges": 9, "heads": 2, "channels": 2, "degrees": (1, 5, 1)}
    given, end = draw(shape, 0)
    for a, b in zip(ladder(cpp, given, end), ladder(reference, given, end), strict=True):
        assert torch.equal(a, b)


def test_steps_of_what_has_no_gradient_are_zero():
    """PyTorch gives the double backward zeros where a loss depends on one of the gradients alone."""
    shape = shape_of(1) | {"edges": 40}
    given, (index, *rest) = draw(shape, 1)
    leaves = [t.requires_grad_() for t in given[9:]]

    def second(backend):
        with use_backend(backend, "neighbor_attention"):
            z = neighbor_attention(*leaves, EdgeIndex(*index), *rest)
            (by_value,) = torch.autograd.grad(z, leaves[3], given[8], create_graph=True)
            return torch.autograd.grad(by_value.square().sum(), [t for t in leaves if t is not leaves[3]])

    torch.testing.assert_close(second("cpp"), second("reference"), rtol=1e-11, atol=1e-11)


def test_every_simd_level(passes_at_level):
    passes_at_level(__file__, "-k", "random or bits", timeout=600)
