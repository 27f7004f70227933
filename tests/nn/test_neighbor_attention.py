"""The attention module is the published formula of the default layer, and every switch of it runs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from e3nn import o3

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import EdgeGeometry, NeighborAttention

F64 = torch.float64
CUTOFF, N_RADIAL, LMAX, CHANNELS, HEADS, KEY = 3.2, 4, 2, 6, 3, 2
DEFAULT = {"channels": CHANNELS, "heads": HEADS, "lmax": LMAX, "n_radial": N_RADIAL, "key_channels": KEY}
SWITCHES = {
    "default": {},
    "scalar source": {"scalar_source": True},
    "SE(3)": {"parity": False},
    "no direction query": {"direction_query": False},
    "no radial query": {"radial_query": False},
    "no sink": {"sink": False},
    "no radial gain": {"radial_gain": False},
    "no attention": {"attention": False},
    "neither attention nor gain": {"attention": False, "radial_gain": False},
    "channel mixing": {"path_mixing": "channel"},
    "one head": {"heads": 1},
    "a head per channel": {"heads": CHANNELS},
    "scalars only": {"lmax": 0},
    "degree 3": {"lmax": 3},
}


def cluster(n=5):
    positions = 1.5 * torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    positions[-1] += 30  # the last atom has no neighbor
    return NeighborGraph.build(positions, [6] * n, CUTOFF)


def geometry_of(graph, lmax):
    return EdgeGeometry.from_vectors(graph.edge_vectors(), graph, lmax, N_RADIAL, CUTOFF)


def made(**switches):
    torch.manual_seed(5)
    return NeighborAttention(**{**DEFAULT, **switches}).to(F64)


def bessel(d):
    """R_n(d) and f_c(d) as published, p = 6."""
    u = d / CUTOFF
    f = 1 - 28 * u**6 + 48 * u**7 - 21 * u**8
    return torch.tensor(
        [math.sqrt(2 / CUTOFF) * math.sin(n * math.pi * u) / d * f for n in range(1, N_RADIAL + 1)], dtype=F64
    ), f


def dense(module, x, positions):
    """Loops over all pairs, heads, degrees and paths; harmonics and coefficients are e3nn's."""
    n, lmax, heads, channels = len(x), module.lmax, module.heads, module.channels
    per_head, h = channels // heads, x[:, 0]
    degree = [l for l in range(lmax + 1) for _ in range(2 * l + 1)]
    v = torch.zeros_like(x[:, : (module.value_lmax + 1) ** 2])
    for row in range(v.shape[1]):
        v[:, row] = x[:, row] @ module.value.weight[degree[row]]
    if module.has_attention:
        logits = h @ module.logits.weight.T + module.logits.bias
        q, logits = logits[:, : heads * KEY].reshape(n, heads, KEY), logits[:, heads * KEY :]
        k, logits = logits[:, : heads * KEY].reshape(n, heads, KEY), logits[:, heads * KEY :]
        has_rho = logits.shape[1] >= heads * N_RADIAL
        rho = logits[:, : heads * N_RADIAL].reshape(n, heads, N_RADIAL) if has_rho else torch.zeros(n, heads, N_RADIAL)
        s = logits[:, heads * N_RADIAL * has_rho :]
    tiles = torch.zeros(n, channels, (module.value_lmax + 1) ** 2, (lmax + 1) ** 2, dtype=F64)
    alphas = {}
    for i in range(n):
        raw, near = {}, []
        for j in range(n):
            r = positions[j] - positions[i]
            d = r.norm().item()
            if i == j or d >= CUTOFF:
                continue
            y = o3.spherical_harmonics(list(range(lmax + 1)), r, True, "component")
            radial, f = bessel(d)
            near.append((j, y, radial, f))
            for head in range(heads):
                if not module.has_attention:
                    continue
                e = (q[i, head] @ k[j, head]) / math.sqrt(KEY) + rho[i, head] @ radial.to(rho)
                if module.direction_query is not None:
                    for row in range((lmax + 1) ** 2):
                        e = e + (x[i, row] @ module.direction_query.weight[degree[row], :, head]) * y[row]
                raw[j, head] = f * e.exp()
        for head, (j, y, radial, f) in itertools.product(range(heads), near):
            if module.has_attention:
                sink = s[i, head].exp() if s.shape[1] else 0.0
                alpha = raw[j, head] / (sink + sum(raw[other, head] for other, *_ in near))
            else:
                alpha = f
            alphas[i, j, head] = alpha
            own = slice(head * per_head, (head + 1) * per_head)
            for row in range((lmax + 1) ** 2):
                gain = 1.0 if module.radial_gain is None else module.radial_gain[head, degree[row]] @ radial
                tiles[i, own, :, row] += (alpha * gain * y[row]) * v[j, :, own].T
    out = torch.zeros_like(x)
    for l3 in range(lmax + 1):
        z = []
        for l1, l2 in itertools.product(range(module.value_lmax + 1), range(lmax + 1)):
            if abs(l1 - l2) <= l3 <= l1 + l2 and not (module.parity and (l1 + l2 + l3) % 2):
                cg = math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=F64)
                tile = tiles[:, :, l1**2 : (l1 + 1) ** 2, l2**2 : (l2 + 1) ** 2]
                z.append(torch.einsum("abm,ncab->nmc", cg, tile))
        rows = slice(l3**2, (l3 + 1) ** 2)
        if module.path_weight is None:
            for path, mixed in enumerate(z):
                out[:, rows] += mixed @ module.mixing[l3][path * channels : (path + 1) * channels]
        else:
            first = sum(module.paths.counts[:l3])
            summed = sum(module.path_weight[first + path] * mixed for path, mixed in enumerate(z))
            out[:, rows] += summed @ module.mixing.weight[l3]
    return out, alphas


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@torch.no_grad()
def test_is_the_published_formula(switches):
    module, graph = made(**switches), cluster()
    x = torch.randn(graph.num_atoms, (module.lmax + 1) ** 2, CHANNELS, dtype=F64)
    geometry = geometry_of(graph, module.lmax)
    wanted, alphas = dense(module, x, graph.positions)
    torch.testing.assert_close(module(x, geometry), wanted, rtol=1e-12, atol=1e-12)
    weights = module.weights(x, geometry)
    assert weights.shape == (graph.num_edges, module.heads)
    for e, (i, j) in enumerate(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True)):
        for head in range(module.heads):
            assert weights[e, head].item() == pytest.approx(float(alphas[i, j, head]), abs=1e-12)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_every_parameter_gets_a_gradient(switches):
    module, graph = made(**switches), cluster()
    x = torch.randn(graph.num_atoms, (module.lmax + 1) ** 2, CHANNELS, dtype=F64)
    module(x, geometry_of(graph, module.lmax)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_output_keeps_about_unit_variance():
    """Unit features in, order-one features out: no degree starts dead or exploded."""
    module = made(channels=32, heads=32)
    graph = NeighborGraph.build(torch.rand(60, 3, dtype=F64) * 6, [6] * 60, CUTOFF)
    x = torch.randn(60, 9, 32, dtype=F64)
    out = module(x, geometry_of(graph, 2))
    for l in range(3):
        assert 0.02 < out[:, l**2 : (l + 1) ** 2].std() < 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 4}, "heads must divide channels, got 4 heads, 6 channels"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"path_mixing": "none"}, 'path_mixing must be "full" or "channel", got \'none\''),
        ({"key_channels": 0}, "key_channels must be at least 1, got 0"),
        ({"n_radial": 0}, "n_radial must be at least 1, got 0"),
        ({"lmax": -1}, r"lmax must be 0\.\.8, got -1"),
    ],
)
def test_bad_arguments_are_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(**wrong)
