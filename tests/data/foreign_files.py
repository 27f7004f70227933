"""Small files of formats that other programs write, made by hand or by independent writers, with what they hold.

Two frames of a water molecule in a box of 9 × 10 × 11 Å. Numbers in files are worked out with ASE's constants.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree, kJ, mol

NUMBERS = [8, 1, 1]
SYMBOLS = ["O", "H", "H"]
CELL = np.array([[9.0, 0.0, 0.0], [0.5, 10.0, 0.0], [0.25, 0.125, 11.0]])
VOLUME = 9.0 * 10.0 * 11.0
_STILL = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]) + 4.0
POSITIONS = np.stack([_STILL, _STILL + np.diag([0.01, 0.02, -0.03])])
ENERGIES = np.array([-14.25, -14.5])
FORCES = np.array([[0.5, -0.25, 0, -0.5, 0.125, 1, 0, 0.125, -1], [0.25, 0, 0.5, 0, 0.5, 0, -0.25, -0.5, -0.5]])
FORCES = FORCES.reshape(2, 3, 3)
STRESS = np.array([[0.004, 0.001, 0.002], [0.001, -0.003, 0.0005], [0.002, 0.0005, 0.001]])
"""eV/Å³, with ASE's sign."""
PER_GPA = 160.21766208
"""GPa of one eV/Å³."""
HARTREE_PER_BOHR = Hartree / Bohr
KJ = kJ / mol


@dataclass(frozen=True)
class Foreign:
    """write: makes the file or folder at a path and returns what is to be read. format: its reader. options: those that
    reading needs. has: labels. periodic: whether it has the cell. tolerance: of positions, energies and forces."""

    name: str
    format: str
    write: Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=dict)
    has: tuple[str, ...] = ("energy", "forces")
    periodic: bool = True
    tolerance: float = 1e-9


def words(values: Any) -> str:
    """The numbers in ``values`` as text that holds every digit."""
    return " ".join(map(repr, np.asarray(values, dtype=float).ravel().tolist()))


def mtp(path: Path) -> Path:
    blocks = []
    v = -STRESS * VOLUME
    virial = words([v[0, 0], v[1, 1], v[2, 2], v[1, 2], v[0, 2], v[0, 1]])
    cell = "".join(f"  {words(row)}\n" for row in CELL)
    for r, f, e in zip(POSITIONS, FORCES, ENERGIES, strict=True):
        rows = "".join(f"  {i + 1} {[0, 1, 1][i]} {words(r[i])} {words(f[i])}\n" for i in range(3))
        blocks.append(
            f"BEGIN_CFG\n Size\n    3\n Supercell\n{cell}"
            f" AtomData:  id type  cartes_x  cartes_y  cartes_z  fx  fy  fz\n{rows} Energy\n    {e}\n"
            f" PlusStress:  xx  yy  zz  yz  xz  xy\n    {virial}\n Feature   EFS_by   VASP\nEND_CFG\n\n"
        )
    path.write_text("".join(blocks))
    return path


