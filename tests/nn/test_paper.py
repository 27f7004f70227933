"""The paper layer is the paper's formulas, written out over all pairs, to 1e-12."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from e3nn import o3

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import EdgeGeometry, PaperEmbedding, PaperLayer

F64 = torch.float64
CUTOFF, N_RADIAL = 3.2, 4


def cluster(n=5):
    positions = 1.5 * torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    positions[-1] += 30  # the last atom has no neighbor
    return NeighborGraph.build(positions, [6] * n, CUTOFF)


def pairs(graph, lmax):
    """(i, j, Y, d) over all pairs within the cutoff."""
    for i, j in itertools.permutations(range(graph.num_atoms), 2):
        r = graph.positions[j] - graph.positions[i]
        if r.norm() < CUTOFF:
            yield i, j, o3.spherical_harmonics(list(range(lmax + 1)), r, True, "component"), r.norm().item()


def geometry_of(graph, lmax):
    return EdgeGeometry.from_vectors(graph.edge_vectors(), graph, lmax, N_RADIAL, CUTOFF)


@pytest.mark.parametrize("lmax", range(4))
@torch.no_grad()
def test_embedding_sums_weighted_harmonics(lmax):
    """x_ilm = Σ_j w(d_ij) Y_lm, w(d) = Σ_n w_n R_n(d)."""
    graph = cluster()
    embedding = PaperEmbedding(3, lmax, N_RADIAL).to(F64)
    wanted = torch.zeros(graph.num_atoms, (lmax + 1) ** 2, 3, dtype=F64)
    for i, _, y, d in pairs(graph, lmax):
        u = d / CUTOFF
        f = 1 - 28 * u**6 + 48 * u**7 - 21 * u**8
        r = [math.sqrt(2 / CUTOFF) * math.sin(n * math.pi * u) / d * f for n in range(1, N_RADIAL + 1)]
        w = embedding.radial @ torch.tensor(r, dtype=F64)
        wanted[i] += y[:, None] * w
    torch.testing.assert_close(embedding(geometry_of(graph, lmax)), wanted, rtol=1e-12, atol=1e-12)


def dense(layer, h, x, graph):
    """New h, new x and α[i, j, k] by the paper's formulas; ⊗ with e3nn's coefficients times √(2 l3 + 1)."""
    lmax, heads, channels = layer.lmax, layer.heads, layer.channels
    degree = [l for l in range(lmax + 1) for _ in range(2 * l + 1)]
    w_q, w_k, w_v = (m.weight.unflatten(0, (heads, -1)) for m in (layer.query, layer.key, layer.scalar_value))
    mixes = isinstance(layer, PaperLayer)  # the last layer of a model does not
    mixing = layer.mixing.weight if mixes else h.new_zeros(lmax + 1, heads * channels, channels)
    w_l = mixing.unflatten(1, (heads, channels))  # [l, k, c, d]
    u = layer.direction_query.weight  # [l, c, k]
    logits = {}
    for i, j, y, _ in pairs(graph, lmax):
        for k in range(heads):
            b = sum((x[i, row] @ u[degree[row], :, k]) * y[row] for row in range(len(degree)))
            logits[i, j, k] = (w_q[k] @ h[i]) @ (w_k[k] @ h[j]) + b
    exponents = {key: e.exp() for key, e in logits.items()}
    alpha = {
        (i, j, k): e / sum(other for (a, _, c), other in exponents.items() if (a, c) == (i, k))
        for (i, j, k), e in exponents.items()
    }
    new_h, new_x = h.clone(), x.clone()
    for i, j, y, _ in pairs(graph, lmax):
        product = torch.zeros_like(x[j])
        for l1, l2, l3 in itertools.product(range(lmax + 1), repeat=3):
            if abs(l1 - l2) <= l3 <= l1 + l2 and not (layer.parity and (l1 + l2 + l3) % 2):
                cg = math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=F64)
                xj, yj = x[j, l1**2 : (l1 + 1) ** 2], y[l2**2 : (l2 + 1) ** 2]
                product[l3**2 : (l3 + 1) ** 2] += torch.einsum("abm,ac,b->mc", cg, xj, yj)
        for k in range(heads):
            new_h[i] += alpha[i, j, k] * (w_v[k] @ h[j])
            for row in range(len(degree)):
                new_x[i, row] += alpha[i, j, k] * (product[row] @ w_l[degree[row], k])
    return new_h, new_x, alpha


@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize(("lmax", "heads"), [(0, 1), (1, 3), (2, 2), (3, 1)])
@torch.no_grad()
def test_layer_is_the_papers_formulas(lmax, heads, parity):
    graph = cluster()
    layer = PaperLayer(4, heads, lmax, key_channels=3, parity=parity).to(F64)
    h = torch.randn(graph.num_atoms, 4, dtype=F64)
    x = torch.randn(graph.num_atoms, (lmax + 1) ** 2, 4, dtype=F64)
    geometry = geometry_of(graph, lmax)
    wanted_h, wanted_x, alpha = dense(layer, h, x, graph)
    found_h, found_x = layer(h, x, geometry)
    torch.testing.assert_close(found_h, wanted_h, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_x, wanted_x, rtol=1e-12, atol=1e-12)
    weights = layer.weights(h, x, geometry)
    for e, (i, j) in enumerate(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True)):
        for k in range(heads):
            assert weights[e, k].item() == pytest.approx(alpha[i, j, k].item(), abs=1e-12)


def test_atoms_without_neighbors_keep_their_features():
    graph, layer = cluster(), PaperLayer(4, 2, 2).to(F64)
    h, x = torch.randn(5, 4, dtype=F64), torch.randn(5, 9, 4, dtype=F64)
    found_h, found_x = layer(h, x, geometry_of(graph, 2))
    assert torch.equal(found_h[-1], h[-1])
    assert torch.equal(found_x[-1], x[-1])


def test_model_energy_is_the_papers(make_model):
    """E = Σ_i f_E(h_i) after the layers, from h = Embed(Z) and the embedding of the geometry."""
    model = make_model(layer="paper", cutoff=CUTOFF, n_radial=N_RADIAL)
    graph = cluster()
    with torch.no_grad():
        h, x = model.embedding.weight[1].expand(5, -1), model.first_features(geometry_of(graph, 2))
        for layer in model.layers:
            h, x, _ = dense(layer, h, x, graph)
        wanted = model.readouts[0](h).sum()
        found = model(graph, forces=False)["energy"]
    assert found.item() == pytest.approx(wanted.item(), abs=1e-12)


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("layers", [1, 2])
def test_every_weight_has_a_gradient_and_trains_under_ddp(make_model, one_process, layers):
    """DDP refuses its second step where a weight had none in the first."""
    model = make_model(layer="paper", layers=layers, cutoff=CUTOFF, n_radial=N_RADIAL).train()
    graph = cluster()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        out = parallel(graph)
        (out["energy"].square().sum() + out["forces"].square().sum()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
