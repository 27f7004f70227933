"""What a simulation has made so far, in a file beside its result, so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdas.config.simulate import SimulationConfig
from sdas.documents import read_document, write_document
from sdas.errors import SimulationError
from sdas.simulate.molecule import Molecule
from sdas.simulate.sampling import Sampler

SECONDS = 10.0
"""Between two writings, at least."""
PART = 0.05
"""Of the time that writing may take."""


@dataclass
class Made:
    """samples: of each frame its positions and facts, and with labels energy and forces. dropped: reason → number."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def fingerprint(molecule: Molecule, config: SimulationConfig, labels: bool) -> str:
    """Of all that frames depend on, but for how many there are."""
    facts = {
        "settings": config.model_dump(exclude={"frames"}),
        "numbers": molecule.numbers.tolist(),
        "conformers": [conformer.tolist() for conformer in molecule.conformers],
        "state": [molecule.charge, molecule.spin],
        "labels": labels,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Kept:
    """The file of a simulation with that fingerprint."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self._next = time.monotonic() + SECONDS

    def restore(self, made: Made, sampler: Sampler) -> bool:
        """Take up what was made, if there is something; what other settings made is told and left.

        Raises :class:`SimulationError` for a file that is damaged.
        """
        if not self.path.exists():
            return False
        content = read_document(self.path, SimulationError, "remove it to begin anew")
        if content["fingerprint"] != self.fingerprint:
            print(f"note: {self.path} is of other settings and will be written over", file=sys.stderr)
            return False
        made.samples = [
            {name: np.array(value) if name in ("positions", "forces") else value for name, value in row.items()}
            for row in content["samples"]
        ]
        made.dropped.update(content["dropped"])
        sampler.restore(content["sampler"])
        print(f"note: goes on from {len(made.samples)} frames that an interrupted command made", file=sys.stderr)
        return True

    def save_at_times(self, made: Made, sampler: Sampler) -> None:
        """Write what was made, unless it was just written."""
        began = time.monotonic()
        if began < self._next:
            return
        samples = [
            {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
            for row in made.samples
        ]
        content = {"fingerprint": self.fingerprint, "samples": samples, "dropped": dict(made.dropped)}
        write_document(self.path, {**content, "sampler": sampler.state()})
        now = time.monotonic()
        self._next = now + max(SECONDS, (now - began) / PART)
