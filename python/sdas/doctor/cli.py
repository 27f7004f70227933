"""`sdas doctor`: what runs here, and how fast."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sdas.errors import SdasError


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    timings: Annotated[bool, typer.Option("--timings/--no-timings", help="Time every operator.")] = True,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default every kind that is here.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
) -> None:
    """Say what is installed, which kernels run here and why, and time every operator."""
    import torch
    from tqdm import tqdm

    import sdas_kernels as sk
    from sdas.doctor import Timing, describe_machine, describe_native, describe_versions, is_busy, time_ops
    from sdas.doctor.text import facts, timing_table
    from sdas_kernels import dispatch

    if dtype not in ("float32", "float64"):
        raise SdasError(f"--dtype must be float32 or float64, got {dtype!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SdasError("--device cuda: PyTorch sees no GPU here")
    if device not in (None, "cpu", "cuda"):
        raise SdasError(f"--device must be cpu or cuda, got {device!r}")
    kind = getattr(torch, dtype)
    devices = [device] if device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "native": describe_native(),
        "backends": [row for name in devices for row in sk.explain(name, kind)],
    }
    if not as_json:
        typer.echo("\n\n".join(facts(title, found[title]) for title in ("machine", "versions", "native")))
        typer.echo("\nbackends\n" + "\n".join(str(sk.explain(name, kind)) for name in devices))
    if timings:
        measured: list[Timing] = []
        pairs = [(name, op) for name in devices for op in dispatch.ops()]
        with tqdm(total=len(pairs), desc="timing", unit="op", disable=as_json, leave=False) as bar:
            for name, op in pairs:
                measured.extend(time_ops(name, kind, [op]))
                bar.update()
        found["timings"] = [timing.row() for timing in measured]
        if not as_json:
            typer.echo("\ntimings, median milliseconds; * is the backend in use\n" + timing_table(measured))
            if is_busy(found["machine"]):
                typer.echo("\nother processes kept the cores busy: these times are too long")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
