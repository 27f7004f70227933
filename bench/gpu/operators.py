"""Spherical harmonics and tensor products on a GPU, beside e3nn, cuequivariance and OpenEquivariance where they are.

Claims: the harmonics run at 80 % of the copy rate; a convolution's products at 60 %.

    harmonics    lmax 1 to 8, up to a million vectors
    product      convolutions of NequIP's and MACE's sizes, one weight per edge, path and channel

Run: `python -m gpu.operators [PART ...]` with this folder's parent on the path, or `bench/gpu_node.sh`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench_tensor_product import convolution
from gpu import peers, traffic
from gpu.measure import DEVICE, DRY, Report, chosen, copy_rate, end, ladder, memory_peak, milliseconds, require

import sdas_kernels as sk

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
PRECISIONS = (torch.float32, torch.float64)
Rivals = dict[str, Callable[[], Any]]


def compare(
    report: Report, make: Rivals, operands: list[torch.Tensor], roof: float, check: Callable[..., Any], **row: Any
) -> None:
    """Each rival's ladder; ours comes first and counts, the others may be absent."""
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
                    moved = traffic.ladder(operands, result, [])[step]
                    found |= traffic.shares(moved, found["ms"], roof)
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
                    "cuequivariance": lambda n=lmax: peers.cuequivariance_harmonics(n, DEVICE),
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

            def check(name: str, function: Any, few: Any = few, exact: Any = exact, d: Any = dtype) -> Any:
                if name != "cuequivariance":  # whose layout and order of paths are its own
                    return require(function(*few), exact, 1e-5 if d == torch.float32 else 1e-12)

            make: Rivals = {
                "ours": lambda m=ours: m,
                "e3nn": lambda m=theirs: m,
                "cuequivariance": lambda m=ours: peers.cuequivariance_product(m, DEVICE),
                "openequivariance": lambda m=ours, d=dtype: peers.openequivariance_product(m, d),
            }
            row = {"what": "product", "case": case, "edges": EDGES, "dtype": str(dtype)[6:]}
            compare(report, make, operands, roof, check, **row)


def main() -> None:
    parts = chosen("harmonics", "product")
    packages = ("e3nn", "cuequivariance-ops-torch-cu13", "openequivariance")
    roof = copy_rate()
    for name, run in {"harmonics": harmonics, "product": product}.items():
        if name in parts:
            report = Report(name, "milliseconds; shares of the copy rate", packages)
            report.case(lambda: {"copy_gb_per_s": round(roof / 1e9, 1)}, what="roof")
            run(report, roof)
    end()


if __name__ == "__main__":
    main()
