"""Valid calls of every public function, of drawn sizes; names of arguments are the callee's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple

import torch

import sdas_kernels as sk
from sdas_kernels import nn

Tensor = torch.Tensor
Pick = Callable[[Any], Any]
EDGES = tuple(field.name for field in fields(sk.EdgeIndex))
PARTS = tuple(field.name for field in fields(sk.NeighborGraph) if field.name != "edges")


class Call(NamedTuple):
    """A function, its arguments, and words that an error may use for one of them."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    words: dict[str, tuple[str, ...]]


class Draw:
    """Sizes from `pick`, numbers from a seed."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.dtype = pick([torch.float32, torch.float64])
        self.random = torch.Generator().manual_seed(pick(range(1 << 16)))

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(shape, generator=self.random, dtype=torch.float64).to(self.dtype)

    def pairs(self) -> dict[str, Any]:
        """Arguments of `EdgeIndex.from_pairs`."""
        n = self.pick([1, 2, 5])
        e = self.pick([0, 1, 3, 17])
        receivers, senders = (torch.randint(0, n, (e,), generator=self.random) for _ in range(2))
        return {"receivers": receivers.sort().values, "senders": senders, "num_nodes": n}

    def system(self, cutoff: float) -> sk.NeighborGraph:
        """Of one or two small systems."""
        return sk.NeighborGraph.batch([self._one(cutoff) for _ in range(self.pick([1, 2]))])

    def _one(self, cutoff: float) -> sk.NeighborGraph:
        n, pbc = self.pick([1, 2, 5]), self.pick([False, True])
        grid = torch.cartesian_prod(*[torch.arange(2.0)] * 3)[:n].double() * 1.6
        r = grid + 0.2 * torch.rand(n, 3, generator=self.random, dtype=torch.float64)
        numbers = torch.tensor([1, 6])[torch.randint(0, 2, (n,), generator=self.random)]
        cell = 4.1 * torch.eye(3) if pbc else None
        return sk.NeighborGraph.build(r, numbers, cutoff, cell, pbc, dtype=self.dtype)


def edges_of(receivers: Any, senders: Any, num_nodes: Any) -> sk.EdgeIndex:
    """The graph of an operator's call."""
    return sk.EdgeIndex.from_pairs(receivers, senders, num_nodes)


