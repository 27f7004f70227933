"""Spherical harmonics, tensor products and their convolution on a GPU, beside e3nn, cuequivariance and OpenEquivariance
where they are.

Claims: the harmonics run at 80 % of the copy rate; products and convolutions at 60 %.

    harmonics      lmax 1 to 8, up to a million vectors
    product        of NequIP's and MACE's sizes, one weight per edge, path and channel
    convolution    the same between a gather and a sum over 40 neighbors; also edge by edge, by our product

Run: `python -m gpu.operators [PART ...]` with this folder's parent on the path, or `bench/gpu_node.sh`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench_tensor_product import convolution
from gpu import peers, traffic
from gpu.measure import DEVICE, DRY, Report, chosen, copy_rate, end, ladder, memory_peak, milliseconds, require
from peers import cuequivariance_products

import sdas_kernels as sk
from sdas_kernels import segment
from sdas_kernels.graph import EdgeIndex

VECTORS = (100,) if DRY else (10_000, 1_000_000)
DEGREES = (1, 3) if DRY else range(1, 9)
CONVOLUTIONS: dict[str, tuple[Any, ...]] = {
    "32 channels, lmax 2": (32, 2),
    "64 channels, lmax 2": (64, 2),
    "64 channels, lmax 3": (64, 3),
    "MACE-large": (128, 2, 3, False),
}
if DRY:
    CONVOLUTIONS = {"2 channels, lmax 1": (2, 1)}
EDGES = 20 if DRY else 50_000
NEIGHBORS = 4 if DRY else 40
PRECISIONS = (torch.float32, torch.float64)
Rivals = dict[str, Callable[[], Any]]


def compare(
    report: Report,
    make: Rivals,
    operands: list[torch.Tensor],
    roof: float,
    check: Callable[..., Any],
    graph: EdgeIndex | None = None,
    **row: Any,
) -> None:
    """Each rival's ladder; ours comes first and counts, the others may be absent. With a graph, the first operand and
    the result are of its nodes."""
    for name, factory in make.items():
        steps: dict[str, Any] = {}
        for step in traffic.STEPS:

            def measured(
                name: str = name, step: str = step, factory: Any = factory, steps: Any = steps
            ) -> dict[str, Any]:
                found: dict[str, Any] = {}
                if not steps:
                    function = factory()
                    found = check(name, function) or {}
                    steps |= ladder(function, operands)
                steps[step]()
                found |= milliseconds(steps[step])
                if name == "ours":
                    result = steps["forward"]()
                    moved = traffic.ladder(operands, result, graph.tensors() if graph else [])[step]
                    found |= traffic.shares(moved, found["ms"], roof)
                    if graph:
                        moved += traffic.gathered(operands[:1], [], result, graph.num_edges)[step]
                        gathered = traffic.shares(moved, found["ms"], roof)
                        found["share_of_roof_gathered"] = gathered["share_of_roof"]
                return found | memory_peak(steps[step])

            report.case(measured, optional=name != "ours", rival=name, step=step, **row)


def harmonics(report: Report, roof: float) -> None:
    for count in VECTORS:
        for lmax in DEGREES:
            for dtype in PRECISIONS if lmax in (2, 4) or DRY else PRECISIONS[:1]:
                vectors = torch.randn(count, 3, dtype=dtype, device=DEVICE)
                few = vectors[:1000]
                with sk.use_backend("reference"):
                    exact = sk.spherical_harmonics(few.double().cpu(), lmax)

                def check(name: str, function: Any, few: Any = few, exact: Any = exact) -> dict[str, float]:
                    return require(function(few), exact, 1e-5 if few.dtype == torch.float32 else 1e-12)

                make: Rivals = {
                    "ours": lambda n=lmax: lambda v: sk.spherical_harmonics(v, n),
                    "e3nn": lambda n=lmax: peers.e3nn_harmonics(n, DEVICE),
                    "cuequivariance": lambda n=lmax, d=dtype: peers.cuequivariance_harmonics(n, d, DEVICE),
                }
                row = {"what": "harmonics", "lmax": lmax, "count": count, "dtype": str(dtype)[6:]}
                compare(report, make, [vectors], roof, check, **row)


def product(report: Report, roof: float) -> None:
    from e3nn import o3

    options = {"shared_weights": False, "internal_weights": False}
    for case, arguments in CONVOLUTIONS.items():
        for dtype in PRECISIONS:
            torch.set_default_dtype(dtype)
            x, y, out, paths = convolution(*arguments)
            ours = sk.nn.TensorProduct(x, y, out, paths, **options).to(DEVICE)
            theirs = o3.TensorProduct(x, y, out, paths, **options).to(DEVICE)
            torch.set_default_dtype(torch.float32)
            shapes = (ours.irreps_in1.dim, ours.irreps_in2.dim, ours.weight_numel)
            operands = [torch.randn(EDGES, size, dtype=dtype, device=DEVICE) for size in shapes]
            few = [t[:50] for t in operands]
            with sk.use_backend("reference"):
                exact = ours(*few)

            def check(
                name: str, function: Any, few: Any = few, exact: Any = exact, d: Any = dtype, m: Any = ours
            ) -> dict[str, float] | None:
                if name == "cuequivariance":
                    if not cuequivariance_products.has_counterpart(m):
                        return None
                    function = cuequivariance_products.as_ours(m, function)
                return require(function(*few), exact, 1e-5 if d == torch.float32 else 1e-12)

            make: Rivals = {
                "ours": lambda m=ours: m,
                "e3nn": lambda m=theirs: m,
                "cuequivariance": lambda m=ours, d=dtype: peers.cuequivariance_product(m, d, DEVICE),
                "openequivariance": lambda m=ours, d=dtype: peers.openequivariance_product(m, d),
            }
            row = {"what": "product", "case": case, "edges": EDGES, "dtype": str(dtype)[6:]}
            compare(report, make, operands, roof, check, **row)


def neighbors() -> EdgeIndex:
    """Atoms that see others near them in memory."""
    atoms, random = EDGES // NEIGHBORS, torch.Generator().manual_seed(0)
    receivers = torch.arange(atoms).repeat_interleave(NEIGHBORS)
    near = torch.randint(-atoms // 4, atoms // 4 + 1, receivers.shape, generator=random)
    edges = EdgeIndex.from_pairs(receivers, (receivers + near) % atoms, atoms)
    return EdgeIndex(*(t.to(DEVICE) for t in edges.tensors()))


def gather_and_sum(
    module: Callable[..., torch.Tensor], edges: EdgeIndex, in_order: bool
) -> Callable[..., torch.Tensor]:
    """A convolution by a product of every edge; its sum in the order of edges or by atomic additions."""
    index = edges.tensors()

    def convolve(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if in_order:
            messages = module(segment.gather(x, segment.senders(index)), y, weight)
            return segment.segment_sum(messages, segment.receivers(index), len(x))
        messages = module(x[edges.senders], y, weight)
        return messages.new_zeros(len(x), messages.shape[1]).index_add(0, edges.receivers, messages)

    return convolve


def convolutions(report: Report, roof: float) -> None:
    from e3nn import o3

    edges, first = neighbors(), next(iter(CONVOLUTIONS.values()))
    options = {"shared_weights": False, "internal_weights": False}
    for case, arguments in CONVOLUTIONS.items():
        for dtype in PRECISIONS if arguments == first else PRECISIONS[:1]:
            torch.set_default_dtype(dtype)
            x, y, out, paths = convolution(*arguments)
            ours, product = sk.nn.TensorProductConv(x, y, out, paths), sk.nn.TensorProduct(x, y, out, paths, **options)
            theirs = o3.TensorProduct(x, y, out, paths, **options).to(DEVICE)
            torch.set_default_dtype(torch.float32)
            rows = edges.num_nodes, edges.num_edges, edges.num_edges
            sizes = ours.irreps_in1.dim, ours.irreps_in2.dim, ours.weight_numel
            operands = [torch.randn(shape, dtype=dtype, device=DEVICE) for shape in zip(rows, sizes, strict=True)]
            with sk.use_backend("reference"):
                exact = gather_and_sum(product.to(DEVICE), edges, True)(*(t.double() for t in operands))

            def check(name: str, function: Any, given: Any = operands, exact: Any = exact, d: Any = dtype) -> Any:
                return require(function(*given), exact, 1e-5 if d == torch.float32 else 1e-12)

            make: Rivals = {
                "ours": lambda m=ours: lambda *o: m(*o, edges),
                "edge by edge": lambda m=product: gather_and_sum(m, edges, True),
                "e3nn": lambda m=theirs: gather_and_sum(m, edges, False),
                "openequivariance": lambda m=ours, d=dtype: peers.openequivariance_convolution(m, d, edges),
            }
            row = {"what": "convolution", "case": case, "edges": EDGES, "dtype": str(dtype)[6:]}
            compare(report, make, operands, roof, check, graph=edges, **row)


def main() -> None:
    parts = chosen("harmonics", "product", "convolution")
    packages = ("e3nn", "cuequivariance-ops-torch-cu13", "openequivariance")
    roof = copy_rate()
    for name, run in {"harmonics": harmonics, "product": product, "convolution": convolutions}.items():
        if name in parts:
            report = Report(name, "milliseconds; shares of the copy rate", packages)
            report.case(lambda: {"copy_gb_per_s": round(roof / 1e9, 1)}, what="roof")
            run(report, roof)
    end()


if __name__ == "__main__":
    main()
