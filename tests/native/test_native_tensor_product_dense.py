"""Compiled tensor products whose weight mixes channels and is shared, against the reference in float64."""

import itertools

import pytest
import torch

from sdas_kernels import native
from sdas_kernels.irreps import Irreps
from sdas_kernels.ops.tensor_product import TensorProductSpec, cpp, reference
from sdas_kernels.ops.tensor_product.tables_dense import dense_tables

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def fully_connected(in1, in2, out):
    """Every `uvw` path, with factors of its own."""
    in1, in2, out = Irreps(in1), Irreps(in2), Irreps(out)
    numbers = itertools.product(range(len(in1)), range(len(in2)), range(len(out)))
    paths = [(i, j, k) for i, j, k in numbers if out[k].ir in in1[i].ir * in2[j].ir]
    paths = [(*path, "uvw", True, 0.5 + 0.1 * n) for n, path in enumerate(paths)]
    return TensorProductSpec.of(in1, in2, out, paths)


def with_other_modes():
    """Outputs that dense paths have for themselves, share with kernel paths, share with the reference, and lack."""
    in1, in2, out = Irreps("3x0e+3x1o+9x2e"), Irreps("3x1o+1x0e"), Irreps("3x1o+2x2e+3x1o+5x1o+3x1e+2x3o")
    paths = [
        (0, 0, 3, "uvw", True, 0.5),
        (0, 0, 0, "uvu", True, 0.7),
        (0, 0, 0, "uvw", True, 0.9),
        (1, 0, 1, "uuw", True, 1.1),
        (1, 0, 1, "u<vw", True, 0.6),
        (2, 0, 2, "uvw", True, 1.3),
        (1, 0, 4, "uuu", False, 0.8),
    ]
    return TensorProductSpec.of(in1, in2, out, paths)


SPECS = {
    "odd sizes": fully_connected("5x0e+7x1o+3x2e", "1x0e+1x1o+1x2e", "9x0e+4x1o+6x2e+2x1e"),
    "many channels of both": fully_connected("17x0e+6x1o", "3x0e+5x1o", "19x1o+18x0e+2x2e"),
    "deep matrices": fully_connected("70x0e+70x1o", "2x0e+1x1o", "33x0e+40x1o"),
    "one of everything": fully_connected("1x1o", "1x1o", "1x0e+1x1e+1x2e"),
    "no channels on some sides": fully_connected("0x0e+3x1o", "1x0e+0x1o", "2x1o+0x0e+4x2e"),
    "high degrees": fully_connected("2x0e+2x8e", "1x8e+1x3o", "3x8e+2x3o+2x5o"),
    "with other modes": with_other_modes(),
}


def operands(spec, batch, dtype=torch.float64):
    """Steps by x, y and the weight; gradient; x, y, weight."""
    generator = torch.Generator().manual_seed(batch)
    shapes = (batch, spec.dims[0]), (batch, spec.dims[1]), (spec.weight_numel,)
    shapes = (*shapes, (batch, spec.dims[2]), *shapes)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, spec, given, first=(True,) * 3, second=(True,) * 4):
    return [
        module.forward(*given[4:], spec.text),
        *module.backward(*given[3:], spec.text, first),
        *module.double_backward(*given, spec.text, second),
    ]


def poison(dtype):
    """Leave what is not a number in the memory that the next results are likely to get."""
    del [torch.full((size,), float("nan"), dtype=dtype) for size in (100, 1000, 10_000, 100_000)][:]


def assert_reference(spec, batch, dtype, **asked):
    given = operands(spec, batch, dtype)
    wanted = ladder(reference, spec, [t.double() for t in given], **asked)
    poison(dtype)
    found = ladder(cpp, spec, given, **asked)
    for n, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape, f"result {n}"
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            assert worst <= TOLERANCE[dtype] * max(1.0, b.abs().max().item()), f"result {n}: off by {worst:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [0, 1, 13])
@pytest.mark.parametrize("name", SPECS)
def test_all_results_are_those_of_the_reference(name, batch, dtype):
    assert_reference(SPECS[name], batch, dtype)


@pytest.mark.parametrize("name", ["odd sizes", "with other modes"])
@pytest.mark.parametrize("batch", [97, 3000])
def test_many_blocks_and_spans_are_those_of_the_reference(batch, name):
    assert_reference(SPECS[name], batch, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [32, 30])
def test_results_larger_than_the_caches_are_those_of_the_reference(channels, dtype):
    """These are stored in another way, which rows of 30 channels, that no vector is aligned to, do not allow."""
    irreps = f"{channels}x0e+{channels}x1o"
    assert_reference(fully_connected(irreps, "1x0e+1x1o", irreps), 9000, dtype)


@pytest.mark.parametrize("n", range(4))
@pytest.mark.parametrize("name", ["odd sizes", "with other modes"])
def test_each_result_asked_for_alone_is_that_of_the_reference(name, n):
    """What is not asked for has no elements, and what it would share with the one asked for is made all the same."""
    first, second = [n == k for k in range(3)], [n == k for k in range(4)]
    assert_reference(SPECS[name], 7, torch.float64, first=first, second=second)


def test_both_sides_of_the_matrices_are_used():
    """Else the tests above would miss one of the ways to do a path."""
    for name in ("odd sizes", "many channels of both", "with other modes"):
        coupled = {m.coupled for m in dense_tables(SPECS[name].text, torch.float64).matrices}
        assert coupled == {False, True}, name


def test_the_weight_multiplies_as_few_rows_as_it_can():
    """min(2 l1 + 1, 2 l3 + 1) of each path, where there are as many channels on both sides."""
    spec = fully_connected("64x0e+64x1o+64x2e", "1x0e+1x1o+1x2e", "64x0e+64x1o+64x2e")
    least = sum(min(spec.entries(p)[0].ir.dim, spec.entries(p)[2].ir.dim) for p in spec.instructions)
    matrices = dense_tables(spec.text, torch.float32).matrices
    assert sum(m.rows * m.depth * m.columns for m in matrices) == least * 64 * 64


def test_threads_and_repeats_give_the_same_bits():
    spec = SPECS["odd sizes"]
    given = operands(spec, 1003, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(ladder(cpp, spec, given))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_every_simd_level(passes_at_level):
    passes_at_level(__file__, "-k", "reference")
