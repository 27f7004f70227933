"""The network, whole: energies and their gradient by one kernel, and the derivative of both, against its parts."""

from __future__ import annotations

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels import dispatch
from sdas_kernels.flops import FlopCounter
from sdas_kernels.fused_sdas import LayerWeights, network
from sdas_kernels.fused_sdas.weights import Sizes, flat, layers_of, shapes

OP = "network"
F64 = torch.float64
CUTOFF = 4.0
USUAL = Sizes(
    lmax=2, channels=8, heads=4, key_channels=3, radials=5, species=3, readout=4, layers=2, even_only=True
)  # fmt: skip
SIZES = {
    "usual": USUAL,
    "odd paths": USUAL._replace(even_only=False),
    "a head per channel": USUAL._replace(channels=7, heads=7, readout=3),
    "one channel": USUAL._replace(channels=1, heads=1, key_channels=1, radials=1, readout=1, species=1),
    "wider than vectors": USUAL._replace(channels=34, heads=17, readout=17),
    "as by default": USUAL._replace(channels=32, heads=32, key_channels=4, radials=8, readout=16),
    "scalars": USUAL._replace(lmax=0),
    "degree 1, three layers": USUAL._replace(lmax=1, layers=3),
    "degree 3": USUAL._replace(lmax=3, channels=4),
    "degree 4": USUAL._replace(lmax=4, channels=2, heads=2),
    "one layer": USUAL._replace(layers=1),
    "product": USUAL._replace(product=True),
    "product, wider than vectors": USUAL._replace(product=True, channels=34, heads=17, readout=17, even_only=False),
    "product of degree 3, three layers": USUAL._replace(product=True, lmax=3, channels=7, heads=7, layers=3),
    "product of degree 4, one layer": USUAL._replace(product=True, lmax=4, channels=2, heads=2, layers=1),
}


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def sizes(request):
    return request.param


@pytest.fixture
def make(graph_ops):
    def operands(edges, sizes=USUAL, dtype=F64, seed=0):
        """Vectors, kinds and weights; features neither vanish nor explode."""
        names, wanted = shapes(sizes)
        drawn = graph_ops.normal(seed, "cpu", dtype, **dict(zip(names, map(tuple, wanted), strict=True)))
        weights = [w / (max(w.shape[-2:]) ** 0.5 if w.ndim > 1 else 2) for w in drawn.values()]
        vectors = graph_ops.normal(seed + 1, "cpu", dtype, vectors=(edges.num_edges, 3))["vectors"]
        kinds = torch.arange(edges.num_nodes) % sizes.species
        return vectors, kinds, weights

    return operands


def call(vectors, kinds, weights, edges, sizes=USUAL):
    return network(vectors, kinds, weights[0], layers_of(weights), edges, CUTOFF, sizes.even_only)


def truth(*arguments):
    with dispatch.use_backend("reference"):
        return call(*arguments)


def derivatives(run, vectors, kinds, weights, edges, sizes=USUAL, seed=5):
    """Energy and gradient, and of random combinations of each the gradients by vectors and every weight."""
    leaves = [t.detach().clone().requires_grad_() for t in (vectors, *weights)]
    energy, gradient = run(leaves[0], kinds, leaves[1:], edges, sizes)
    found = {"energy": energy.detach(), "gradient": gradient.detach()}
    random = torch.Generator().manual_seed(seed)
    names = ["vectors", *shapes(sizes)[0]]
    for what, out in (("energy", energy), ("gradient", gradient)):
        cotangent = torch.randn(out.shape, generator=random, dtype=F64).to(out)
        options = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}
        grads = torch.autograd.grad(out, leaves, cotangent, **options)
        found |= {f"{what} by {name}": grad for name, grad in zip(names, grads, strict=True)}
    return found


def assert_close(found, wanted, tolerance):
    """Entry by entry, relative to the largest number of each."""
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        error = (found[name].to(right.dtype) - right).abs().max() if right.numel() else 0
        assert found[name].shape == right.shape, name
        assert error <= tolerance * max(1e-3, right.abs().max() if right.numel() else 0), name