def mlearn(path: Path) -> Path:
    kbar = -STRESS * PER_GPA * 10
    order = [kbar[0, 0], kbar[1, 1], kbar[2, 2], kbar[0, 1], kbar[1, 2], kbar[0, 2]]
    items = []
    for r, f, e in zip(POSITIONS, FORCES, ENERGIES, strict=True):
        fractional = np.linalg.solve(CELL.T, r.T).T
        sites = [
            {"species": [{"element": s, "occu": 1}], "abc": a.tolist(), "xyz": x.tolist(), "label": s, "properties": {}}
            for s, a, x in zip(SYMBOLS, fractional, r, strict=True)
        ]
        structure = {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": None}
        structure |= {"lattice": {"matrix": CELL.tolist(), "volume": VOLUME}, "sites": sites}
        outputs = {"energy": e, "forces": f.tolist(), "virial_stress": order}
        items.append({"outputs": outputs, "num_atoms": 3, "group": "AIMD", "structure": structure})
    path.write_text(json.dumps(items))
    return path


def fitsnap_document(frames: slice = slice(None)) -> str:
    data = [
        {
            "Stress": (-STRESS * PER_GPA * 1e4).tolist(),
            "Positions": r.tolist(),
            "Energy": float(e),
            "AtomTypes": SYMBOLS,
            "Lattice": CELL.tolist(),
            "NumAtoms": 3,
            "Forces": f.tolist(),
        }
        for r, f, e in zip(POSITIONS[frames], FORCES[frames], ENERGIES[frames], strict=True)
    ]
    styles = {"PositionsStyle": "angstrom", "AtomTypeStyle": "chemicalsymbol", "LatticeStyle": "angstrom"}
    styles |= {"Label": "Example", "StressStyle": "bar", "EnergyStyle": "electronvolt"}
    document = {"Dataset": {"Data": data, **styles, "ForcesStyle": "electronvoltperangstrom"}}
    return "# Units: eV, Angstrom, bar\n" + json.dumps(document, indent=1)


def fitsnap(path: Path) -> Path:
    path.write_text(fitsnap_document())
    return path


def fitsnap_folder(path: Path) -> Path:
    for k in range(2):
        (path / f"group_{k}").mkdir(parents=True)
        (path / f"group_{k}" / "one.json").write_text(fitsnap_document(slice(k, k + 1)))
    return path


def _xyz(path: Path, values: np.ndarray, first: int = 0) -> None:
    blocks = []
    for k, rows in enumerate(values):
        comment = f" i = {first + k:8d}, time = {0.5 * k:12.3f}, E = {float(ENERGIES[k] / Hartree)!r}"
        atoms = "".join(f"  {s} {words(row)}\n" for s, row in zip(SYMBOLS, rows, strict=True))
        blocks.append(f"       3\n{comment}\n{atoms}")
    path.write_text("".join(blocks))


def cp2k(path: Path) -> Path:
    stem = path.name.removesuffix("-pos-1.xyz")
    _xyz(path, POSITIONS)
    _xyz(path.with_name(f"{stem}-frc-1.xyz"), FORCES / HARTREE_PER_BOHR)
    header = "#   Step   Time [fs]       Ax [Angstrom]       Ay [Angstrom]   …   Volume [Angstrom^3]\n"
    rows = "".join(f"{k} {0.5 * k} {words(CELL)} {VOLUME}\n" for k in range(2))
    path.with_name(f"{stem}-1.cell").write_text(header + rows)
    return path


def cp2k_at_constant_volume(path: Path) -> Path:
    cp2k(path)
    path.with_name(path.name.removesuffix("-pos-1.xyz") + "-1.cell").unlink()
    return path


def qm9(path: Path) -> Path:
    blocks = []
    for k, (r, e) in enumerate(zip(POSITIONS, ENERGIES, strict=True)):
        values = [799.58, 437.9, 282.9, 1.85, 6.31, -0.29, 0.06, 0.36, 19.0, 0.02, float(e / Hartree), -0.5, -0.4, -0.6]
        rows = "".join(
            f"{s}\t{x!r}\t{y!r}\t{z * 1e6!r}*^-6\t-0.25\n" for s, (x, y, z) in zip(SYMBOLS, r.tolist(), strict=True)
        )
        head = f"3\ngdb {k + 1}\t{words(values)}\t6.002\n"
        blocks.append(f"{head}{rows}1671.4\t3803.6\t3907.6\nO\tO\nInChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n")
    path.write_text("".join(blocks))
    return path


def spice(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for k in range(2):
            group = file.create_group(f"molecule {k}")
            group["atomic_numbers"] = np.array(NUMBERS, dtype=np.int16)
            group["smiles"], group["subset"] = [b"[H:2][O:1][H:3]"], [b"Example"]
            stored = {
                "conformations": (POSITIONS[k : k + 1] / Bohr, "bohr"),
                "dft_total_energy": (ENERGIES[k : k + 1] / Hartree, "hartree"),
                "dft_total_gradient": (-FORCES[k : k + 1] / HARTREE_PER_BOHR, "hartree/bohr"),
                "formation_energy": (np.zeros(1), "hartree"),
            }
            for name, (values, unit) in stored.items():
                group[name] = values
                group[name].attrs["units"] = unit
    return path


def ani1(path: Path) -> Path:
    """As pyanitools writes: symbols, no forces."""
    with h5py.File(path, "w") as file:
        group = file.create_group("gdb11_s01/gdb11_s01-0")
        group["species"] = [symbol.encode() for symbol in SYMBOLS]
        group["smiles"] = [letter.encode() for letter in "[H]O[H]"]
        group["coordinates"], group["energies"] = POSITIONS.astype(np.float32), ENERGIES / Hartree
        group["coordinatesHE"], group["energiesHE"] = POSITIONS, ENERGIES
    return path


def ani1x(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("H2O1")
        group["atomic_numbers"], group["coordinates"] = NUMBERS, POSITIONS
        group["wb97x_dz.energy"], group["wb97x_dz.forces"] = ENERGIES / Hartree, FORCES / Hartree
        group["wb97x_tz.energy"], group["ccsd(t)_cbs.energy"] = ENERGIES, np.full(2, np.nan)
    return path


def ani2x(path: Path) -> Path:
    """Groups by size: species of every conformation."""
    with h5py.File(path, "w") as file:
        group = file.create_group("003")
        group["species"], group["coordinates"] = [NUMBERS, NUMBERS], POSITIONS
        group["energies"], group["forces"] = ENERGIES / Hartree, FORCES / Hartree
    return path


def modelforge(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"], group["n_configs"] = np.array(NUMBERS).reshape(3, 1), 2
        stored = {
            "geometry": (POSITIONS / 10, "nanometer"),
            "energies": (ENERGIES.reshape(2, 1) / KJ, "kilojoule_per_mole"),
            "forces": (FORCES / KJ * 10, "kilojoule_per_mole / nanometer"),
        }
        for name, (values, unit) in stored.items():
            group[name] = values
            group[name].attrs["u"] = unit
    return path


def flat_hdf5(path: Path) -> Path:
    """Of nobody in particular: one group, with cells and a virial, units in attributes of the file."""
    with h5py.File(path, "w") as file:
        file["numbers"], file["positions"], file["cell"] = NUMBERS, POSITIONS, CELL
        file["energy"], file["forces"] = ENERGIES, FORCES
        file["virial"] = np.tile(-STRESS * VOLUME, (2, 1, 1))
        file.attrs["energy_unit"], file.attrs["length_unit"] = "eV", "Angstrom"
    return path


def deepmd_text(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "type.raw").write_text("0\n1\n1\n")
    (path / "type_map.raw").write_text("O\nH\n")
    columns = {
        "coord": POSITIONS,
        "box": [CELL] * 2,
        "energy": ENERGIES,
        "force": FORCES,
        "virial": [-STRESS * VOLUME] * 2,
    }
    for name, values in columns.items():
        (path / f"{name}.raw").write_text("".join(f"{words(row)}\n" for row in values))
    return path


def deepmd_hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        system = file.create_group("O1H2")
        system["type.raw"], system["type_map.raw"] = [0, 1, 1], [b"O", b"H"]
        columns = {"coord": POSITIONS, "force": FORCES, "virial": np.stack([-STRESS * VOLUME] * 2)}
        for k in range(2):
            part = system.create_group(f"set.00{k}")
            part["box.npy"], part["energy.npy"] = CELL.reshape(1, 9), ENERGIES[k : k + 1]
            for name, values in columns.items():
                part[f"{name}.npy"] = values[k : k + 1].reshape(1, 9)
    return path


def pacemaker(path: Path) -> Path:
    pandas = pytest.importorskip("pandas", reason="PANDAS ABSENT: pip install pandas; no table of pacemaker is written")
    structures = [Atoms(NUMBERS, r, cell=CELL, pbc=True) for r in POSITIONS]
    columns = {"name": ["a##0", "a##1"], "energy": ENERGIES, "forces": list(FORCES), "energy_corrected": ENERGIES + 9}
    frame = pandas.DataFrame({**columns, "ase_atoms": structures})
    frame.to_pickle(path, compression="gzip", protocol=4)
    return path


FOREIGN = [
    Foreign("collected.pckl.gzip", "pacemaker", pacemaker),
    Foreign("system", "deepmd", deepmd_text, has=("energy", "forces", "stress")),
    Foreign("systems.hdf5", "deepmd", deepmd_hdf5, has=("energy", "forces", "stress")),
    Foreign("SPICE.hdf5", "hdf5", spice, periodic=False),
    Foreign("ani_gdb_s01.h5", "hdf5", ani1, has=("energy",), periodic=False, tolerance=1e-6),
    Foreign("ani1x-release.h5", "hdf5", ani1x, periodic=False),
    Foreign("ani2x.h5", "hdf5", ani2x, periodic=False),
    Foreign("modelforge.hdf5", "hdf5", modelforge, periodic=False, tolerance=2e-6),
    Foreign("flat.h5", "hdf5", flat_hdf5, has=("energy", "forces", "stress")),
    Foreign("train.cfg", "mtp", mtp, {"type_map": "O,H"}, ("energy", "forces", "stress")),
    Foreign("training.json", "mlearn", mlearn, has=("energy", "forces", "stress")),
    Foreign("water.json", "fitsnap", fitsnap, has=("energy", "forces", "stress")),
    Foreign("JSON", "fitsnap", fitsnap_folder, has=("energy", "forces", "stress")),
    Foreign("water-pos-1.xyz", "cp2k", cp2k),
    Foreign("nvt-pos-1.xyz", "cp2k", cp2k_at_constant_volume, {"cell": ",".join(map(str, CELL.ravel().tolist()))}),
    Foreign("dsgdb9nsd_000003.xyz", "qm9", qm9, has=("energy",), periodic=False),
]
