"""Gathered rows and sums of segments: their formulas, and that each is the other's derivative at every order."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels import segment
from sdas_kernels.segment import Segments, gather, receivers, segment_sum, senders

F64 = torch.float64
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
SEGMENTS = {
    "ascending": lambda edges: receivers(edges.tensors()),
    "ascending, places unknown": lambda edges: Segments(edges.receivers),
    "in an order": lambda edges: senders(edges.tensors()),
    "unsorted": lambda edges: Segments(edges.senders, ascending=False),
}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """Where the operators run that stand in for an index_add, on the CPU too."""
    monkeypatch.setattr(segment, "IN_ORDER", set())
    return request.param


@pytest.fixture(params=SEGMENTS)
def kind(request):
    return request.param


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)], ids=str)
def test_values_are_those_of_index_select_and_index_add(graph_ops, edges, kind, device, shape):
    segments = SEGMENTS[kind](graph_ops.on(edges, device))
    count, members = edges.num_nodes, segments.members
    nodes = torch.randn(count, *shape, dtype=F64, device=device)
    rows = torch.randn(len(members), *shape, dtype=F64, device=device)
    assert torch.equal(gather(nodes, segments), nodes[members])
    sums = segment_sum(rows, segments, count)
    torch.testing.assert_close(sums, torch.zeros_like(nodes).index_add(0, members, rows), rtol=1e-13, atol=1e-13)
    assert torch.equal(sums, segment_sum(rows, segments, count))


@pytest.mark.parametrize("name", ["usual", "no edges", "isolated"])
def test_finite_differences(graph_ops, name, kind, device):
    edges = graph_ops.edge_list(name)
    segments, count = SEGMENTS[kind](graph_ops.on(edges, device)), edges.num_nodes
    nodes = torch.randn(count, 2, dtype=F64, device=device)
    rows = torch.randn(len(segments.members), 2, dtype=F64, device=device)
    graph_ops.check_gradients(lambda x: gather(x, segments).pow(3), {"x": nodes}, "x")
    graph_ops.check_gradients(lambda x: segment_sum(x, segments, count).pow(3), {"x": rows}, "x")


def test_rows_along_another_dimension(graph_ops, device):
    segments = Segments(torch.tensor([1, 1, 1, 2, 2], device=device))
    x = torch.randn(4, 3, 2, dtype=F64, device=device)
    assert torch.equal(gather(x, segments, dim=1), x[:, segments.members])
    graph_ops.check_gradients(lambda x: gather(x, segments, dim=1).pow(3), {"x": x}, "x")


@pytest.mark.parametrize("name", ["usual", "no edges"])
def test_opcheck(graph_ops, name, kind, device):
    edges = graph_ops.edge_list(name)
    segments, count = SEGMENTS[kind](graph_ops.on(edges, device)), edges.num_nodes
    nodes = torch.randn(2, count, dtype=F64, device=device, requires_grad=True).T
    rows = torch.randn(edges.num_edges, 2, dtype=F64, device=device, requires_grad=True)
    torch.library.opcheck(torch.ops.sdas_kernels.gather.default, (nodes, *segments))
    torch.library.opcheck(torch.ops.sdas_kernels.segment_sum.default, (rows, *segments, count))


def test_compiles_once_for_every_size(graph_ops, kind, device):
    def energy(x, segments):
        return segment_sum(gather(x, segments).square(), segments, x.shape[0]).square().sum()

    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(energy, fullgraph=True, backend=counter)
    for name in ("usual", "isolated", "duplicates", "crowd"):
        edges = graph_ops.on(graph_ops.edge_list(name), device)
        segments = SEGMENTS[kind](edges)
        x = torch.randn(edges.num_nodes, 3, dtype=F64, device=device, requires_grad=True)
        by = [torch.autograd.grad(f(x, segments), x)[0] for f in (compiled, energy)]
        torch.testing.assert_close(*by, rtol=1e-13, atol=1e-13)
    assert counter.frame_count <= 2  # first static, then dynamic
