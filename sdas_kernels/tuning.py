"""How large the blocks of Triton kernels are on a GPU, and by how many warps they run: a table that is measured once.

    python -m sdas_kernels.tuning

times the candidates of each operator on the GPU that is here and writes the fastest to a JSON file, under the name of
the GPU: $SDAS_KERNELS_TUNING, by default `sdas_kernels/tuning.json` in the user's cache folder. A process reads it when
it first launches a kernel; without it, or for a GPU that it does not name, the first candidate of each operator runs.

Every candidate sums in an order of its own that is the same in each run: results are repeatable to the bit for one
table, and differ by rounding between two.
"""

from __future__ import annotations

import json
import os
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Launch:
    """What a program works on at a time: bytes of an edge's tile (edge_softmax), channels (neighbor_tensor_product)."""

    size: int
    num_warps: int


CANDIDATES = {
    "edge_softmax": (Launch(1024, 1), Launch(512, 1), Launch(2048, 1), Launch(2048, 2), Launch(4096, 4)),
    "neighbor_tensor_product": (Launch(32, 1), Launch(64, 2), Launch(64, 1), Launch(128, 4)),
}
ATOMS, NEIGHBORS, CHANNELS, HEADS, LMAX, RADIAL, KEY_CHANNELS = 20_000, 40, 64, 32, 2, 8, 4
_forced: dict[str, Launch] = {}


def launch(op: str, device: torch.device) -> Launch:
    """What an operator's kernels run with on a device."""
    return _forced.get(op) or _table(device.type, device.index).get(op, CANDIDATES[op][0])


@contextmanager
def use(op: str, choice: Launch) -> Iterator[None]:
    """Run an operator's kernels with a choice inside a `with` block, in the whole process."""
    before = dict(_forced)
    _forced[op] = choice
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def path() -> Path:
    """Of the table."""
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SDAS_KERNELS_TUNING") or cache_folder / "sdas_kernels" / "tuning.json")


def tune(measure: Callable[[str, Launch], float], device_name: str) -> dict[str, Launch]:
    """Write the candidate of each operator for which `measure` gives the fewest seconds; infinity rules one out."""
    best = {op: min(choices, key=lambda choice: measure(op, choice)) for op, choices in CANDIDATES.items()}
    tables = _read() | {device_name: {op: asdict(choice) for op, choice in best.items()}}
    path().parent.mkdir(parents=True, exist_ok=True)
    part = path().with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(tables, indent=1) + "\n")
    part.replace(path())  # a process that reads meanwhile sees the old table or the new one
    _table.cache_clear()
    return best


@cache
def _table(kind: str, index: int | None) -> dict[str, Launch]:
    if kind != "cuda":
        return {}
    rows = _read().get(torch.cuda.get_device_name(index), {})
    found = {op: Launch(**rows[op]) for op in CANDIDATES if op in rows}
    return {op: choice for op, choice in found.items() if choice in CANDIDATES[op]}


def _read() -> dict[str, Any]:
    try:
        tables = json.loads(path().read_text())
        if not isinstance(tables, dict):
            raise ValueError("not a table")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"sdas_kernels: {path()} is not used: {error}", stacklevel=2)
        return {}
    return tables


def on_gpu(op: str, choice: Launch) -> float:
    """Seconds of forward, backward and double backward of an operator on a random graph in float32."""
    calls = _calls(op, torch.device("cuda"), ATOMS)
    try:
        with use(op, choice):
            return sum(_seconds(call) for call in calls)
    except Exception as error:  # a candidate that this GPU cannot run is no candidate
        print(f"{op} {choice}: {type(error).__name__}: {error}")
        return float("inf")


def _seconds(call: Callable[[], Any]) -> float:
    for _ in range(3):
        call()
    found = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def _calls(op: str, device: torch.device, atoms: int) -> list[Callable[[], Any]]:
    """The derivative ladder of an operator's Triton kernels, on atoms that see others near them in memory."""
    from importlib import import_module

    from sdas_kernels.graph import EdgeIndex
    from sdas_kernels.paths import Paths

    random = torch.Generator().manual_seed(0)
    receivers = torch.arange(atoms).repeat_interleave(NEIGHBORS)
    near = torch.randint(-min(500, atoms // 2), min(500, atoms // 2) + 1, receivers.shape, generator=random)
    index = [t.to(device) for t in EdgeIndex.from_pairs(receivers, (receivers + near) % atoms, atoms).tensors()]
    edges, rows = len(receivers), (LMAX + 1) ** 2
    paths = Paths(LMAX, LMAX, LMAX)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "edge_softmax": [
            (atoms, HEADS, KEY_CHANNELS + rows + RADIAL),
            (atoms, HEADS, KEY_CHANNELS),
            (atoms, HEADS),
            (edges, rows),
            (edges, RADIAL),
            (edges,),
        ],
        "neighbor_tensor_product": [
            (edges, HEADS),
            (edges, RADIAL),
            (HEADS, LMAX + 1, RADIAL),
            (atoms, rows, CHANNELS),
            (edges, rows),
        ],
    }
    result = (edges, HEADS) if op == "edge_softmax" else (atoms, paths.rows, CHANNELS)
    end: tuple[Any, ...] = (index,) if op == "edge_softmax" else (index, LMAX, True)
    drawn = [torch.rand(shape, generator=random).to(device) for shape in shapes[op]]
    grad = torch.rand(result, generator=random).to(device)
    kernels = import_module(f"sdas_kernels.ops.{op}.triton")
    return [
        lambda: kernels.forward(*drawn, *end),
        lambda: kernels.backward(grad, *drawn, *end),
        lambda: kernels.double_backward(*drawn, grad, *drawn, *end),
    ]


def main() -> None:
    """Tune for the GPU that is here."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to tune")
        return

    def measure(op: str, choice: Launch) -> float:
        seconds = on_gpu(op, choice)
        print(f"{op} {choice}: {1e3 * seconds:.4g} ms", flush=True)
        return seconds

    print(tune(measure, torch.cuda.get_device_name()), "->", path())


if __name__ == "__main__":  # the module that kernels import, not this second copy of it
    from sdas_kernels import tuning

    tuning.main()