def on_edges(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a graph as one of the pairs."""

    def call(receivers: Any, senders: Any, num_nodes: Any, **operands: Any) -> Any:
        return function(graph=edges_of(receivers, senders, num_nodes), **operands)

    return call


NUM_NODES = {"num_nodes": ("nodes", "N = ")}
ROWS = {"senders": ("E = ",), "receivers": ("E = ", "senders"), **NUM_NODES}


def spherical_harmonics(d: Draw) -> Call:
    shape = d.pick([(0,), (1,), (4,), (2, 3), ()])
    given = {"vectors": d.normal(*shape, 3), "lmax": d.pick(range(5)), "normalization": "norm"}
    return Call(sk.spherical_harmonics, given, {})


def radial_basis(d: Draw) -> Call:
    given = {"lengths": d.normal(d.pick([0, 1, 9])).abs(), "n": d.pick([1, 4]), "cutoff": 1.3, "p": d.pick([3, 6])}
    return Call(sk.radial_basis, given, {})


def polynomial_envelope(d: Draw) -> Call:
    return Call(sk.polynomial_envelope, {"lengths": d.normal(2, 3).abs(), "cutoff": 1.3, "p": 6}, {})


def edge_geometry(d: Draw) -> Call:
    given = {
        "vectors": d.normal(d.pick([0, 1, 9]), 3),
        "lmax": d.pick(range(4)),
        "n": d.pick([1, 4]),
        "cutoff": 2.0,
        "p": 5,
    }
    return Call(sk.edge_geometry, given, {})


def logits(d: Draw, n: int, e: int) -> dict[str, Any]:
    k, q, m, b = d.pick([1, 2]), d.pick([1, 3]), d.pick([1, 4]), d.pick([1, 5])
    return {
        "query": d.normal(n, k, q + m + b),
        "key": d.normal(n, k, q),
        "sink": d.normal(n, k),
        "harmonics": d.normal(e, m),
        "radial": d.normal(e, b),
        "envelope": d.normal(e).abs(),
    }


QUERY = {"harmonics": ("query", "radial_gain"), "radial": ("query", "radial_gain"), "key": ("query", "sink", "heads")}


def edge_softmax(d: Draw) -> Call:
    pairs = d.pairs()
    operands = logits(d, pairs["num_nodes"], len(pairs["senders"]))
    return Call(on_edges(sk.edge_softmax), pairs | operands, ROWS | QUERY)


def neighbor_tensor_product(d: Draw) -> Call:
    pairs = d.pairs()
    n, e, k, b = pairs["num_nodes"], len(pairs["senders"]), d.pick([1, 2]), d.pick([1, 3])
    l = d.pick([0, 1, 2])
    operands = {
        "attention": d.normal(e, k),
        "radial": d.normal(e, b),
        "radial_gain": d.normal(k, l + 1, b),
        "value": d.normal(n, 4, 2 * k),
        "harmonics": d.normal(e, (l + 1) ** 2),
        "lmax_out": d.pick([0, 1, 2]),
    }
    words = {"attention": ("radial_gain", "channels"), "radial": ("radial_gain",), "value": ("channels",)}
    return Call(on_edges(sk.neighbor_tensor_product), pairs | operands, ROWS | words | {"harmonics": ("radial_gain",)})


def neighbor_attention(d: Draw) -> Call:
    pairs = d.pairs()
    n, e = pairs["num_nodes"], len(pairs["senders"])
    operands = logits(d, n, e)
    k, b, l = operands["key"].shape[1], operands["radial"].shape[1], operands["harmonics"].shape[1] // 3
    more = {"value": d.normal(n, 4, 2 * k), "radial_gain": d.normal(k, l + 1, b), "lmax_out": d.pick([0, 1, 2])}
    return Call(on_edges(sk.neighbor_attention), pairs | operands | more, ROWS | QUERY | {"value": ("channels",)})


@cache
def specs() -> list[sk.TensorProductSpec]:
    """One of kernels for channels, one that mixes them, one without a weight."""
    usual = nn.TensorProductConv("4x0e+3x1o", "1x0e+1x1o", "4x0e+3x1o").spec
    mixing = nn.FullyConnectedTensorProduct("2x0e+3x1o", "1x0e+2x1o", "2x0e+2x1o").spec
    return [usual, mixing, nn.FullTensorProduct("2x0e+1x1o", "1x1o").spec]


SPEC = ("TensorProductSpec",)


def tensor_product(d: Draw) -> Call:
    spec, batch = d.pick(specs()), d.pick([0, 1, 33])
    (dim1, dim2, _), numel = spec.dims, spec.weight_numel
    weight = d.normal(numel) if d.pick([False, True]) else d.normal(batch, numel)
    given = {"x": d.normal(batch, dim1), "y": d.normal(batch, dim2), "weight": weight, "spec": str(spec)}
    return Call(sk.tensor_product, given, {"x": ("y must", "weight must"), "spec": SPEC})


def tensor_product_conv(d: Draw) -> Call:
    spec, pairs = d.pick(specs()), d.pairs()
    (dim1, dim2, _), numel = spec.dims, spec.weight_numel
    n, e = pairs["num_nodes"], len(pairs["senders"])
    kind = d.pick(["shared", "own", "basis"])
    given = pairs | {"x": d.normal(n, dim1), "y": d.normal(e, dim2), "spec": str(spec)}
    given["weight"] = {"shared": d.normal(numel), "own": d.normal(e, numel), "basis": d.normal(e, 3)}[kind]
    if kind == "basis":
        given["weight_basis"] = d.normal(3, numel)
    return Call(
        on_edges(sk.tensor_product_conv),
        given,
        ROWS | {"weight": ("weight_basis",), "weight_basis": ("weight",), "spec": SPEC},
    )


def edge_index(d: Draw) -> Call:
    index = edges_of(**d.pairs())
    words = dict.fromkeys(EDGES, EDGES)
    return Call(lambda **parts: sk.EdgeIndex(**parts).tensors(), dict(zip(EDGES, index.tensors(), strict=True)), words)


def written_index(d: Draw) -> Call:
    """An index into which something is written after it was made, then used."""
    pairs, place, number = d.pairs(), d.pick(EDGES), d.pick([0, 1, -1, 10**9, -(2**62)])
    n, e = pairs.pop("num_nodes"), len(pairs["senders"])
    spec = specs()[0]

    def call(x: Tensor, y: Tensor, weight: Tensor) -> Any:
        edges = edges_of(pairs["receivers"], pairs["senders"], n)
        before = [t.clone() for t in edges.tensors()]
        getattr(edges, place)[-1:] = number
        if all(torch.equal(*both) for both in zip(before, edges._tensors(), strict=True)):
            return sk.tensor_product_conv(x, y, weight, edges, spec)
        try:
            index = edges.tensors()
        except ValueError as error:
            return str(error).startswith("EdgeIndex: ")
        return sk.tensor_product_conv(x, y, weight, sk.EdgeIndex(*index), spec)

    operands = {
        "x": d.normal(n, spec.dims[0]),
        "y": d.normal(e, spec.dims[1]),
        "weight": d.normal(e, spec.weight_numel),
    }
    return Call(call, operands, {})


def build(d: Draw) -> Call:
    n, periodic = d.pick([1, 2, 6]), d.pick([False, True])
    numbers = torch.randint(1, 9, (n,), generator=d.random)
    given: dict[str, Any] = {"positions": 3 * d.normal(n, 3), "numbers": numbers, "cutoff": 3.0}
    if periodic:
        given |= {
            "cell": 4 * torch.eye(3, dtype=d.dtype) + 0.2 * d.normal(3, 3),
            "pbc": torch.tensor([True, False, True]),
        }

    def call(**arguments: Any) -> Any:
        try:
            graph = sk.NeighborGraph.build(**arguments)
        except ValueError as error:
            if "overlap" in str(error):
                return "overlap"
            raise
        return [*graph.edges.tensors(), graph.edge_vectors(), graph.numbers]

    return Call(call, given, {"pbc": ("cell",), "positions": ("dtype",)})


@cache
def models(dtype: torch.dtype, layer: str) -> nn.SDAS:
    """A small potential."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"channels": 4, "heads": 2, "lmax": 1, "cutoff": 3.0, "n_radial": 3, "key_channels": 2}
    return nn.SDAS([1, 6], layer=layer, **shape).to(dtype).eval()


@cache
def compiled(model: nn.SDAS) -> nn.CompiledPotential:
    """Traced once for each kind of graph."""
    return nn.CompiledPotential(model, "eager")


def potential(d: Draw) -> Call:
    graph = d.system(3.0)
    model = models(d.dtype, d.pick(["default", "default", "paper"]))
    runs: dict[str, Any] = {
        "model": model,
        "stress": lambda g: model(g, stress=bool(g.periodic and g.pbc.all())),
        "energy": lambda g: model(g, forces=False),
        "compiled": compiled(model),
        "frozen": lambda g: at_listed_pairs(model, g),
        "captured": lambda g: nn.CapturedPotential(model, 10, 300, graph.num_systems)(g),
        "moved": lambda g: model(g.to("cpu", d.dtype)),
        "batched": lambda g: model(sk.NeighborGraph.batch([g, g])),
        "vectors": lambda g: g.edge_vectors(),
    }
    run = runs[d.pick(sorted(runs))]
    index = dict(zip(EDGES, graph.edges.tensors(), strict=True))

    def call(**parts: Any) -> Any:
        edges = sk.EdgeIndex(**{name: parts.pop(name) for name in EDGES})
        return run(sk.NeighborGraph(edges=edges, **parts))

    words: dict[str, tuple[str, ...]] = dict.fromkeys(EDGES, (*EDGES, "atoms", "edges"))
    words |= {"positions": ("the graph is", "graph"), "numbers": ("atomic",), "cells": ("cell",), "pbc": ("periodic",)}
    words |= {"periodic": ("pbc",), "system": ("systems",)}
    return Call(call, {name: getattr(graph, name) for name in PARTS} | index, words)


def at_listed_pairs(model: nn.SDAS, graph: sk.NeighborGraph) -> dict[str, Tensor]:
    """Energy and forces without gradients, by a frozen potential where it serves: not where the reference is asked."""
    model._check_graph(graph)  # pairs may be listed up to more than the cutoff, and in another dtype
    potential = nn.FrozenPotential.of(model)
    if potential is None or not potential.serves():
        return {name: value.detach() for name, value in model(graph).items()}
    g = graph.to(dtype=torch.float64)
    found = potential(nn.ListedPairs(g, model.cutoff, 0.0), g.numbers, g.positions, g.cells, trust=True)
    assert found is not None
    return {"energy": found["energy"], "forces": found["forces"].to(graph.dtype)}


def edge_vectors(d: Draw) -> Call:
    graph = d.system(3.0)
    return Call(graph.edge_vectors, {"positions": graph.positions.clone(), "cells": graph.cells.clone()}, {})
