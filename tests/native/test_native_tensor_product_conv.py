"""The compiled convolution against the reference in float64: every part of every derivative, at every SIMD level.

Specifications and graphs are random: degrees, multiplicities (zero, odd, around the width of a vector), several members
of y, paths without weight, shared weights, nodes without edges, duplicates, one crowded node. The level is chosen once
per process, so each level runs in a process of its own, which repeats this file.
"""

import itertools
import random

import pytest
import torch

from sdas_kernels import native
from sdas_kernels.dispatch import use_backend
from sdas_kernels.flops import FlopCounter
from sdas_kernels.graph import EdgeIndex
from sdas_kernels.irreps import Irreps
from sdas_kernels.nn import uvu_paths_apart
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product_conv import cpp, reference
from sdas_kernels.ops.tensor_product_conv.tables import tables

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
MULTIPLICITIES = [0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 32, 33, 48]

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def random_spec(seed):
    rng = random.Random(seed)
    lmax = 8 if seed % 10 == 9 else 4
    in1 = [(rng.choice(MULTIPLICITIES), (rng.randint(0, lmax), rng.choice([1, -1]))) for _ in range(2)]
    in2 = [(rng.choice([1, 1, 1, 0, 2, 3]), (rng.randint(0, lmax), rng.choice([1, -1]))) for _ in range(2)]
    out, paths = [(2, (1, 1))], []
    for (i, (m1, (l1, p1))), (j, (_, (l2, p2))) in itertools.product(enumerate(in1), enumerate(in2)):
        for l in range(abs(l1 - l2), min(l1 + l2, lmax) + 1):
            alike = [k for k, entry in enumerate(out) if entry == (m1, (l, p1 * p2))]
            if not alike or rng.random() < 0.5:
                out.append((m1, (l, p1 * p2)))
                alike = [len(out) - 1]
            paths.append((i, j, alike[-1], "uvu", rng.random() < 0.8, rng.uniform(0.3, 2)))
    rng.shuffle(paths)
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), paths)


def random_edges(seed):
    """Seven nodes, some of them without edges; every fifth time one has 1100."""
    rng = random.Random(seed)
    count = (0, 1, 5, 40, 100)[seed % 5]
    receivers = sorted(rng.choice([0, 2, 3, 6]) for _ in range(count))
    if seed % 5 == 4:
        receivers = [1] * 1100 + receivers[-3:]
    senders = [rng.choice([0, 1, 3, 4]) for _ in receivers]
    return EdgeIndex.from_pairs(*(torch.tensor(t, dtype=torch.int64) for t in (receivers, senders)), 7)


def operands(spec, edges, shared, dtype=torch.float64):
    """Steps by x, y and the weight; gradient; x, y, weight."""
    generator = torch.Generator().manual_seed(edges.num_edges)
    weight = (spec.weight_numel,) if shared else (edges.num_edges, spec.weight_numel)
    shapes = (edges.num_nodes, spec.dims[0]), (edges.num_edges, spec.dims[1]), weight
    shapes = (*shapes, (edges.num_nodes, spec.dims[2]), *shapes)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ladder(module, spec, edges, given, first=(True,) * 3, second=(True,) * 4, steps=(True,) * 3):
    chosen = [t if wanted else None for t, wanted in zip(given[:3], steps, strict=True)]
    end = edges.tensors(), spec.text
    return [
        module.forward(*given[4:], *end),
        *module.backward(*given[3:], *end, first),
        *module.double_backward(*chosen, *given[3:], *end, second),
    ]


def poison(dtype):
    """Leave what is not a number in the memory that the next results are likely to get."""
    del [torch.full((size,), float("nan"), dtype=dtype) for size in (100, 1000, 10_000, 100_000)][:]


def assert_close(found, wanted, tolerance, name):
    assert len(found) == len(wanted)
    for n, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape, f"{name}, result {n}"
        if b.numel():
            worst = (a.double() - b).abs().max().item()
            assert worst <= tolerance * max(1.0, b.abs().max().item()), f"{name}, result {n}: off by {worst:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(30))
def test_random_convolutions_are_those_of_the_reference(seed, dtype):
    """Whatever is asked for, with whatever first gradients given; what is not asked for has no elements."""
    spec, edges, rng = random_spec(seed), random_edges(seed), random.Random(seed)
    assert tables(spec.text, dtype) is not None
    shared = rng.random() < 0.4
    asked = [[rng.random() < 0.8 for _ in range(count)] for count in (3, 4, 3)]
    wanted = ladder(reference, spec, edges, operands(spec, edges, shared), *asked)
    poison(dtype)
    found = ladder(cpp, spec, edges, operands(spec, edges, shared, dtype), *asked)
    assert_close(found, wanted, TOLERANCE[dtype], spec.text)


