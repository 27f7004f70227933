"""The compiled tensor product against the reference in float64: every part of every derivative, at every SIMD level.

Specifications are random: modes, degrees, multiplicities (zero, odd, around the width of a vector), weights. The level
is chosen once per process, so each level runs in a process of its own, which repeats this file.
"""

import itertools
import random

import pytest
import torch

from sdas_kernels import native
from sdas_kernels.dispatch import use_backend
from sdas_kernels.flops import FlopCounter
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import MODES, TensorProductSpec, cpp, reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
MULTIPLICITIES = [0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 33]
FITTING = {
    "uvu": lambda m1, m2: m1,
    "uvv": lambda m1, m2: m2,
    "uuu": lambda m1, m2: m1,
    "uvuv": lambda m1, m2: m1 * m2,
    "uvu<v": lambda m1, m2: m1 * (m1 - 1) // 2,
}
OUTER = ("uvw", "uvu", "uvv", "uvuv")

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def random_spec(seed):
    rng = random.Random(seed)
    lmax, multiplicities = (8, [1, 2, 9]) if seed % 10 == 9 else (seed % 4, MULTIPLICITIES)
    entries = [(rng.choice(multiplicities), (rng.randint(0, lmax), rng.choice([1, -1]))) for _ in range(4)]
    in1, in2, out, paths = entries[:2], entries[2:], [], []
    if rng.random() < 0.7:
        in2[0] = (in1[0][0], in2[0][1])
    for (i, (m1, (l1, p1))), (j, (m2, (l2, p2))) in itertools.product(enumerate(in1), enumerate(in2)):
        for l in range(abs(l1 - l2), min(l1 + l2, lmax) + 1):
            mode = rng.choice(list(MODES) if m1 == m2 else OUTER)
            m3 = FITTING[mode](m1, m2) if mode in FITTING else rng.choice(multiplicities)
            alike = [k for k, entry in enumerate(out) if entry == (m3, (l, p1 * p2))]
            if not alike or rng.random() < 0.5:
                out.append((m3, (l, p1 * p2)))
                alike = [len(out) - 1]
            if rng.random() < 0.3:
                out.append((2, (1, 1)))  # no path leads there, unless one of this kind follows
            has_weight = not MODES[mode].weight_is_optional or mode == "uuw" or rng.random() < 0.7
            paths.append((i, j, alike[-1], mode, has_weight, rng.uniform(0.3, 2)))
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), paths)


def operands(spec, batch, shared, dtype=torch.float64):
    """Steps by x, y and the weight; gradient; x, y, weight."""
    generator = torch.Generator().manual_seed(batch)
    weight = (spec.weight_numel,) if shared else (batch, spec.weight_numel)
    shapes = (batch, spec.dims[0]), (batch, spec.dims[1]), weight
    shapes = (*shapes, (batch, spec.dims[2]), *shapes)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, spec, given, first=(True,) * 3, second=(True,) * 4, steps=(True,) * 3):
    chosen = [t if wanted else None for t, wanted in zip(given[:3], steps, strict=True)]
    return [
        module.forward(*given[4:], spec.text),
        *module.backward(*given[3:], spec.text, first),
        *module.double_backward(*chosen, *given[3:], spec.text, second),
    ]


def poison(dtype):
    """Leave what is not a number in the memory that the next results are likely to get."""
    del [torch.full((size,), float("nan"), dtype=dtype) for size in (100, 1000, 10_000, 100_000)][:]


def masks(rng, count):
    return [rng.random() < 0.8 for _ in range(count)]


def assert_close(found, wanted, tolerance, name):
    assert len(found) == len(wanted)
    for n, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape, f"{name}, result {n}"
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            assert worst <= tolerance * max(1.0, b.abs().max().item()), f"{name}, result {n}: off by {worst:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(30))
def test_random_products_are_those_of_the_reference(seed, dtype):
    """Whatever is asked for, with whatever first gradients given; what is not asked for has no elements."""
    spec, rng = random_spec(seed), random.Random(seed)
    batch, shared = (0, 1, 3, 40)[seed % 4], rng.random() < 0.5
    asked = masks(rng, 3), masks(rng, 4), masks(rng, 3)
    wanted = ladder(reference, spec, operands(spec, batch, shared), *asked)
    poison(dtype)
    found = ladder(cpp, spec, operands(spec, batch, shared, dtype), *asked)
    assert_close(found, wanted, TOLERANCE[dtype], spec.text)


def convolution(channels, lmax=2, apart=True):
    """What message passing uses: channels times one harmonic per degree, `uvu`, each path's result apart or added."""
    in1 = [(channels, (l, (-1) ** l)) for l in range(lmax + 1)]
    in2, out, paths = [(1, ir) for _, ir in in1], [], []
    for (i, (_, (l1, p1))), (j, (_, (l2, p2))) in itertools.product(enumerate(in1), enumerate(in2)):
        for l in range(abs(l1 - l2), min(l1 + l2, lmax) + 1):
            entry = (channels, (l, p1 * p2))
            if apart or entry not in out:
                out.append(entry)
            paths.append((i, j, len(out) - 1 if apart else out.index(entry), "uvu", True, 0.5 + 0.1 * len(paths)))
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), paths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("channels", [144, 150])
def test_more_channels_than_are_worked_on_at_a_time(channels, apart, dtype):
    """Groups of channels, the last one smaller, whole vectors or not."""
    spec = convolution(channels, 1, apart)
    wanted = ladder(reference, spec, operands(spec, 5, False))
    found = ladder(cpp, spec, operands(spec, 5, False, dtype))
    assert_close(found, wanted, TOLERANCE[dtype], spec.text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "batch", "apart"), [(32, 2500, True), (64, 3000, False), (20, 3500, True)])
