"""Every operator under every way in which PyTorch differentiates, maps and saves: none may give a silent zero."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

import sdas_kernels as sk
from sdas_kernels import segment
from sdas_kernels.fused_sdas import flat, network
from sdas_kernels.fused_sdas.weights import layers_of
from sdas_kernels.nn.fused import layer_weights
from sdas_kernels.ops.edge_geometry import edge_geometry
from sdas_kernels.ops.edge_softmax import edge_softmax
from sdas_kernels.ops.neighbor_attention import neighbor_attention
from sdas_kernels.ops.neighbor_tensor_product import neighbor_tensor_product
from sdas_kernels.ops.radial_basis import radial_basis
from sdas_kernels.ops.tensor_product import TensorProductSpec, tensor_product
from sdas_kernels.ops.tensor_product_conv import tensor_product_conv

F64 = torch.float64
IN1, IN2, OUT = "2x0e+1x1o", "1x0e+1x1o", "2x0e+2x1o"
CASES = [
    "spherical_harmonics", "radial_basis", "edge_geometry", "edge_softmax", "neighbor_tensor_product",
    "neighbor_attention", "tensor_product", "tensor_product of one weight", "tensor_product_conv",
    "tensor_product_conv of one weight", "tensor_product_conv of a basis",
]  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, graph_ops):
    """An operator as `call(**operands)`, one tensor of its results, on a graph of 3 nodes and 4 edges."""
    edges = graph_ops.from_lists([0, 0, 1, 2], [1, 2, 0, 2], 3)
    n, e = edges.num_nodes, edges.num_edges

    def made(call, **shapes):
        return SimpleNamespace(call=call, operands=graph_ops.normal(5, "cpu", F64, **shapes))

    op, _, kind = request.param.partition(" of ")
    logits = {"query": (n, 2, 7), "key": (n, 2, 1), "sink": (n, 2)}
    of_edges = {"harmonics": (e, 4), "radial": (e, 2)}
    if op == "spherical_harmonics":
        return made(lambda vectors: sk.spherical_harmonics(vectors, 2), vectors=(e, 3))
    if op == "radial_basis":
        return made(lambda lengths: radial_basis(1.5 + lengths.tanh(), 3, 4.0), lengths=(e,))
    if op == "edge_geometry":
        return made(lambda vectors: joined(edge_geometry(vectors, 1, 2, 4.0)), vectors=(e, 3))
    if op == "edge_softmax":
        return made(lambda **t: edge_softmax(**t, graph=edges), **logits, **of_edges, envelope=(e,))
    if op == "neighbor_tensor_product":
        shapes = {"attention": (e, 2), "radial": (e, 2), "radial_gain": (2, 2, 2), "value": (n, 4, 2)}
        return made(lambda **t: neighbor_tensor_product(**t, graph=edges, lmax_out=1), **shapes, harmonics=(e, 4))
    if op == "neighbor_attention":
        shapes = {**logits, "value": (n, 4, 2), "radial_gain": (2, 2, 2), **of_edges}
        return made(lambda **t: neighbor_attention(**t, graph=edges, lmax_out=1), **shapes, envelope=(e,))
    spec = sk.nn.FullyConnectedTensorProduct(IN1, IN2, OUT).spec
    if op == "tensor_product_conv":
        spec = sk.nn.TensorProductConv(IN1, IN2, "2x0e+1x1o").spec
    numel, (dim1, dim2, _) = spec.weight_numel, TensorProductSpec.parse(spec.text).dims
    if op == "tensor_product":
        weight = (numel,) if kind else (e, numel)
        return made(lambda **t: tensor_product(**t, spec=spec), x=(e, dim1), y=(e, dim2), weight=weight)
    shapes = {"x": (n, dim1), "y": (e, dim2), "weight": (numel,) if kind == "one weight" else (e, numel)}
    if kind == "a basis":
        shapes |= {"weight": (e, 2), "weight_basis": (2, numel)}
    return made(lambda **t: tensor_product_conv(**t, graph=edges, spec=spec), **shapes)


def joined(tensors):
    return torch.cat([t.flatten(1) if t.ndim > 1 else t[:, None] for t in tensors], 1)


def scalar(case):
    """An energy of all operands, in which no third derivative vanishes, as a function of a list."""
    names = list(case.operands)
    return lambda *values: case.call(**dict(zip(names, values, strict=True))).sin().sum()


def directions(operands, seed=9):
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(t.shape, generator=random, dtype=F64) for t in operands)


def test_first_derivatives_in_reverse_forward_and_batched_are_finite_differences(case):
    names = list(case.operands)
    points = tuple(t.clone().requires_grad_() for t in case.operands.values())
    options = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    call = lambda *values: case.call(**dict(zip(names, values, strict=True)))  # noqa: E731
    assert gradcheck(call, points, eps=1e-6, atol=1e-7, rtol=1e-6, **options)


def test_second_derivatives_forward_over_reverse_and_batched_are_finite_differences(case):
    for name, operand in case.operands.items():

        def alone(value, name=name):
            return case.call(**{**case.operands, name: value})

        options = {"check_fwd_over_rev": True, "check_batched_grad": True}
        point = operand.clone().requires_grad_()
        assert gradgradcheck(alone, (point,), eps=1e-6, atol=1e-6, rtol=1e-5, **options), name


def test_hessians_of_every_order_of_transforms_are_that_of_autograd(case):
    energy, points = scalar(case), tuple(case.operands.values())
    every = tuple(range(len(points)))
    wanted = torch.autograd.functional.hessian(energy, points)
    reverse = jacrev(jacrev(energy, every), every)(*points)
    forward = torch.func.hessian(energy, every)(*points)
    turned = jacrev(jacfwd(energy, every), every)(*points)
    vectorized = torch.autograd.functional.hessian(
        energy, points, vectorize=True, outer_jacobian_strategy="forward-mode"
    )
    for found in (reverse, forward, turned, vectorized):
        for row, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(row, exact, rtol=1e-9, atol=1e-10)


def test_a_dual_tensor_carries_its_tangent_through_value_and_gradient(case):
    energy, points = scalar(case), tuple(case.operands.values())
    steps = directions(points)
    value, gradients, (along, turned) = values_by_finite_differences(energy, points, steps)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p.clone().requires_grad_(), s) for p, s in zip(points, steps, strict=True)]
        result = energy(*duals)
        by = torch.autograd.grad(result, duals, create_graph=True)
        assert result.detach() == value
        torch.testing.assert_close(forward_ad.unpack_dual(result).tangent, along, rtol=1e-7, atol=1e-7)
        for found, gradient, exact in zip(by, gradients, turned, strict=True):
            torch.testing.assert_close(found.detach(), gradient, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(forward_ad.unpack_dual(found).tangent, exact, rtol=1e-6, atol=1e-6)


def values_by_finite_differences(energy, points, steps, h=1e-5):
    """Value and gradients, and the derivatives of both along the steps."""

    def at(factor):
        moved = [(p + factor * s).requires_grad_() for p, s in zip(points, steps, strict=True)]
        value = energy(*moved)
        return value.detach(), torch.autograd.grad(value, moved)

    (value, gradients), (above, by_above), (below, by_below) = at(0.0), at(h), at(-h)
    turned = [(a - b) / (2 * h) for a, b in zip(by_above, by_below, strict=True)]
    return value, gradients, ((above - below) / (2 * h), turned)


def test_third_derivatives_are_refused_and_not_zero(case):
    energy, points = scalar(case), tuple(case.operands.values())
    steps = directions(points)

    def slope(*values):
        return jvp(energy, values, steps)[1]

    every = tuple(range(len(points)))
    refused = pytest.raises(NotImplementedError, match="second derivative cannot be differentiated again")
    with refused:
        jvp(slope, points, steps)
    with refused:
        jvp(jacrev(slope, every), points, steps)
    with refused:
        jacrev(lambda *values: jacrev(slope, every)(*values)[0].sum(), every)(*points)
    with refused:
        jvp(lambda *values: hessian(energy, every)(*values), points, steps)


@pytest.mark.parametrize("at", [0, -1])
def test_mapping_is_a_loop(case, at):
    """Over all operands at once, over each alone, of values, of gradients and of Hessians along a step."""
    energy, points, names = scalar(case), tuple(case.operands.values()), list(case.operands)
    several = tuple(torch.stack([p, 0.7 * p + 0.1, 1.3 * p - 0.2], at % (p.ndim + 1)) for p in points)
    every, steps = tuple(range(len(points))), directions(points)

    def value(*values):
        return case.call(**dict(zip(names, values, strict=True)))

    def turned(*values):
        return jvp(jacrev(energy, every), values, steps)[1]

    for function in (value, jacrev(energy, every), turned):
        for dims in [(at,) * len(points), *((at if k == j else None for k in every) for j in every)]:
            chosen = tuple(dims)
            given = [s if d is not None else p for s, p, d in zip(several, points, chosen, strict=True)]
            found = vmap(function, chosen)(*given)
            loop = [
                function(*(g if d is None else g.select(d, k) for g, d in zip(given, chosen, strict=True)))
                for k in range(3)
            ]
            wanted = torch.stack(loop) if isinstance(found, torch.Tensor) else [*map(torch.stack, zip(*loop))]  # noqa: B905
            torch.testing.assert_close(found, wanted if isinstance(found, torch.Tensor) else tuple(wanted))


def test_mapping_over_nothing_and_over_graphs(graph_ops):
    one, other = (graph_ops.from_lists([0, 0, 1], senders, 2) for senders in ([0, 1, 0], [1, 1, 1]))
    spec = sk.nn.TensorProductConv("1x0e", "1x0e", "1x0e").spec
    x, y, w = torch.randn(2, 1), torch.randn(3, 1), torch.randn(3, 1)

    def conv(x, *index):
        return torch.ops.sdas_kernels.tensor_product_conv(x, y, w, list(index), spec.text)

    index = [torch.stack(pair) for pair in zip(one.tensors(), other.tensors(), strict=True)]
    wanted = torch.stack([conv(x, *graph.tensors()) for graph in (one, other)])
    torch.testing.assert_close(vmap(conv, (None, 0, 0, 0, 0, 0))(x, *index), wanted)
    with pytest.raises(ValueError, match="no elements"):
        vmap(lambda x: conv(x, *one.tensors()))(x.new_zeros(0, 2, 1))
    assert vmap(lambda d: radial_basis(d, 3, 4.0))(torch.zeros(0, 2)).shape == (0, 2, 3)


def ladder(call, operands, around):
    """Value, gradients, and gradients of those, with `around` the call."""
    leaves = {name: t.clone().requires_grad_() for name, t in operands.items()}
    names = list(leaves)
    value = around(lambda *values: call(**dict(zip(names, values, strict=True))), *leaves.values())
    first = torch.autograd.grad(value.sin().sum(), [*leaves.values()], create_graph=True)
    total = sum(g.sin().sum() for g in first)
    return [value, *first, *torch.autograd.grad(total, [*leaves.values()])]


def checkpointed(call, *values):
    return checkpoint(call, *values, use_reentrant=False)


def saved_elsewhere(call, *values):
    with save_on_cpu():
        return call(*values)


@pytest.mark.parametrize("around", [checkpointed, saved_elsewhere], ids=lambda f: f.__name__)
def test_derivatives_from_saved_tensors_that_are_made_again(case, around):
    found = ladder(case.call, case.operands, around)
    wanted = ladder(case.call, case.operands, lambda call, *values: call(*values))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["receivers", "senders"])
def test_segments_have_derivatives_of_every_order(graph_ops, kind, monkeypatch):
    edges = graph_ops.from_lists([0, 0, 1, 2], [1, 2, 0, 2], 3)
    segments = getattr(segment, kind)(edges.tensors())
    nodes, step = torch.randn(3, 2, dtype=F64), torch.randn(3, 2, dtype=F64)

    def energy(x):
        return segment.segment_sum(segment.gather(x, segments).sin(), segments, 3).cos().sum()

    def derivatives():
        slope = lambda x: jvp(energy, (x,), (step,))[1]  # noqa: E731
        third = jvp(jacrev(slope), (nodes,), (step,))[1], jvp(lambda x: jvp(slope, (x,), (step,))[1], (nodes,), (step,))
        return *third, hessian(energy)(nodes), vmap(energy, 1)(torch.stack([nodes, -nodes], 1))

    plain = derivatives()
    monkeypatch.setattr(segment, "IN_ORDER", set())  # the operators, as on a GPU
    torch.testing.assert_close(derivatives(), plain)


@pytest.fixture
def fused(graph_ops):
    """The network by its own kernel, as a function of vectors and embedding, and a point."""
    edges = graph_ops.from_lists([0, 0, 1, 2], [1, 2, 0, 2], 3)
    model = sk.nn.SDAS([1], channels=2, heads=1, lmax=1, layers=2, cutoff=4.0, n_radial=2, key_channels=1).to(F64)
    weights = [w.detach() for w in flat(model.embedding.weight, layer_weights(model))]
    kinds = torch.zeros(3, dtype=torch.int64)

    def call(vectors, embedding):
        return network(vectors, kinds, embedding, layers_of([embedding, *weights[1:]]), edges, 4.0)

    return call, 1.5 * torch.randn(4, 3, dtype=F64), weights[0]


def test_the_network_under_transforms_is_that_of_its_kernel(fused):
    call, vectors, embedding = fused
    step = torch.randn_like(vectors)
    moving = vectors.clone().requires_grad_()
    energy, gradient = call(moving, embedding)
    (turned,) = torch.autograd.grad(gradient, moving, step)  # the Hessian is symmetric
    (values, gradients), (along, by_jvp) = jvp(lambda r: call(r, embedding), (vectors,), (step,))
    torch.testing.assert_close((values, gradients), (energy.detach(), gradient.detach()))
    torch.testing.assert_close((along.sum(), by_jvp), ((gradient * step).sum().detach(), turned))
    for outer in (jacfwd, jacrev):
        found = outer(lambda r: call(r, embedding)[1])(vectors)
        torch.testing.assert_close(torch.tensordot(found, step, 2), turned)
    several = torch.stack([vectors, 0.9 * vectors])
    mapped = vmap(call, (0, None))(several, embedding)
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*(call(r, embedding) for r in several)))))  # noqa: B905
    with forward_ad.dual_level(), torch.no_grad():
        dual = call(forward_ad.make_dual(vectors, step), embedding)[1]
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, turned)


def test_forward_derivatives_of_a_loss_on_results_that_the_network_made_before(fused):
    """Its derivative is linear in the cotangents, and these may carry tangents, or be mapped."""
    call, vectors, embedding = fused
    moving = vectors.clone().requires_grad_()
    results = call(moving, embedding)
    given, steps = directions(results), directions(results, seed=2)
    (wanted,) = torch.autograd.grad(results, moving, steps, retain_graph=True)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(g, s) for g, s in zip(given, steps, strict=True)]
        (by,) = torch.autograd.grad(results, moving, duals, retain_graph=True, create_graph=True)
        torch.testing.assert_close(forward_ad.unpack_dual(by).tangent, wanted)
    pairs = [torch.stack(pair) for pair in zip(given, steps, strict=True)]
    (mapped,) = torch.autograd.grad(results, moving, pairs, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(mapped[1], wanted)
    (mapped,) = vmap(lambda *g: torch.autograd.grad(results, moving, g, retain_graph=True))(*pairs)
    torch.testing.assert_close(mapped[1], wanted)


@pytest.mark.parametrize("around", [checkpointed, saved_elsewhere], ids=lambda f: f.__name__)
def test_the_network_from_saved_tensors_that_are_made_again(fused, around):
    call, *points = fused

    def gradients(around):
        leaves = [point.clone().requires_grad_() for point in points]
        results = around(call, *leaves)
        return torch.autograd.grad(results, leaves, directions(results))

    torch.testing.assert_close(gradients(around), gradients(lambda call, *v: call(*v)), rtol=0, atol=0)


def test_the_operators_themselves_carry_tangents_or_refuse(fused, graph_ops):
    edges = graph_ops.from_lists([0, 0, 1, 2], [1, 2, 0, 2], 3)
    vectors, step = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64)
    ops = torch.ops.sdas_kernels
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(vectors, step)
        found = forward_ad.unpack_dual(ops.spherical_harmonics(dual, 2, True, "component")).tangent
        with pytest.raises(NotImplementedError, match=r"network: torch\.ops\.sdas_kernels\.network has no rules"):
            ops.network(dual, edges.receivers, [fused[2]], edges.tensors(), 4.0, True, False)
    wanted = jvp(lambda v: sk.spherical_harmonics(v, 2), (vectors,), (step,))[1]
    torch.testing.assert_close(found, wanted)


def test_a_derivative_can_be_taken_where_its_transform_has_ended(case):
    energy, points = scalar(case), tuple(case.operands.values())
    value, pull_back = torch.func.vjp(energy, *points)
    leaves = [point.clone().requires_grad_() for point in points]
    torch.testing.assert_close(pull_back(torch.ones_like(value)), torch.autograd.grad(energy(*leaves), leaves))


def test_modules_can_be_called_with_other_weights():
    product = sk.nn.FullyConnectedTensorProduct(IN1, IN2, OUT).to(F64)
    x, y = torch.randn(3, 5, dtype=F64), torch.randn(3, 4, dtype=F64)
    weights = {name: p.detach() for name, p in product.named_parameters()}

    def loss(weights):
        return functional_call(product, weights, (x, y)).square().sum()

    product(x, y).square().sum().backward()
    torch.testing.assert_close(torch.func.grad(loss)(weights)["weight"], product.weight.grad)