def test_is_its_parts(place, make, graph_ops, sizes):
    edges = graph_ops.edge_list("usual")
    operands = make(edges, sizes)
    assert_close(
        derivatives(call, *operands, edges, sizes), derivatives(truth, *operands, edges, sizes), tolerance=1e-11
    )


def test_every_graph(place, make, edges):
    operands = make(edges)
    assert_close(derivatives(call, *operands, edges), derivatives(truth, *operands, edges), tolerance=1e-10)


@pytest.mark.parametrize("kind", ["usual", "crowd"])
def test_float32(place, make, graph_ops, kind):
    """Against float64."""
    edges = graph_ops.edge_list(kind)
    vectors, kinds, weights = make(edges, SIZES["as by default"])
    wanted = derivatives(truth, vectors, kinds, weights, edges, SIZES["as by default"])
    operands = (vectors.float(), kinds, [w.float() for w in weights])
    assert_close(derivatives(call, *operands, edges, SIZES["as by default"]), wanted, tolerance=3e-5)


@pytest.mark.parametrize("product", [False, True])
def test_gradient_is_that_of_the_energy(place, make, graph_ops, product):
    """By finite differences, as are the second derivatives."""
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges, USUAL._replace(channels=4, heads=2, product=product))
    step = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    h = 1e-5

    def change(s):
        ahead, back = (call(vectors + side * step, kinds, weights, edges) for side in (s, -s))
        return [a - b for a, b in zip(ahead, back, strict=True)]

    energy, gradient = ((8 * near - far) / (12 * h) for near, far in zip(change(h), change(2 * h), strict=True))
    slope = (call(vectors, kinds, weights, edges)[1] * step).sum()
    torch.testing.assert_close(energy.sum(), slope, rtol=1e-7, atol=1e-9)
    moving = vectors.clone().requires_grad_()
    (curvature,) = torch.autograd.grad((call(moving, kinds, weights, edges)[1] * step).sum(), moving)
    torch.testing.assert_close(gradient, curvature, rtol=1e-6, atol=1e-8)


def test_second_derivatives_by_weights_by_finite_differences(place, make, graph_ops):
    edges, sizes = graph_ops.edge_list("usual"), SIZES["product"]
    vectors, kinds, weights = make(edges, sizes)
    random = torch.Generator().manual_seed(2)
    cotangent = torch.randn(vectors.shape, generator=random, dtype=F64)
    found = torch.autograd.grad(
        (call(vectors, kinds, leaves := [w.clone().requires_grad_() for w in weights], edges)[1] * cotangent).sum(),
        leaves,
        materialize_grads=True,
    )
    h = 1e-5
    for k, name in enumerate(shapes(sizes)[0]):
        step = torch.randn(weights[k].shape, generator=random, dtype=F64)
        moved = [[w + s * step if j == k else w for j, w in enumerate(weights)] for s in (h, -h)]
        ahead, back = ((call(vectors, kinds, w, edges)[1] * cotangent).sum() for w in moved)
        expected = (found[k] * step).sum()
        assert abs((ahead - back) / (2 * h) - expected) < 1e-6 * max(1, abs(expected)), name


def test_zero_vectors_have_zero_gradients(place, make, graph_ops):
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    vectors[3] = 0
    wanted, found = (derivatives(run, vectors, kinds, weights, edges) for run in (truth, call))
    assert_close(found, wanted, tolerance=1e-11)


def test_beyond_the_cutoff_nothing_is_seen(place, make, graph_ops):
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    vectors[5] *= 2 * CUTOFF / vectors[5].norm()
    _, gradient = call(vectors, kinds, weights, edges)
    assert gradient[5].abs().max() == 0


