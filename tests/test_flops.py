"""The FLOP counter against counts by hand."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels import dispatch
from sdas_kernels.flops import FlopCounter, register_flops


def count(function, *args):
    with FlopCounter() as counter:
        function(*args)
    assert not counter.unknown
    return counter.total


A, B, BATCH = torch.randn(3, 5), torch.randn(5, 7), torch.randn(2, 3, 5)
V = torch.rand(11) + 0.5
INDEX = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda: A @ B, 2 * 3 * 5 * 7),
        (lambda: BATCH @ B, 2 * 2 * 3 * 5 * 7),
        (lambda: torch.bmm(BATCH, BATCH.transpose(1, 2)), 2 * 2 * 3 * 5 * 3),
        (lambda: torch.einsum("bik,bjk->bij", BATCH, BATCH), 2 * 2 * 3 * 5 * 3),
        (lambda: torch.addmm(torch.ones(7), A, B), 2 * 3 * 5 * 7 + 21),
        (lambda: torch.nn.functional.linear(A, B.T.contiguous(), torch.ones(7)), 2 * 3 * 5 * 7 + 21),
        (lambda: torch.baddbmm(torch.ones(2, 3, 3), BATCH, BATCH.transpose(1, 2)), 2 * 2 * 3 * 5 * 3 + 18),
        (lambda: torch.mv(A, B[:, 0]), 2 * 3 * 5),
        (lambda: torch.dot(V, V), 2 * 11 - 1),
        (lambda: torch.conv1d(torch.ones(2, 3, 10), torch.ones(4, 3, 3)), 2 * 2 * 8 * 4 * 3 * 3),
        (lambda: V + V, 11),
        (lambda: torch.add(V, V, alpha=2), 22),
        (lambda: torch.sin(V) * V / 2, 33),
        (lambda: V**2, 11),
        (lambda: V**3, 22),
        (lambda: torch.nn.functional.silu(V), 22),
        (lambda: torch.addcmul(V, V, V), 22),
        (lambda: torch.addcmul(V, V, V, value=0.5), 33),
        (lambda: V.sum(), 10),
        (lambda: A.sum(1), 3 * 4),
        (lambda: A.mean(), 15),
        (lambda: torch.softmax(A, 1), 4 * 15),
        (  # 2 × 3 × 3 logits, each of two products over 5, scaled, and in a softmax
            lambda: torch.nn.functional.scaled_dot_product_attention(BATCH[:, None], BATCH[:, None], BATCH[:, None]),
            2 * 3 * 3 * (2 * 2 * 5 + 1 + 4),
        ),
        (lambda: torch.allclose(A, A), 4 * 15),
        (lambda: torch.zeros(2, 5).index_add(0, INDEX, A), 15),
        (lambda: torch.zeros(2, 5).scatter_add(0, torch.zeros(3, 5, dtype=torch.int64), A), 15),
        (lambda: torch.zeros(2, 5).index_put((INDEX,), A, accumulate=True), 15),
        (lambda: torch.zeros(2, 5).index_put((INDEX[1:],), A[1:]), 0),
        (lambda: torch._foreach_mul([V, A], 2.0), 26),
        (lambda: torch._foreach_lerp_([V.clone(), A.clone()], [V, A], 0.1), 78),
        (lambda: torch._foreach_addcmul_([V.clone()], [V], [V], 0.5), 33),
        (lambda: torch._foreach_norm([V, A]), 52),
    ],
)
def test_counts_by_hand(function, flops):
    assert count(function) == flops


@pytest.mark.parametrize(
    "function",
    [
        lambda: A.T.reshape(15).view(3, 5)[:, :2].contiguous(),
        lambda: torch.cat([A, A]).index_select(0, INDEX).to(torch.float64),
        lambda: torch.where(A > 0, A, 0.0).clamp(max=1.0).amax(1),
        lambda: INDEX + INDEX * 2,
        lambda: torch.argsort(V)[:3].sum(),
        lambda: torch.empty(3).uniform_().fill_(2.0),
        lambda: torch.maximum(V, V).max(),
    ],
)
def test_moving_and_comparing_count_nothing(function):
    assert count(function) == 0


def test_backward_and_double_backward_are_counted():
    x, w = torch.randn(4, 6, requires_grad=True), torch.randn(6, 5, requires_grad=True)

    def forward_only():
        return x @ w

    def with_force():
        (force,) = torch.autograd.grad((x @ w).sum(), x, create_graph=True)
        return force

    def with_loss():
        with_force().pow(2).sum().backward()

    one = 2 * 4 * 6 * 5
    assert count(forward_only) == one
    assert count(with_force) == 2 * one + (20 - 1)  # y = xw, its sum, then dx = g wᵀ
    by_force = 3 * 24 - 1  # squares, their sum, then 2·force·g in backward
    assert count(with_loss) >= 3 * one + (20 - 1) + by_force


def test_optimizers_count_their_work_for_every_parameter():
    def step(**options):
        w = torch.nn.Parameter(torch.randn(10, 10))
        w.grad = torch.ones_like(w)
        optimizer = torch.optim.Adam([w], **options)
        return count(optimizer.step)

    step_counter = 1
    assert step(fused=True) == step(foreach=True) == step(foreach=False) == 1300 + step_counter


def test_an_unknown_operator_is_named_and_warned_about_once():
    @torch.library.custom_op("flops_test::mystery", mutates_args=())
    def mystery(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    counter = FlopCounter()

    def call_twice():
        with counter:
            mystery(V)
            mystery(V)

    with pytest.warns(UserWarning, match="no rule for flops_test::mystery") as caught:
        call_twice()
    assert len(caught) == 1
    assert counter.unknown == {"flops_test::mystery": 2}
    register_flops("flops_test::mystery", lambda x: x.numel())
    assert count(mystery, V) == 11
    with pytest.raises(ValueError, match="already"):
        register_flops("flops_test::mystery", lambda x: 0)
    with pytest.raises(ValueError, match="qualified"):
        register_flops("mystery", lambda x: 0)


def test_composite_operators_count_as_their_parts():
    assert count(lambda: torch.nn.functional.bilinear(A, A, torch.ones(2, 5, 5))) == 3 * 3 * 2 * 25
    assert count(lambda: torch.cosine_similarity(A, A)) > 3 * 2 * 15


def test_the_counter_does_not_change_results():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))

    def gradients():
        x = A.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return torch.autograd.grad(g.pow(2).sum(), list(model.parameters())[:3])

    plain = gradients()
    with FlopCounter():
        counted = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))


def test_operators_of_this_package_are_counted_inside_their_reference():
    from sdas_kernels.ops.spherical_harmonics import reference
    from sdas_kernels.ops.spherical_harmonics.autograd import spherical_harmonics

    vectors = torch.randn(10, 3, dtype=torch.float64)
    with dispatch.use_backend("reference"):
        leaf = vectors.clone().requires_grad_()
        spherical_harmonics(leaf, 2, True, "component").sum().backward()  # builds what is kept
        direct = count(reference.forward, vectors, 2, True, "component")
        inside = count(spherical_harmonics, vectors, 2, True, "component")
        both = count(lambda: spherical_harmonics(leaf, 2, True, "component").sum().backward())
    with FlopCounter() as native:
        spherical_harmonics(vectors, 2, True, "component")
    if native.estimated:
        assert native.total == direct
    assert inside == direct > 10 * 9
    assert both > 2 * inside


def test_a_training_step_counts_alike_by_any_backend():
    """Native kernels may save work or do a little more; a formula that is far off its reference is wrong."""
    import sdas_kernels as sk

    torch.manual_seed(0)
    model = sk.nn.SDAS(species=[1, 8], channels=4, heads=2, lmax=1, layers=2, cutoff=3.0, n_radial=3).train()
    positions = [[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0.3, 0.4, 1.8]]
    graph = sk.NeighborGraph.build(positions, [8, 1, 1, 8], 3.0, dtype=torch.float32)

    def step():
        out = model(graph)
        (out["energy"].sum() + out["forces"].pow(2).sum()).backward()

    step()
    with dispatch.use_backend("reference"):
        step()
        reference = count(step)
    with FlopCounter() as counter:
        step()
    assert not counter.unknown
    assert 0.5 * reference <= counter.total <= 1.5 * reference


@pytest.mark.parametrize(
    ("heads", "channels", "lmax", "value_lmax"), [(8, 32, 2, 2), (32, 32, 2, 0), (16, 64, 1, 1), (8, 24, 3, 3)]
)
def test_formulas_of_native_attention_are_near_their_reference(heads, channels, lmax, value_lmax):
    """Value and first derivatives: the same work. Second: less, as the reference runs its first derivatives within."""
    import sdas_kernels as sk

    if "cpp" not in dispatch.backends("neighbor_attention", "cpu", torch.float32):
        pytest.skip(f"no native kernels here: {sk.native.available()[1]}")
    nodes, edges, n, d, m = 20, 500, 8, 4, (lmax + 1) ** 2
    receivers = torch.arange(edges) // (edges // nodes)
    graph = sk.EdgeIndex.from_pairs(receivers, torch.arange(edges) % nodes, nodes)
    sizes = [
        (nodes, heads, d + m + n),
        (nodes, heads, d),
        (nodes, heads),
        (nodes, (value_lmax + 1) ** 2, channels),
        (heads, lmax + 1, n),
        (edges, m),
        (edges, n),
        (edges,),
    ]
    operands = [torch.rand(size, requires_grad=True) for size in sizes]
    counts = {}
    for backend in ("reference", "cpp"):
        with dispatch.use_backend(backend, "neighbor_attention"):
            orders = []
            with FlopCounter() as counter:
                z = sk.neighbor_attention(*operands, graph, lmax)
            orders.append(counter.total)
            with FlopCounter() as counter:
                grads = torch.autograd.grad(z.sum(), operands, create_graph=True)
            orders.append(counter.by_op.total())
            probe = sum(grad.sum() for grad in grads)
            with FlopCounter() as counter:
                torch.autograd.grad(probe, operands)
            orders.append(counter.total)
        assert not counter.unknown
        assert not counter.estimated
        counts[backend] = orders
    ratios = [a / b for a, b in zip(counts["cpp"], counts["reference"], strict=True)]
    assert 0.9 < ratios[0] < 1.1
    assert 0.95 < ratios[1] < 1.15, ratios
    assert 0.75 < ratios[2] < 0.95, ratios


def test_gradients_of_attention_that_nobody_needs_cost_nothing():
    """By hand: 3 atoms, 5 edges, 2 heads, 4 channels, 2 key channels, 3 radial functions, degrees up to 1."""
    from sdas_kernels.ops.neighbor_attention.flops import backward
    from sdas_kernels.paths import Paths, coupling

    nodes, edges, heads, channels, d, n, m = 3, 5, 2, 4, 2, 3, 4
    sizes = [
        (nodes, heads, d + m + n), (nodes, heads, d), (nodes, heads), (nodes, m, channels), (heads, 2, n),
        (edges, m), (edges, n), (edges,),
    ]  # fmt: skip
    operands = [torch.empty(size) for size in sizes]

    def without(*places):
        return backward(None, *operands, None, 1, True, [k not in places for k in range(8)])

    query = 2 * edges * heads * (d + m + n)
    radial_gain = 2 * edges * heads * 2 * n
    couplings = int((coupling(Paths(1, 1, 1)) != 0).sum())
    weights_again, uncoupled_again = edges * 2 * heads * (2 * n + 1), 2 * nodes * couplings * channels
    by_value = edges * channels * (m + 2 * m * m)
    by_key = 2 * edges * heads * d
    every = without()
    assert every - without(0) == query
    assert every - without(4) == radial_gain
    assert every - without(1, 3) == weights_again + uncoupled_again + by_value + by_key
    assert without(1) == without(3) == every  # one pass makes both
    assert every - without(0, 1, 3, 4) == 2 * every - without(0, 4) - without(1, 3) > every / 3