def convolution(channels, lmax=2):
    features = "+".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(lmax + 1))
    harmonics = "+".join(f"1x{l}{'eo'[l % 2]}" for l in range(lmax + 1))
    out, paths = uvu_paths_apart(features, harmonics, features)
    return TensorProductSpec.of(Irreps(features), Irreps(harmonics), out, [(*path, 0.8) for path in paths])


def test_what_is_not_a_number_stays_with_its_edge():
    """Edges share a chunk and a sender, not their results."""
    spec, edges = convolution(5), EdgeIndex.from_pairs(torch.arange(6) // 2, torch.tensor([0, 1, 1, 2, 0, 2]), 3)
    given = operands(spec, edges, False)
    damaged = [t.clone() for t in given]
    damaged[5][2] = float("nan")  # y of an edge from 1 to 1
    nodes, at = torch.arange(3) != 1, torch.arange(6) != 2
    kept = [nodes, nodes, at, at, nodes, nodes, at, at]
    pairs = zip(ladder(cpp, spec, edges, damaged), ladder(cpp, spec, edges, given), kept, strict=True)
    for a, b, rest in pairs:
        assert torch.equal(a[rest], b[rest])


def test_every_simd_level(passes_at_level):
    passes_at_level(__file__, "-k", "random")


def counted(backend, spec, edges, given):
    """FLOPs of the three rungs under the counter."""
    ops, end, found = torch.ops.sdas_kernels, (edges.tensors(), spec.text), []
    calls = [
        (ops.tensor_product_conv, given[4:], ()),
        (ops.tensor_product_conv_backward, given[3:], ([True] * 3,)),
        (ops.tensor_product_conv_double_backward, given, ([True] * 4,)),
    ]
    with use_backend(backend):
        for call, tensors, needs in calls:
            call(*tensors, *end, *needs)  # makes what is kept between calls
            with FlopCounter() as counter:
                call(*tensors, *end, *needs)
            assert not counter.unknown
            assert not counter.estimated
            found.append(counter.total)
    return found


def test_flops_of_a_convolution_are_fewer_than_those_of_the_reference():
    spec, edges = convolution(32), random_edges(3)
    given = operands(spec, edges, False)
    counts = zip(counted("cpp", spec, edges, given), counted("reference", spec, edges, given), strict=True)
    for native_count, reference_count in counts:
        assert 0.2 < native_count / reference_count < 1.0


def test_flops_of_a_vector_path_by_hand():
    """1o x 1o -> 1e, six coefficients, nine pairs; 0e x 0e -> 0e, one number."""
    edges = random_edges(3)
    vector = TensorProductSpec.of(Irreps("3x1o"), Irreps("1x1o"), Irreps("3x1e"), [(0, 0, 0, "uvu", True, 1.0)])
    matrix, product = 2 * 6, 2 * 9
    forward = matrix + 3 * (3 + product)  # M; w x; M of it
    edge = matrix + 3 * (2 * product + 3 * 3) + matrix  # M; g M x, w g x; g w, the sum by w; C of what was summed
    double = 2 * (2 * matrix) + 3 * (4 * 3 + 2 * product) + 3 * (2 * 3 + 2 * product)
    double += 2 * matrix + 3 * (4 * product + 4 * 3) + matrix
    given = operands(vector, edges, False)
    assert counted("cpp", vector, edges, given) == [40 * n for n in (forward, forward + edge, double)]
    scalar = TensorProductSpec.of(Irreps("3x0e"), Irreps("1x0e"), Irreps("3x0e"), [(0, 0, 0, "uvu", True, 1.0)])
    forward = 2 + 3 * (1 + 2)
    given = operands(scalar, edges, False)
    assert counted("cpp", scalar, edges, given)[0] == 40 * forward


def test_flops_of_paths_that_mix_channels_are_those_of_the_tensor_product():
    edges = random_edges(3)
    mixed = TensorProductSpec.of(Irreps("3x1o"), Irreps("2x1o"), Irreps("4x1e"), [(0, 0, 0, "uvw", True, 1.0)])
    assert tables(mixed.text, torch.float64) is None
    given = operands(mixed, edges, False)
    with use_backend("cpp"), FlopCounter() as counter:
        torch.ops.sdas_kernels.tensor_product(given[4][edges.senders], *given[5:], mixed.text)
    assert counted("cpp", mixed, edges, given)[0] == counter.total + 40 * mixed.dims[2]
