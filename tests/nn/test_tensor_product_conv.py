"""The convolution module against e3nn's tensor product and an index_add, as NequIP and MACE put them together."""

from __future__ import annotations

import pytest
import torch

from sdas_kernels import EdgeIndex, NeighborGraph, nn
from sdas_kernels.irreps import Irreps

o3 = pytest.importorskip("e3nn.o3")
F64 = torch.float64
IN1, IN2 = "3x0e+3x1o+2x2e", "1x0e+1x1o+1x2e"


pytestmark = pytest.mark.usefixtures("float64_by_default")


@pytest.fixture
def edges():
    return EdgeIndex.from_pairs(torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([1, 2, 0, 0, 1, 3]), 5)


def as_nequip_does(in1, in2, wanted):
    """Its code's steps with e3nn's irreps: collect entries and instructions, sort, permute."""
    entries, paths = [], []
    for i, (mul, first) in enumerate(o3.Irreps(in1)):
        for j, (_, second) in enumerate(o3.Irreps(in2)):
            for ir in first * second:
                if ir in o3.Irreps(wanted):
                    paths.append((i, j, len(entries), "uvu", True))
                    entries.append((mul, ir))
    out, place, _ = o3.Irreps(entries).sort()
    return out, [(i, j, place[k], mode, train) for i, j, k, mode, train in paths]


def theirs(module, x, y, weight, edges):
    return x.new_zeros(len(x), module.irreps_out.dim).index_add(0, edges.receivers, module(x[edges.senders], y, weight))


@pytest.mark.parametrize("wanted", ["0e+1o+2e", "0e+0o+1e+1o+2e+2o+3o", "2e"])
def test_paths_apart_are_nequips(wanted):
    irreps, paths = as_nequip_does(IN1, IN2, wanted)
    ours, our_paths = nn.uvu_paths_apart(IN1, IN2, wanted)
    assert str(ours) == str(irreps)
    assert our_paths == paths


@pytest.mark.parametrize("options", [{}, {"irrep_normalization": "norm", "path_normalization": "path"}])
@pytest.mark.parametrize("kind", ["apart", "MACE's order", "added"])
def test_is_e3nns_with_gather_and_scatter(kind, options, edges):
    if kind == "added":
        out = "3x0e+3x1o+2x2e+3x2e"
        ours = nn.TensorProductConv(IN1, IN2, out, **options)
        paths = [path[:5] for path in ours.instructions]
        assert {path[2] for path in paths} == {0, 1, 2, 3}
    else:
        out, paths = nn.uvu_paths_apart(IN1, IN2, "0e+1o+2e")
        if kind == "MACE's order":
            paths = sorted(paths, key=lambda path: path[2])
        ours = nn.TensorProductConv(IN1, IN2, out, paths, **options)
    peer = o3.TensorProduct(IN1, IN2, str(out), paths, shared_weights=False, internal_weights=False, **options)
    assert ours.weight_numel == peer.weight_numel
    x, y = torch.randn(5, ours.irreps_in1.dim), torch.randn(6, ours.irreps_in2.dim)
    leaves = [t.requires_grad_() for t in (x, y, torch.randn(6, ours.weight_numel))]
    found, wanted = ours(*leaves, edges), theirs(peer, *leaves, edges)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    by, by_wanted = (torch.autograd.grad(z.square().sum(), leaves) for z in (found, wanted))
    torch.testing.assert_close(by, by_wanted, rtol=1e-12, atol=1e-12)


def test_internal_weights_load_from_e3nn(edges):
    out, paths = nn.uvu_paths_apart(IN1, IN2, "0e+1o")
    ours = nn.TensorProductConv(IN1, IN2, out, paths, shared_weights=True)
    peer = o3.TensorProduct(IN1, IN2, str(out), paths, shared_weights=True)
    ours.load_state_dict(peer.state_dict())
    x, y = torch.randn(5, ours.irreps_in1.dim), torch.randn(6, ours.irreps_in2.dim)
    torch.testing.assert_close(ours(x, y, None, edges), theirs(peer, x, y, None, edges), rtol=1e-12, atol=1e-12)


def test_default_paths_need_equal_multiplicities():
    ours = nn.TensorProductConv("4x0e+2x1o", "1x0e+1x1o", "4x0e+4x1o+2x0e")
    assert [path[:4] for path in ours.instructions] == [(0, 0, 0, "uvu"), (0, 1, 1, "uvu"), (1, 1, 2, "uvu")]


def test_a_graph_of_atoms_and_a_list_of_weights(edges):
    graph = NeighborGraph.build([[0.0, 0, 0], [1, 0, 0], [0, 1.2, 0]], [1, 6, 8], 2.0)
    ours = nn.TensorProductConv("2x0e+2x1o", "1x0e+1x1o", "2x0e+2x1o")
    x, y = torch.randn(3, 8), torch.randn(graph.num_edges, 4)
    parts = [torch.randn(graph.num_edges, *path.path_shape) for path in ours.instructions]
    flat = torch.cat([part.flatten(1) for part in parts], 1)
    assert torch.equal(ours(x, y, parts, graph), ours(x, y, flat, graph.edges))


def test_the_last_layer_of_the_radial_network_inside(edges):
    ours = nn.TensorProductConv(IN1, IN2, "3x0e+3x1o+2x2e")
    x, y = torch.randn(5, ours.irreps_in1.dim), torch.randn(6, ours.irreps_in2.dim)
    hidden, layer = torch.randn(6, 4), torch.randn(4, ours.weight_numel)
    torch.testing.assert_close(ours(x, y, hidden, edges, layer), ours(x, y, hidden @ layer, edges))


def test_rotating_inputs_rotates_the_output(edges):
    ours = nn.TensorProductConv(IN1, IN2, "3x0e+3x1o+2x2e")
    turn = o3.rand_matrix()
    d1, d2, d3 = (o3.Irreps(str(i)).D_from_matrix(turn) for i in (ours.irreps_in1, ours.irreps_in2, ours.irreps_out))
    x, y = torch.randn(5, len(d1)), torch.randn(6, len(d2))
    weight = torch.randn(6, ours.weight_numel)
    torch.testing.assert_close(ours(x @ d1.T, y @ d2.T, weight, edges), ours(x, y, weight, edges) @ d3.T)


def test_what_is_wrong_is_named(edges):
    ours = nn.TensorProductConv("2x0e", "1x0e", "2x0e")
    with pytest.raises(ValueError, match="weight is missing"):
        ours(torch.ones(5, 2), torch.ones(6, 1), None, edges)
    with pytest.raises(ValueError, match=r"weight must be \[.., 2\], got \[6, 3\]"):
        ours(torch.ones(5, 2), torch.ones(6, 1), torch.ones(6, 3), edges)
    with pytest.raises(ValueError, match=r"tensor_product_conv: x must be \[N, dim1\]"):
        ours(torch.ones(4, 2), torch.ones(6, 1), torch.ones(6, 2), edges)
    with pytest.raises(ValueError, match="connection mode 'uv'"):
        nn.TensorProductConv("2x0e", "1x0e", "2x0e", [(0, 0, 0, "uv", True)])


def test_irreps_are_read_from_strings_and_objects():
    assert nn.TensorProductConv(Irreps("2x0e"), o3.Irreps("1x0e"), "2x0e").weight_numel == 2
