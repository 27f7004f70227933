"""`sdas data info` over files that ASE writes: right values, or one line of ours that names the file.

Every format that ASE both writes and reads, plain; and the formats that keep any key, with names of labels, names of
units and unit words drawn at random.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import ioformats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sdas.data import Frame, read_frames
from sdas.data.cli import app
from sdas.data.units import BOHR, GPA, HARTREE, KCAL_PER_MOL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

_spec = importlib.util.spec_from_file_location("foreign_files", Path(__file__).with_name("foreign_files.py"))
foreign = importlib.util.module_from_spec(_spec)
sys.modules["foreign_files"] = foreign
_spec.loader.exec_module(foreign)

SERVERS = ("mysql", "postgresql")
FORMATS = sorted(name for name, f in ioformats.items() if f.can_read and f.can_write and name not in SERVERS)
STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "a molecule": lambda: molecule("H2O"),
    "a molecule in a box": lambda: molecule("H2O", vacuum=4, pbc=True),
    "a crystal": lambda: bulk("NaCl", "rocksalt", a=5.64),
    "a cubic cell": lambda: bulk("Cu", cubic=True),
    "a slab": lambda: fcc111("Al", (2, 2, 2), vacuum=5),
}
ENERGY = -3.25
STRESS = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, -0.03]])
VOIGT = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def forces_on(atoms: Atoms) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(atoms)).normal(size=(len(atoms), 3))


def frame_or_refusal(path: Path, *arguments: str) -> Frame | str:
    """The first frame of a file that ``sdas data info`` accepts, or the one line with which it refuses."""
    outcome = summary_or_refusal(path, *arguments)
    if outcome.startswith("error: "):
        return outcome
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    return next(read_frames(path, options.get("--format"), units=options.get("--units"), require=()))


def summary_or_refusal(path: Path, *arguments: str) -> str:
    """What ``sdas data info`` prints of a file, or the one line with which it refuses."""
    result = CliRunner().invoke(app, ["info", str(path), *arguments])
    if result.exit_code == 0:
        return result.stdout
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert str(path) in lines[0]
    return lines[0]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_what_ase_reads_from_it_or_a_refusal(tmp_path: Path, name: str) -> None:
    written = 0
    for kind, make in STRUCTURES.items():
        atoms = make()
        results = {"energy": ENERGY, "forces": forces_on(atoms)}
        atoms.calc = SinglePointCalculator(atoms, **results, **({"stress": VOIGT} if atoms.pbc.all() else {}))
        path = tmp_path / kind.replace(" ", "_")
        try:
            ase.io.write(path, atoms, format=name)
            truth = ase.io.read(path, format=name)
        except Exception:  # ASE does not write every structure in every format, nor read all that it writes
            continue
        written += 1
        for units in ((), ("--units", "eV"), ("--units", "kcal/mol")):
            frame = frame_or_refusal(path, "--format", f"ase:{name}", *units)
            if isinstance(frame, Frame) and name != "runnerdata":
                factor = KCAL_PER_MOL if units[-1:] == ("kcal/mol",) else 1.0
                held_to_ase(frame, truth, factor)
    if not written:
        pytest.skip(f"ASE itself reads nothing of what it writes as {name} here")


def held_to_ase(frame: Frame, truth: Atoms, factor: float) -> None:
    """The labels that ASE reads are there, and those that it does not are not; ``factor`` eV to their unit."""
    results = truth.calc.results if truth.calc is not None else {}
    np.testing.assert_array_equal(frame.numbers, truth.numbers)
    np.testing.assert_allclose(frame.positions, truth.positions)
    assert (frame.energy is not None) == ("energy" in results)
    assert (frame.forces is not None) == ("forces" in results)
    if frame.energy is not None:
        assert frame.energy == pytest.approx(results["energy"] * factor, rel=1e-12)
        assert frame.energy == pytest.approx(ENERGY * factor, rel=1e-6)
    if frame.forces is not None:
        np.testing.assert_allclose(frame.forces, results["forces"] * factor)
        np.testing.assert_allclose(frame.forces, forces_on(truth) * factor, atol=1e-5)
    if frame.stress is not None:
        np.testing.assert_allclose(frame.stress, STRESS * factor, atol=1e-6)


ENERGY_WORDS = {"eV": 1.0, "hartree": HARTREE, "Ha": HARTREE, "kcal/mol": KCAL_PER_MOL, "meV": 1e-3, "zorkmid": None}
FORCE_WORDS = {"eV/Å": 1.0, "hartree/bohr": HARTREE / BOHR, "kcal/(mol A)": KCAL_PER_MOL, "eV/Ang": 1.0, "N/m": None}
STRESS_WORDS = {"GPa": GPA, "-kbar": -0.1 * GPA, "bar": 1e-4 * GPA, "eV/A^3": 1.0, "eV/Ang**3": 1.0, "psi": None}
LENGTH_WORDS = {"Å": 1.0, "Ang": 1.0, "bohr": BOHR, "nm": 10.0, "parsec": None}
ASKED = {
    "eV": (1.0, 1.0, 1.0),
    "kcal/mol": (KCAL_PER_MOL, 1.0, KCAL_PER_MOL),
    "Ha,bohr": (HARTREE, BOHR, HARTREE / BOHR),
}


def any_case(*names: str) -> st.SearchStrategy[str]:
    changes = st.sampled_from([str, str.lower, str.upper, str.title, str.capitalize])
    return st.builds(lambda name, change: change(name), st.sampled_from(names), changes)


def unit_of(*quantities: str) -> st.SearchStrategy[str]:
    ends = ("_unit", "-unit", "_units", "-units")
    return any_case(*(f"{quantity}{end}" for quantity in quantities for end in ends))


@dataclass
class Case:
    """A file to write: names of its labels, units as key and word, and what is asked for on the command line."""

    suffix: str
    energy: str
    forces: str
    stress: str
    units: dict[str, tuple[str, str]]
    asked: str | None
    twice: str | None
    apart: bool

    def factor(self, quantity: str, words: dict[str, float | None]) -> float | None:
        """Of the unit that values are stored in: as the file declares or as is asked for, else by convention."""
        if quantity in self.units:
            return words[self.units[quantity][1]]
        if self.asked is None and "energy" in self.units:
            energy = ENERGY_WORDS[self.units["energy"][1]]
            length = LENGTH_WORDS[self.units["length"][1]] if "length" in self.units else 1.0
            power = {"energy": 0, "length": 0, "force": 1, "stress": 3}[quantity]
            return None if energy is None or length is None else energy / length**power if quantity != "length" else 1.0
        energy, length, force = ASKED[self.asked or "eV"]
        return {"energy": energy, "length": length, "force": force, "stress": energy / length**3}[quantity]


CASES = st.builds(
    Case,
    suffix=st.sampled_from(["xyz", "db", "json"]),
    energy=any_case("energy", "REF_energy", "dft-energy", "energy_dft", "TotEnergy", "MACE_energy"),
    forces=any_case("forces", "force", "REF_forces", "dft_force", "forces_dft", "MACE_forces"),
    stress=any_case("stress", "REF_stress", "virials", "REF-virial", "dft_virial", "MACE_stress"),
    units=st.fixed_dictionaries(
        {},
        optional={
            "energy": st.tuples(unit_of("energy"), st.sampled_from(list(ENERGY_WORDS))),
            "force": st.tuples(unit_of("force", "forces"), st.sampled_from(list(FORCE_WORDS))),
            "stress": st.tuples(unit_of("stress"), st.sampled_from(list(STRESS_WORDS))),
            "length": st.tuples(unit_of("length", "position", "positions"), st.sampled_from(list(LENGTH_WORDS))),
        },
    ),
    asked=st.one_of(st.none(), st.none(), st.sampled_from(list(ASKED))),
    twice=st.sampled_from([None, None, "reference_energy_dft", "Dft_Energy", "ref_energy"]),
    apart=st.booleans(),
)


def stored(case: Case, factors: dict[str, float]) -> tuple[Atoms, dict[str, Any]]:
    """The structure and every other value of the file, in its units; a virial is an energy."""
    atoms = bulk("Cu", cubic=True)
    volume = atoms.get_volume()
    virial = "virial" in case.stress.lower()
    tension = -STRESS * volume / factors["energy"] if virial else STRESS / factors["stress"]
    values = {
        case.energy: ENERGY / factors["energy"],
        case.forces: forces_on(atoms) / factors["force"],
        case.stress: tension,
        **dict(case.units.values()),
    }
    if case.twice is not None and case.twice not in values:
        values[case.twice] = (ENERGY + case.apart) / factors["energy"]
    atoms.set_cell(atoms.cell.array / factors["length"], scale_atoms=True)
    return atoms, values


def write(case: Case, folder: Path, factors: dict[str, float]) -> Path:
    path = folder / f"a.{case.suffix}"
    atoms, values = stored(case, factors)
    if case.suffix == "xyz":
        atoms.set_array(case.forces, values.pop(case.forces))
        atoms.info.update(values)
        ase.io.write(path, atoms, format="extxyz")
    else:
        with ase.db.connect(path) as database:
            database.write(atoms, data=values)
    return path


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_names_and_units_in_any_spelling_give_right_values_or_a_refusal(case: Case) -> None:
    words = {"energy": ENERGY_WORDS, "force": FORCE_WORDS, "stress": STRESS_WORDS, "length": LENGTH_WORDS}
    known = {quantity: case.factor(quantity, table) for quantity, table in words.items()}
    factors = {quantity: 1.0 if factor is None else factor for quantity, factor in known.items()}
    folder = Path(tempfile.mkdtemp(prefix="sdas_fuzz_"))
    try:
        path = write(case, folder, factors)
        frame = frame_or_refusal(path, *(("--units", case.asked) if case.asked else ()))
    finally:
        shutil.rmtree(folder)
    if isinstance(frame, Frame):
        used = set(case.units) - ({"stress"} if "virial" in case.stress.lower() else set())
        assert case.asked or None not in [known[quantity] for quantity in used], case
        crystal = bulk("Cu", cubic=True)
        np.testing.assert_allclose(frame.positions, crystal.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell, crystal.cell.array, atol=1e-7)
        better = case.twice is not None and "mace" in case.energy.lower()
        assert frame.energy == pytest.approx(ENERGY + (better and case.apart), rel=1e-9)
        np.testing.assert_allclose(frame.forces, forces_on(crystal), atol=1e-6)
        np.testing.assert_allclose(frame.stress, STRESS, atol=1e-8)
    elif not case.units and case.asked is None:
        assert case.twice is not None, (case, frame)
        assert case.apart, (case, frame)


@pytest.mark.parametrize("file", foreign.FOREIGN, ids=lambda file: file.name)
def test_files_of_other_programs_with_any_bytes_changed_are_read_or_refused_in_one_line(tmp_path: Path, file) -> None:
    path = file.write(tmp_path / file.name)
    flags = [word for name, value in file.options.items() for word in (f"--{name.replace('_', '-')}", value)]
    part = path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content, rng = part.read_bytes(), np.random.default_rng(5)
    for _ in range(15):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            changed[place] = int(rng.integers(0, 256))
        part.write_bytes(bytes(changed))
        outcome = summary_or_refusal(path, *flags)
        assert "error: " in outcome or "frames: " in outcome
