"""The default layer's two halves, the norm and the node update, against their formulas."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import EdgeGeometry, EquivariantRMSNorm, NodeProduct, NodeUpdate, SDASLayer

F64 = torch.float64


def features(lmax, n=4, channels=5):
    return torch.randn(n, (lmax + 1) ** 2, channels, dtype=F64)


@pytest.mark.parametrize("lmax", range(4))
def test_norm_divides_by_the_root_mean_square_over_degrees(lmax):
    x = features(lmax)
    found = EquivariantRMSNorm(lmax)(x)
    for i in range(len(x)):
        by_degree = [x[i, l**2 : (l + 1) ** 2].square().mean() for l in range(lmax + 1)]
        mean = sum(by_degree) / (lmax + 1)
        torch.testing.assert_close(found[i], x[i] / (mean + 1e-3).sqrt(), rtol=1e-13, atol=1e-13)


def test_norm_forgets_the_dtypes_that_it_has_been_through():
    x = features(2)
    assert torch.equal(EquivariantRMSNorm(2).bfloat16().double()(x), EquivariantRMSNorm(2)(x))


def test_norm_is_finite_and_smooth_at_zero():
    x = torch.zeros(1, 4, 2, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(EquivariantRMSNorm(1), x)
    assert torch.autograd.gradgradcheck(EquivariantRMSNorm(1), x)


@pytest.mark.parametrize("lmax", range(4))
def test_node_update_is_its_formula(lmax):
    update, x = NodeUpdate(5, lmax).to(F64), features(lmax)
    squares = [sum(x[:, row].square() for row in range(l**2, (l + 1) ** 2)) for l in range(1, lmax + 1)]
    into = torch.cat([x[:, 0], *squares], 1)
    hidden = into @ update.mlp[0].weight.T + update.mlp[0].bias
    f = (hidden * torch.sigmoid(hidden)) @ update.mlp[2].weight.T + update.mlp[2].bias
    wanted = torch.zeros_like(x)
    wanted[:, 0] = f[:, :5]
    for l in range(1, lmax + 1):
        for row in range(l**2, (l + 1) ** 2):
            wanted[:, row] = f[:, 5 * l : 5 * (l + 1)] * (x[:, row] @ update.gated.weight[l])
    torch.testing.assert_close(update(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lmax", [2, 3])
def test_node_product_is_its_formula(lmax):
    """With the coupling tensors of e3nn, over all ordered pairs of degrees that are not scalars."""
    product, x = NodeProduct(5, lmax).to(F64), features(lmax)
    wanted = torch.zeros_like(x)
    for l3 in range(1, lmax + 1):
        pairs = [(l1, l2) for l1 in range(1, lmax + 1) for l2 in range(l1, lmax + 1)]
        pairs = [(l1, l2) for l1, l2 in pairs if l2 - l1 <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0]
        weights = product.mixing[l3 - 1].view(len(pairs), 5, 5)
        for (l1, l2), weight in zip(pairs, weights, strict=True):
            left, right = (x[:, l**2 : (l + 1) ** 2] for l in (l1, l2))
            tensor = o3.wigner_3j(l1, l2, l3, dtype=F64) * (2 * l3 + 1) ** 0.5
            z = torch.einsum("abk,nac,nbc->nkc", tensor, left, right)
            wanted[:, l3**2 : (l3 + 1) ** 2] += z @ weight
    torch.testing.assert_close(product(x), wanted, rtol=1e-11, atol=1e-12)


def test_what_the_node_product_leaves_out_is_zero_or_already_there():
    """Of one degree with itself, an odd sum of degrees gives nothing."""
    x = torch.randn(7, dtype=F64)
    for l3 in (1, 3):
        assert torch.einsum("abk,a,b->k", o3.wigner_3j(3, 3, l3, dtype=F64), x, x).abs().max() < 1e-12


@pytest.mark.usefixtures("float64_by_default")
def test_node_product_turns_with_its_input_and_differentiates():
    product, x = NodeProduct(3, 2).to(F64), features(2, n=3, channels=3)
    turn = o3.Irreps("0e+1o+2e").D_from_matrix(-o3.rand_matrix())
    torch.testing.assert_close(product(turn @ x), turn @ product(x), rtol=1e-11, atol=1e-11)
    assert torch.autograd.gradcheck(product, x.requires_grad_())
    assert torch.autograd.gradgradcheck(product, x)


def test_no_product_below_degree_two():
    assert SDASLayer(4, lmax=1, node_product=True, heads=2).product is None
    assert SDASLayer(4, lmax=2, node_product=True, heads=2).product is not None


@pytest.mark.parametrize("node_update", [True, False])
def test_layer_adds_attention_then_update(node_update):
    layer = SDASLayer(4, lmax=2, node_update=node_update, heads=2, n_radial=3).to(F64)
    graph = NeighborGraph.build(torch.rand(6, 3, dtype=F64) * 3, [1] * 6, 2.5)
    geometry = EdgeGeometry.from_vectors(graph.edge_vectors(), graph, 2, 3, 2.5)
    x = features(2, 6, 4)
    middle = x + layer.attention(layer.norm(x), geometry)
    wanted = middle + layer.update(layer.norm(middle)) if node_update else middle
    torch.testing.assert_close(layer(x, geometry), wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("parity", [True, False])
def test_layer_turns_with_its_input(parity):
    """Rotation always; inversion of odd degrees where parity is kept."""
    layer = SDASLayer(4, lmax=2, heads=2, n_radial=3, parity=parity).to(F64)
    positions, x = torch.rand(6, 3, dtype=F64) * 3, features(2, 6, 4)
    turn = o3.rand_matrix(dtype=F64)

    def wigner(matrix):
        vectors = torch.randn(30, 3, dtype=F64)
        before, after = (o3.spherical_harmonics([0, 1, 2], v, True, "component") for v in (vectors, vectors @ matrix.T))
        return torch.linalg.lstsq(before, after).solution.T

    def run(r, features):
        graph = NeighborGraph.build(r, [1] * 6, 2.5)
        return layer(features, EdgeGeometry.from_vectors(graph.edge_vectors(), graph, 2, 3, 2.5))

    for matrix in (turn, -turn) if parity else (turn,):
        d = wigner(matrix)
        found = run(positions @ matrix.T, torch.einsum("ab,nbc->nac", d, x))
        torch.testing.assert_close(found, torch.einsum("ab,nbc->nac", d, run(positions, x)), rtol=1e-10, atol=1e-10)


def test_geometry_holds_harmonics_radial_and_envelope_of_every_edge():
    graph = NeighborGraph.build(torch.rand(5, 3, dtype=F64) * 3, [1] * 5, 2.5)
    vectors = graph.edge_vectors()
    geometry = EdgeGeometry.from_vectors(vectors, graph, 3, 6, 2.5)
    wanted = o3.spherical_harmonics([0, 1, 2, 3], vectors, True, "component")
    torch.testing.assert_close(geometry.harmonics, wanted, rtol=1e-12, atol=1e-12)
    assert geometry.radial.shape == (graph.num_edges, 6)
    u = vectors.norm(dim=1) / 2.5
    torch.testing.assert_close(geometry.envelope, 1 - 28 * u**6 + 48 * u**7 - 21 * u**8, rtol=1e-12, atol=1e-12)
    assert geometry.edges is graph.edges
