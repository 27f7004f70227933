"""The layer's operator, `neighbor_attention`, on a GPU: forward, backward, double backward.

Claims: at least 60 % of the copy rate; at least 3 times as fast as the same layer by cuequivariance's fused products
and a softmax in PyTorch. Ours is checked against the reference in float64, and the peer against ours, before either is
timed.

    roof         the copy rate, measured in this run
    attention    ours in float32 and bfloat16 at 10^4 and 10^5 atoms, as a share of the roof
    reference    plain PyTorch
    cuequivariance

Run: `python -m gpu.attention [PART ...]` with this folder's parent on the path, or `bench/gpu_node.sh`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from bench_neighbor_attention import CUTOFF, N_RADIAL, box
from gpu import peers, traffic
from gpu.measure import DEVICE, DRY, Report, chosen, copy_rate, end, ladder, memory_peak, milliseconds, require

import sdas_kernels as sk
from sdas_kernels.nn.geometry import EdgeGeometry

CHANNELS, HEADS, LMAX, KEY_CHANNELS = (4, 2, 1, 2) if DRY else (64, 32, 2, 4)
SIDES = (2, 3) if DRY else (22, 46)  # 10 648 and 97 336 atoms
NAMES = ("query", "key", "sink", "value", "radial_gain", "harmonics", "radial", "envelope")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


class Call:
    """Operands of the operator on a periodic box with about 40 neighbors per atom."""

    def __init__(self, side: int, dtype: torch.dtype, device: torch.device = DEVICE) -> None:
        graph = box(side).to(device)
        self.edges, n = graph.edges, graph.num_atoms
        geometry = EdgeGeometry.from_vectors(graph.edge_vectors(), graph, LMAX, N_RADIAL, CUTOFF)
        random = torch.Generator(device).manual_seed(0)
        rows = (LMAX + 1) ** 2
        shapes: dict[str, tuple[int, ...]] = {
            "query": (n, HEADS, KEY_CHANNELS + rows + N_RADIAL),
            "key": (n, HEADS, KEY_CHANNELS),
            "sink": (n, HEADS),
            "value": (n, rows, CHANNELS),
            "radial_gain": (HEADS, LMAX + 1, N_RADIAL),
        }
        drawn = {name: torch.randn(shape, generator=random, device=device) for name, shape in shapes.items()}
        drawn["query"] /= shapes["query"][2] ** 0.5
        self.operands = [t.to(dtype) for t in (*drawn.values(), *geometry[:3])]

    def __call__(self, *operands: torch.Tensor) -> torch.Tensor:
        return sk.neighbor_attention(*operands, self.edges, LMAX)

    def traffic(self) -> tuple[dict[str, int], dict[str, int]]:
        """Bytes that must move in each step, and those beyond where rows are read once per edge."""
        o = dict(zip(NAMES, self.operands, strict=True))
        result = o["value"].new_empty(len(o["value"]), sk.paths.Paths(LMAX, LMAX, LMAX).rows, CHANNELS, device="meta")
        more = traffic.gathered([o["value"], o["key"]], [o["query"]], result, self.edges.num_edges)
        return traffic.ladder(self.operands, result, self.edges.tensors()), more


def checked(dtype: torch.dtype) -> dict[str, float]:
    """Ours on a small box against the reference in float64 on the CPU: the worst of the ladder's results."""
    side = SIDES[0] if DRY else 6
    ours, exact = Call(side, dtype), Call(side, torch.float64, torch.device("cpu"))
    exact.operands = [t.cpu().double() for t in ours.operands]
    found = results(ours)
    with sk.use_backend("reference"):
        wanted = results(exact)
    pairs = zip(found, wanted, strict=True)
    return max((require(a, b, TOLERANCE[dtype]) for a, b in pairs), key=lambda row: row["off_by"])


def results(call: Call) -> list[torch.Tensor]:
    """Value, gradients, and the gradients of those by the geometry, as training on forces takes them."""
    leaves = [t.detach().requires_grad_() for t in call.operands]
    value = call(*leaves)
    drawn = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    first = torch.autograd.grad(value, leaves, drawn.to(value), create_graph=True)
    geometry = list(first[5:])
    second = torch.autograd.grad(geometry, leaves, [torch.ones_like(t) for t in geometry])
    return [value, *first, *second]


def main() -> None:
    parts = chosen("attention", "reference", "cuequivariance")
    report = Report("attention", "milliseconds; shares of the copy rate", ["cuequivariance-ops-torch-cu13"])
    roof = copy_rate()
    report.case(lambda: {"copy_gb_per_s": round(roof / 1e9, 1)}, what="roof")
    if "attention" in parts:
        for dtype in TOLERANCE:
            report.case(lambda d=dtype: checked(d), what="attention", step="checked", dtype=str(dtype)[6:])

    for side in SIDES:
        for dtype in TOLERANCE:
            call = Call(side, dtype)
            sizes = {"atoms": side**3, "edges": call.edges.num_edges, "dtype": str(dtype)[6:]}
            rivals = ["attention"]
            if dtype == torch.float32 and side == SIDES[0]:
                rivals.append("reference")
            if dtype == torch.float32:
                rivals.append("cuequivariance")
            for name in [name for name in rivals if name in parts]:
                steps: dict[str, Any] = {}
                for step in traffic.STEPS:

                    def measured(name: str = name, step: str = step, call: Call = call, steps: Any = steps) -> Any:
                        if not steps:
                            steps |= ladder(_function(name, call), call.operands)
                        with sk.use_backend("reference") if name == "reference" else nullcontext():
                            return _timed(call, steps[step], step, roof, ours=name == "attention")

                    report.case(measured, optional=name == "cuequivariance", what=name, step=step, **sizes)
    end()


def _function(name: str, call: Call) -> Any:
    if name != "cuequivariance":
        return call
    small = Call(2 if DRY else 6, torch.float32)
    peer = peers.cuequivariance_attention(CHANNELS, HEADS, LMAX, small.edges, DEVICE)
    require(peers.as_rows(peer(*small.operands), LMAX, CHANNELS), small(*small.operands), 1e-4)
    return peers.cuequivariance_attention(CHANNELS, HEADS, LMAX, call.edges, DEVICE)


def _timed(call: Call, function: Any, step: str, roof: float, ours: bool) -> dict[str, Any]:
    function()
    found = milliseconds(function)
    moved, more = call.traffic()
    shares: dict[str, float] = {}
    if ours:
        shares = traffic.shares(moved[step], found["ms"], roof)
        gathered = traffic.shares(moved[step] + more[step], found["ms"], roof)
        shares["share_of_roof_gathered"] = gathered["share_of_roof"]
    return {**found, **shares, **memory_peak(function)}


if __name__ == "__main__":
    main()