def test_results_larger_than_the_caches(channels, batch, apart, dtype):
    """These are stored in another way; 20 channels leave rows that no vector is aligned to."""
    spec = convolution(channels, apart=apart)
    given = operands(spec, batch, False, dtype)
    wanted = ladder(reference, spec, [t.double() for t in given])
    assert_close(ladder(cpp, spec, given), wanted, TOLERANCE[dtype], spec.text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [16, 5])
def test_many_samples_with_one_weight(channels, dtype):
    """Gradients by it are summed over blocks of samples, which end in the midst of those worked on at a time."""
    spec = convolution(channels, 1)
    given = operands(spec, 5001, True, dtype)
    wanted = ladder(reference, spec, [t.double() for t in given])
    assert_close(ladder(cpp, spec, given), wanted, TOLERANCE[dtype], spec.text)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", ["uvu", "uvv", "uuu", "uvuv"])
def test_repeats_and_thread_counts_give_the_same_bits(mode, shared):
    m1, m2 = (24, 24) if mode == "uuu" else (24, 5)
    irreps = Irreps([(m1, (2, 1))]), Irreps([(m2, (1, 1))]), Irreps([(FITTING[mode](m1, m2), (2, 1))])
    spec = TensorProductSpec.of(*irreps, [(0, 0, 0, mode, True, 0.7)])
    given = operands(spec, 1003, shared, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(ladder(cpp, spec, given))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_gives_the_same_bits_wherever_it_stands(dtype):
    spec = convolution(19)
    given = operands(spec, 50, False, dtype)
    whole, part = ladder(cpp, spec, given), ladder(cpp, spec, [t[13:31].contiguous() for t in given])
    assert all(torch.equal(a[13:31], b) for a, b in zip(whole, part, strict=True))


def test_what_is_not_a_number_stays_in_its_sample():
    spec = convolution(5)
    given = operands(spec, 4, False)
    damaged = [t.clone() for t in given]
    damaged[4][2, 3] = float("nan")
    rest = torch.arange(4) != 2
    for a, b in zip(ladder(cpp, spec, damaged), ladder(cpp, spec, given), strict=True):
        assert torch.equal(a[rest], b[rest])


def test_every_simd_level(passes_at_level):
    passes_at_level(__file__, "-k", "random or caches or many")


def counted(module, spec, given):
    """FLOPs of the three rungs under the counter."""
    ops, found = torch.ops.sdas_kernels, []
    calls = [
        (ops.tensor_product, given[4:], ()),
        (ops.tensor_product_backward, given[3:], ([True] * 3,)),
        (ops.tensor_product_double_backward, given, ([True] * 4,)),
    ]
    with use_backend(module, "tensor_product"):
        for call, tensors, needs in calls:
            call(*tensors, spec.text, *needs)  # makes what is kept between calls
            with FlopCounter() as counter:
                call(*tensors, spec.text, *needs)
            assert not counter.unknown
            assert not counter.estimated
            found.append(counter.total)
    return found


def test_kernels_do_far_fewer_operations_than_the_reference():
    """The formulas know the zeros of the coupling, the reference multiplies by them; neither counts nothing."""
    spec = convolution(32)
    given = operands(spec, 10, False)
    for native_count, reference_count in zip(
        counted("cpp", spec, given), counted("reference", spec, given), strict=True
    ):
        assert 0.1 < native_count / reference_count < 1.0


def test_flops_of_a_scalar_path_by_hand():
    """One coefficient c: per sample M = c y and c N, per channel the product, its derivatives and their sums."""
    one = Irreps("3x0e"), Irreps("1x0e"), Irreps("3x0e")
    spec = TensorProductSpec.of(*one, [(0, 0, 0, "uvu", True, 1.0)])
    given = operands(spec, 7, False)
    matrix, channels = 2, 3
    forward = matrix + channels * (1 + 2)  # b = w a; M b
    # u = M g; w u; a u; b = w a; N
    backward = 2 * matrix + channels * (2 + 2 + 2 + 1 + 2)
    # u and M' g; w u' + w' u; a u' + a' u; b and w a; M b + M' w a; N
    double = 3 * matrix + channels * (4 + 4 + 4 + 4 + 4 + 2)
    assert counted("cpp", spec, given) == [7 * forward, 7 * backward, 7 * double]


def test_flops_of_dense_paths_are_affine_in_the_batch_and_near_those_of_the_matrix_products():
    irreps = Irreps("64x0e+64x1o"), Irreps("1x0e"), Irreps("64x0e+64x1o")
    spec = TensorProductSpec.of(*irreps, [(0, 0, 0, "uvw", True, 1.0), (1, 0, 1, "uvw", True, 1.0)])
    one, two, three = (counted("cpp", spec, operands(spec, batch, True)) for batch in (10, 20, 30))
    product = 10 * 2 * 64 * 64 * 4
    for count, calls, more, most in zip(one, (1, 2, 5), two, three, strict=True):
        assert product * calls <= count < 1.2 * product * calls
        assert most - more == more - count


def test_flops_of_what_the_reference_does_are_its_own():
    irreps = Irreps("5x1o"), Irreps("5x1o"), Irreps("10x1e+4x0e")
    spec = TensorProductSpec.of(*irreps, [(0, 0, 0, "uvu<v", True, 1.0), (0, 0, 1, "u<vw", True, 1.0)])
    for shared in (True, False):
        given = operands(spec, 6, shared)
        ratios = [a / b for a, b in zip(counted("cpp", spec, given), counted("reference", spec, given), strict=True)]
        assert ratios == pytest.approx([1, 1, 1], rel=0.02)
