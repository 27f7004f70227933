"""Train one cell in this process: `python -m apr.worker CELL.json FRAMES.npz RESULT.json`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from apr.trainers import loop


def main() -> None:
    """The result is written whole or not at all."""
    cell, frames, target = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    module = importlib.import_module(f"apr.trainers.{cell['model']}")
    own = getattr(module, "train", None)
    result = own(cell, frames) if own is not None else loop.train(module.build, cell, frames)
    result["packages"] = {name: _version(name) for name in ("torch", *result["packages"])}
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps({"cell": cell, **result}, indent=1) + "\n")
    partial.replace(target)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of this tree"


if __name__ == "__main__":
    main()