def test_only_what_is_needed(make, graph_ops):
    """Gradients by vectors alone, by weights alone, by some of them; and none where none is asked for."""
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    wanted = derivatives(call, vectors, kinds, weights, edges)
    names = ["vectors", *shapes(USUAL)[0]]
    for chosen in (["vectors"], names[1:], ["embedding", "gate of layer 1"]):
        leaves = [t.clone().requires_grad_(n in chosen) for n, t in zip(names, (vectors, *weights), strict=True)]
        random = torch.Generator().manual_seed(5)
        energy, _ = call(leaves[0], kinds, leaves[1:], edges)
        cotangent = torch.randn(energy.shape, generator=random, dtype=F64)
        found = torch.autograd.grad(energy, [t for t in leaves if t.requires_grad], cotangent, materialize_grads=True)
        for name, grad in zip(chosen, found, strict=True):
            torch.testing.assert_close(grad, wanted[f"energy by {name}"], rtol=1e-12, atol=1e-12)
    assert not call(vectors, kinds, weights, edges)[1].requires_grad


def test_no_third_derivative(make, graph_ops):
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    moving = vectors.clone().requires_grad_()
    (second,) = torch.autograd.grad(call(moving, kinds, weights, edges)[1].sum(), moving, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(second.sum(), moving)


def test_threads_change_no_bit(make, graph_ops):
    for kind in ("usual", "crowd"):
        edges = graph_ops.edge_list(kind)
        for dtype in (torch.float32, F64):
            operands = make(edges, SIZES["as by default"], dtype)
            before = torch.get_num_threads()
            results = []
            try:
                for threads in (1, 2, 5):
                    torch.set_num_threads(threads)
                    results.append(derivatives(call, *operands, edges, SIZES["as by default"]))
            finally:
                torch.set_num_threads(before)
            for again in results[1:]:
                assert all(torch.equal(again[name], results[0][name]) for name in again)


def test_many_atoms_on_several_threads(make, graph_ops):
    """So many that every pass is cut: nodes into parts and blocks, edges into ranges."""
    n, e = 700, 40_000
    random = torch.Generator().manual_seed(3)
    receivers = torch.randint(0, n, (e,), generator=random).sort().values
    edges = sk.EdgeIndex.from_pairs(receivers, torch.randint(0, n, (e,), generator=random), n)
    sizes = USUAL._replace(channels=16, heads=16)
    operands = make(edges, sizes, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(derivatives(call, *operands, edges, sizes))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    wanted = derivatives(truth, operands[0].double(), operands[1], [w.double() for w in operands[2]], edges, sizes)
    assert_close(results[0], wanted, tolerance=2e-4)


def test_states_that_are_needed_are_kept_apart(make, graph_ops):
    """Memory of earlier calls is used again, but not while their derivatives are still to come."""
    edges = graph_ops.edge_list("usual")
    operands = [make(edges, seed=seed) for seed in (0, 1, 2)]
    wanted = [derivatives(call, *of, edges)["gradient by vectors"] for of in operands]
    leaves = [of[0].clone().requires_grad_() for of in operands]
    gradients = [call(leaf, *of[1:], edges)[1] for leaf, of in zip(leaves, operands, strict=True)]
    random = torch.Generator().manual_seed(5)
    torch.randn(edges.num_nodes, generator=random, dtype=F64)  # as `derivatives` draws
    cotangent = torch.randn(edges.num_edges, 3, generator=random, dtype=F64)
    for k in (1, 0, 2):
        (found,) = torch.autograd.grad(gradients[k], leaves[k], cotangent)
        assert torch.equal(found, wanted[k])


def test_in_place_changes_of_weights_are_seen(make, graph_ops):
    """Also such as PyTorch does not count."""
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    before = call(vectors, kinds, weights, edges)[0]
    weights[6].data.mul_(2)
    torch.testing.assert_close(call(vectors, kinds, weights, edges), truth(vectors, kinds, weights, edges))
    assert not torch.equal(call(vectors, kinds, weights, edges)[0], before)


def test_registered_as_pytorch_wants_it(make, graph_ops):
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    leaves = [t.clone().requires_grad_() for t in (vectors, *weights)]
    arguments = (leaves[0], kinds, leaves[1:], edges.tensors(), CUTOFF, True)
    tests = ("test_schema", "test_faketensor")
    for keep in (False, True):
        torch.library.opcheck(torch.ops.sdas_kernels.network.default, (*arguments, keep), test_utils=tests)
    _, _, state = torch.ops.sdas_kernels.network(vectors, kinds, weights, *arguments[3:], True)
    cotangents = torch.ones(edges.num_nodes, dtype=F64), torch.ones_like(vectors)
    given = (*cotangents, state, vectors, kinds, weights, *arguments[3:])
    for needs in ((True, True), (False, True), (True, False)):
        backward = torch.ops.sdas_kernels.network_backward.default
        torch.library.opcheck(backward, (*given, *needs), test_utils=tests)


@pytest.mark.parametrize("product", [False, True])
def test_flops_are_near_those_of_the_parts(make, graph_ops, product):
    """Which run the same attention kernels; what they add in passing, PyTorch counts a little otherwise."""
    edges, sizes = graph_ops.edge_list("crowd"), SIZES["as by default"]._replace(product=product)
    vectors, kinds, weights = make(edges, sizes)

    def count(backend):
        leaves = [t.clone().requires_grad_() for t in (vectors, *weights)]
        with dispatch.use_backend(backend, OP), FlopCounter() as forward, torch.no_grad():
            call(vectors, kinds, weights, edges, sizes)
        with dispatch.use_backend(backend, OP), FlopCounter() as training:
            energy, gradient = call(leaves[0], kinds, leaves[1:], edges, sizes)
            (energy.sum() + gradient.square().sum()).backward()
        assert not forward.unknown
        assert not training.unknown
        return forward.total, training.total

    for whole, parts in zip(count("cpp"), count("reference"), strict=True):
        assert 0.8 < whole / parts < 1.1


def layer_with(layers, **changes):
    return [layers[0]._replace(**changes), *layers[1:]]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda o: o | {"vectors": o["vectors"][:, :2]}, ValueError, r"vectors must be \[E, 3\]"),
        (lambda o: o | {"kinds": o["kinds"].int()}, TypeError, "kinds must be int64"),
        (lambda o: o | {"kinds": o["kinds"] + 1}, IndexError, "kinds must be 0..2, .* got 3"),
        (lambda o: o | {"layers": []}, ValueError, "at least one layer"),
        (lambda o: o | {"embedding": o["embedding"].float()}, TypeError, "embedding is torch.float32"),
        (
            lambda o: o | {"layers": layer_with(o["layers"], hidden=o["layers"][0].hidden[:-1])},
            ValueError,
            r"hidden of layer 0 must be \[16, 24\], got \[15, 24\]",
        ),
        (lambda o: o | {"layers": layer_with(o["layers"], logits=o["layers"][0].logits[0])}, ValueError, "logits"),
        (lambda o: o | {"graph": 3}, TypeError, "NeighborGraph or an EdgeIndex"),
    ],
)
def test_wrong_arguments(make, graph_ops, change, error, words):
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    right = {"vectors": vectors, "kinds": kinds, "embedding": weights[0], "layers": layers_of(weights), "graph": edges}
    with pytest.raises(error, match=words):
        network(**change(right), cutoff=CUTOFF)


def test_kinds_written_past_pytorch_after_the_value_end_in_no_kernel(make, graph_ops):
    """By an array that shares the memory, which PyTorch does not notice."""
    edges = graph_ops.edge_list("usual")
    vectors, kinds, weights = make(edges)
    _, gradient = network(vectors.requires_grad_(), kinds, weights[0], layers_of(weights), edges, CUTOFF)
    kinds.numpy()[-1] = 10**9
    with pytest.raises(IndexError, match=r"network: kinds must be 0\.\.2, .* got 1000000000"):
        gradient.sum().backward()


def test_weights_there_and_back(make, graph_ops, sizes):
    _, _, weights = make(graph_ops.edge_list("usual"), sizes)
    layers = layers_of(weights)
    assert len(layers) == sizes.layers
    assert isinstance(layers[0], LayerWeights)
    assert all(a is b for a, b in zip(flat(weights[0], layers), weights, strict=True))
    assert Sizes.of(weights, sizes.even_only) == sizes
