"""One model in a process of its own, which takes a step whenever it is asked to.

    PYTHONPATH=bench python -m peers.worker nequip

Requests and answers are JSON objects, one per line: {"do": "build", ...the fields of Settings}, {"do": "load", "path":
...}, {"do": "check"}, {"do": "step"}, {"do": "memory"}. An answer with "error" tells why a request failed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from peers.memory import peak_growth
from peers.model import Model, Settings


class Worker:
    """Answers requests; each public method is one."""

    def __init__(self, adapter: str) -> None:
        self.adapter = importlib.import_module(f"peers.{adapter}")
        self.settings: Settings
        self.model: Model
        self.system: Any = None
        self.atoms = 0

    def build(self, **settings: Any) -> dict[str, Any]:
        """Build the model: seconds, number of parameters, versions."""
        start = time.perf_counter()
        self.settings = Settings(**settings)
        self.model = self.adapter.build(self.settings)
        packages = dict.fromkeys(("torch", *self.model.packages))
        return {
            "seconds": time.perf_counter() - start,
            "parameters": self.model.parameters,
            "versions": {name: version(name) for name in packages},
        }

    def load(self, path: str) -> dict[str, Any]:
        """Take up a system."""
        with np.load(path) as arrays:
            found = dict(arrays)
        self.atoms = len(found["numbers"])
        self.system = self.model.load(found)
        return {"atoms": self.atoms, "edges": len(found["senders"])}

    def step(self, least: float = 0.0) -> dict[str, Any]:
        """Steps one after the other, as in a simulation, until `least` seconds have passed; the mean of one.

        Seconds on the clock, and of processors, which a busy machine disturbs less.
        """
        wall, processors, steps = time.perf_counter(), time.process_time(), 0
        while steps == 0 or time.perf_counter() - wall < least:
            self.model.step(self.system)
            steps += 1
        return {
            "seconds": (time.perf_counter() - wall) / steps,
            "cpu_seconds": (time.process_time() - processors) / steps,
            "steps": steps,
        }

    def check(self) -> dict[str, Any]:
        """A first step, with whatever compiling it brings, and whether its numbers make sense."""
        start = time.perf_counter()
        result = [t.detach().double() for t in self.model.step(self.system)]
        seconds = time.perf_counter() - start
        if not all(bool(torch.isfinite(t).all()) for t in result):
            raise ValueError("a result is not finite")
        if self.settings.step == "training":
            (gradient,) = result
            if gradient.numel() != self.model.parameters:
                raise ValueError(f"{gradient.numel()} gradients for {self.model.parameters} parameters")
            return {"seconds": seconds, "gradient_norm": gradient.norm().item()}
        energies, forces = result
        if forces.shape != (self.atoms, 3) or not forces.abs().max() > 0:
            raise ValueError(f"forces have shape {list(forces.shape)} and largest value {forces.abs().max().item()}")
        net = (forces.sum(0).abs().max() / forces.abs().sum()).item()
        if net > 1e-4:
            raise ValueError(f"the forces add up to {net:.1e} of the sum of their magnitudes")
        return {"seconds": seconds, "energy": energies.sum().item()}

    def memory(self) -> dict[str, Any]:
        """Bytes that one step needs beyond what is held before it."""
        return {"bytes": peak_growth(lambda: self.model.step(self.system))}


def main() -> None:
    # What libraries print goes to stderr, so that the answers stay alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        try:
            answer = getattr(worker, do)(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
