"""The tensor product's Triton kernels against the reference in float64, run as `triton_cases.py` is."""

from __future__ import annotations

import itertools
import os
import random

import pytest
import torch

from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import MODES, TensorProductSpec, pieces, reference
from sdas_kernels.ops.tensor_product import triton as kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("NEITHER INTERPRETED NOR ON A GPU: set TRITON_INTERPRET=1", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("interpreter_bounds_loops", "unwritten_memory_is_nan")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
FITTING = {
    "uvu": lambda m1, m2: m1,
    "uvv": lambda m1, m2: m2,
    "uuu": lambda m1, m2: m1,
    "uvuv": lambda m1, m2: m1 * m2,
    "uvu<v": lambda m1, m2: m1 * (m1 - 1) // 2,
}
OUTER = ("uvw", "uvu", "uvv", "uvuv")


def one_path(mode, multiplicities, degrees=(1, 2, 1), has_weight=True):
    m1, m2 = multiplicities
    m3 = FITTING[mode](m1, m2) if mode in FITTING else 2
    irreps = [Irreps([(m, (l, 1))]) for m, l in zip((m1, m2, m3), degrees, strict=True)]
    return TensorProductSpec.of(*irreps, [(0, 0, 0, mode, has_weight, 0.7)])


def random_spec(seed, lmax=2, multiplicities=(0, 1, 2, 3, 5, 33)):
    """Two entries on each side and some of all paths between them, in any mode that fits."""
    rng = random.Random(seed)
    entries = [(rng.choice(multiplicities), (rng.randint(0, lmax), rng.choice([1, -1]))) for _ in range(4)]
    in1, in2, out, paths = entries[:2], entries[2:], [], []
    if rng.random() < 0.7:
        in2[0] = (in1[0][0], in2[0][1])
    for (i, (m1, (l1, p1))), (j, (m2, (l2, p2))) in itertools.product(enumerate(in1), enumerate(in2)):
        for l in range(abs(l1 - l2), min(l1 + l2, lmax) + 1):
            if m1 * m2 > 40 or rng.random() < 0.3:
                continue
            mode = rng.choice(list(MODES) if m1 == m2 else OUTER)
            m3 = FITTING[mode](m1, m2) if mode in FITTING else rng.choice(multiplicities)
            alike = [k for k, entry in enumerate(out) if entry == (m3, (l, p1 * p2))]
            if not alike or rng.random() < 0.5:
                out.append((m3, (l, p1 * p2)))
                alike = [len(out) - 1]
            has_weight = not MODES[mode].weight_is_optional or mode == "uuw" or rng.random() < 0.7
            paths.append((i, j, alike[-1], mode, has_weight, rng.uniform(0.3, 2)))
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps([*out, (2, (1, 1))]), paths)


def operands(spec, batch, shared, dtype):
    """Steps by x, y and the weight; gradient; x, y, weight."""
    generator = torch.Generator().manual_seed(batch)
    weight = (spec.weight_numel,) if shared else (batch, spec.weight_numel)
    shapes = (batch, spec.dims[0]), (batch, spec.dims[1]), weight
    shapes = (*shapes, (batch, spec.dims[2]), *shapes)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, spec, given, device, first, second, steps):
    given = [t.to(device) for t in given]
    chosen = [t if wanted else None for t, wanted in zip(given[:3], steps, strict=True)]
    found = [
        module.forward(*given[4:], spec.text),
        *module.backward(*given[3:], spec.text, first),
        *module.double_backward(*chosen, *given[3:], spec.text, second),
    ]
    return [t.cpu() for t in found]


def check(spec, batch=3, shared=False, dtype=torch.float64, first=(True,) * 3, second=(True,) * 4, steps=(True,) * 3):
    given = operands(spec, batch, shared, dtype)
    wanted = ladder(reference, spec, [t.double() for t in given], "cpu", first, second, steps)
    found = ladder(kernels, spec, given, DEVICE, first, second, steps)
    again = found if INTERPRETED else ladder(kernels, spec, given, DEVICE, first, second, steps)
    for n, (a, b, c) in enumerate(zip(found, wanted, again, strict=True)):
        assert a.shape == b.shape, f"{spec.text}, result {n}"
        assert a.dtype == dtype
        assert torch.equal(a, c), f"{spec.text}, result {n}: not repeatable"
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            assert worst <= TOLERANCE[dtype] * max(1.0, b.abs().max().item()), f"{spec.text}, {n}: off by {worst:.3g}"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode, shared):
    check(one_path(mode, (3, 3) if mode in ("uuw", "uuu", "uvu<v", "u<vw") else (3, 2)), shared=shared)


@pytest.mark.parametrize("seed", range(8))
def test_random_products(seed):
    rng = random.Random(seed)
    asked = [[rng.random() < 0.8 for _ in range(count)] for count in (3, 4, 3)]
    batch = (0, 1, 3, 5)[seed % 4]
    check(random_spec(seed), batch, rng.random() < 0.5, torch.float64, *asked)


@pytest.mark.parametrize("mode", ["uvu", "uvv", "uvuv"])
def test_modes_without_a_weight(mode):
    check(one_path(mode, (3, 2), has_weight=False))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mode", ["uvu", "uuu"])
def test_several_blocks_of_channels(mode, shared):
    check(one_path(mode, (70, 70 if mode == "uuu" else 1), (1, 1, 1)), shared=shared)


def test_one_channel_and_scalars():
    """More samples than threads: several spans of a shared weight's gradient."""
    check(one_path("uvu", (1, 1), (0, 0, 0)), batch=70, shared=True)


def test_a_degree_of_eight():
    check(one_path("uvu", (2, 1), (4, 8, 4)), batch=1)


def test_pieces_that_share_operands_and_results(monkeypatch):
    """With hardly any registers each path is a piece and writes parts, in several launches."""
    monkeypatch.setattr(kernels, "BUDGET_F64", 1)
    monkeypatch.setattr(pieces, "TERMS", 8)
    in1, in2, out = Irreps("3x0e+3x1o"), Irreps("1x0e+1x1o"), Irreps("3x0e+3x1o")
    paths = [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]
    spec = TensorProductSpec.of(in1, in2, out, [(*path, "uvu", True, 0.7) for path in paths])
    check(spec)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["uvu", "uvw"])
def test_less_precision(mode, dtype):
    check(one_path(mode, (3, 2), (1, 1, 1)), shared=True, dtype=dtype)
