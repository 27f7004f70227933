"""Small frames, and a calculator whose labels follow from a formula and whose faults are chosen by the element."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdas.config.label import OracleConfig, parse_oracle
from sdas.data import Frame

CALCULATOR = '''
import os, signal, time
import numpy as np
from pathlib import Path
from ase.calculators.calculator import Calculator

class Spring(Calculator):
    """E = Σ r², F = −2 r. Notes every calculation in a file; elements choose faults."""
    implemented_properties = ["energy", "forces"]

    def __init__(self, log, seconds=0.0):
        super().__init__()
        self.log, self.seconds = Path(log), seconds

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        fault = atoms.get_chemical_symbols()[0]
        first = f"{fault} {atoms.positions[0, 0]}" not in self.log.read_text()
        with self.log.open("a") as file:
            file.write(f"{fault} {atoms.positions[0, 0]}\\n")
        time.sleep(3600 if fault == "He" else self.seconds)
        if fault == "Li" or (fault == "Be" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "B":
            raise ValueError("no boron here")
        r = atoms.positions * (np.nan if fault == "N" else 1.0)
        self.results = {"energy": (r**2).sum(), "forces": -2 * r}
'''


def frame_of(numbers: list[int], positions: object, source: str = "here") -> Frame:
    """A molecule."""
    return Frame(np.array(numbers), np.array(positions, dtype=float), None, np.zeros(3, bool), None, None, None, source)


@pytest.fixture
def molecule() -> Callable[..., Frame]:
    """`molecule(numbers, positions, source)`."""
    return frame_of


@pytest.fixture
def springs() -> Callable[..., list[Frame]]:
    """`springs(*numbers)`: a single atom of each element, at x = 1, 2, …"""

    def make(*numbers: int) -> list[Frame]:
        return [frame_of([number], [[index + 1.0, 0, 0]], f"frame {index}") for index, number in enumerate(numbers)]

    return make


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file in which the calculator notes what it computed."""
    path = tmp_path / "computed.txt"
    path.write_text("")
    return path


@pytest.fixture
def spring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path) -> OracleConfig:
    """The oracle of that calculator."""
    (tmp_path / "spring_calculator.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    return parse_oracle("ase:spring_calculator:Spring", {"arguments": {"log": str(log)}})
