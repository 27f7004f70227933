"""Valid calls of every module of `sdas_kernels.nn`, and of what reads words."""

from __future__ import annotations

from functools import cache
from typing import Any

import targets
import torch
from targets import Call, Draw

import sdas_kernels as sk
from sdas_kernels import dispatch, nn


@cache
def module(name: str, dtype: torch.dtype) -> torch.nn.Module:
    """Each once, with seeded weights."""
    torch.manual_seed(0)
    irreps = "2x0e+3x1o"
    made: dict[str, Any] = {
        "SphericalHarmonics": lambda: nn.SphericalHarmonics("1x1o+1x0e", True),
        "TensorProduct": lambda: nn.TensorProduct(irreps, "1x1o", "3x0e", [(1, 0, 0, "uvw", True)]),
        "ElementwiseTensorProduct": lambda: nn.ElementwiseTensorProduct("2x0e+1x1o", "3x1o"),
        "FullTensorProduct": lambda: nn.FullTensorProduct("2x0e+1x1o", "1x1o"),
        "FullyConnectedTensorProduct": lambda: nn.FullyConnectedTensorProduct(irreps, "1x0e+1x1o", irreps),
        "TensorProductConv": lambda: nn.TensorProductConv("4x0e+3x1o", "1x0e+1x1o", "4x0e+3x1o"),
        "EquivariantLinear": lambda: nn.EquivariantLinear(1, 4, 3),
        "EquivariantRMSNorm": lambda: nn.EquivariantRMSNorm(1),
        "NodeUpdate": lambda: nn.NodeUpdate(4, 1),
        "NeighborAttention": lambda: nn.NeighborAttention(4, 2, 1, n_radial=3),
        "SDASLayer": lambda: nn.SDASLayer(4, 1, heads=2, n_radial=3),
    }
    return made[name]().to(dtype)


def products(d: Draw) -> Call:
    name = d.pick(["TensorProduct", "ElementwiseTensorProduct", "FullTensorProduct", "FullyConnectedTensorProduct"])
    product: Any = module(name, d.dtype)
    shape = d.pick([(0,), (1,), (5,), (2, 3), ()])
    given = {"x": d.normal(*shape, product.irreps_in1.dim), "y": d.normal(*shape, product.irreps_in2.dim)}
    return Call(product, given, {"x": ("y must", "weight"), "y": ("x must", "weight")})


def harmonics(d: Draw) -> Call:
    return Call(module("SphericalHarmonics", d.dtype), {"x": d.normal(d.pick([0, 4]), 3)}, {"x": ("vectors",)})


def convolution(d: Draw) -> Call:
    call = targets.tensor_product_conv(d)
    conv: Any = module("TensorProductConv", d.dtype)
    n, e = call.arguments["num_nodes"], len(call.arguments["senders"])
    given = {name: call.arguments[name] for name in ("receivers", "senders", "num_nodes")}
    given |= {"x": d.normal(n, conv.irreps_in1.dim), "y": d.normal(e, conv.irreps_in2.dim)}
    given["weight"] = d.normal(e, conv.weight_numel)
    return Call(targets.on_edges(conv), given, targets.ROWS)


def nodes(d: Draw) -> Call:
    name = d.pick(["EquivariantLinear", "EquivariantRMSNorm", "NodeUpdate"])
    return Call(module(name, d.dtype), {"x": d.normal(d.pick([0, 1, 5]), 4, 4)}, {})


def layers(d: Draw) -> Call:
    layer = module(d.pick(["NeighborAttention", "SDASLayer"]), d.dtype)
    pairs = d.pairs()
    e = len(pairs["senders"])
    operands = {"harmonics": d.normal(e, 4), "radial": d.normal(e, 3), "envelope": d.normal(e).abs()}

    def call(x: Any, receivers: Any, senders: Any, num_nodes: Any, **geometry: Any) -> Any:
        return layer(x, nn.EdgeGeometry(**geometry, edges=targets.edges_of(receivers, senders, num_nodes)))

    words = targets.ROWS | targets.QUERY | {"x": ("query", "value", "key"), "num_nodes": ("N = ", "nodes")}
    return Call(call, pairs | operands | {"x": d.normal(pairs["num_nodes"], 4, 4)}, words)


def geometry(d: Draw) -> Call:
    graph = d.system(3.0)

    def call(vectors: Any, lmax: Any, n_radial: Any, cutoff: Any) -> Any:
        return list(nn.EdgeGeometry.from_vectors(vectors, graph, lmax, n_radial, cutoff))[:3]

    given = {"vectors": graph.edge_vectors(), "lmax": 1, "n_radial": 3, "cutoff": 3.0}
    return Call(call, given, {"n_radial": (" n ",)})


WORDS = ["", "2x0e+1x1o", "1x9o", "x", "1x1", "-1x0e", "0e", "2x0e ++", "cpu", "gpu", "cuda:99", "cpp", "network", "é"]
READERS: dict[str, Any] = {
    "irreps": sk.Irreps,
    "irrep": sk.Irrep,
    "spec": sk.TensorProductSpec.parse,
    "device": sk.explain,
    "backend": lambda word: sk.use_backend(word).__enter__(),
    "operator": lambda word: sk.use_backend("cpp", word).__enter__(),
}


def words(d: Draw) -> Call:
    """What is parsed; a word that says nothing is a `ValueError`."""
    reader, word = READERS[d.pick(sorted(READERS))], d.pick(WORDS)

    def call() -> str:
        before = dict(dispatch._forced)
        try:
            return str(reader(word))
        except ValueError as error:
            return str(error)
        finally:
            dispatch._forced.clear()
            dispatch._forced.update(before)

    return Call(call, {}, {})


def memory(d: Draw) -> Call:
    before = 1 << 29

    def call(size: Any) -> None:
        try:
            sk.memory.keep(size)
        finally:
            sk.memory.keep(before)

    return Call(call, {"size": d.pick([0, 1 << 20])}, {"size": ("bytes",)})
