"""Reader of HDF5 data sets of molecules: SPICE, ANI-1, ANI-1x, ANI-2x, modelforge's, and others of their build.

A group with atomic numbers and positions holds conformations: positions [m, n, 3], energies [m], forces [m, n, 3],
numbers or symbols [n], or [m, n] for groups that are made by size. The names of labels are found as in other files;
gradients become forces. A unit is the one that the attributes of a data set name (``units``, ``unit`` or ``u``). SPICE
without them is in Hartree and bohr, the ANI sets in Hartree and Å; any other file must be told by ``units``. NaN stands
for a label that is missing, as in ANI-1x. A ``cell`` makes all axes periodic unless ``pbc`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdas.config.reading import advice
from sdas.data.electronic_states import CHARGES, SPINS, may_be_states, states_of_frames
from sdas.data.errors import DataError
from sdas.data.frame import Frame
from sdas.data.label_names import UNUSUAL, USUAL, label_of, plain_name
from sdas.data.readers.ase_labels import three_by_three
from sdas.data.readers.declared_units import DEFAULT_UNITS, Declaration, FileUnits, Word
from sdas.data.readers.hdf5_file import Hdf5Data, Hdf5Group, groups_of, is_hdf5, sound
from sdas.data.readers.options import ReadOptions, build_frame, numbers_of_symbols, stress_of_virial
from sdas.data.units import Units

NUMBERS = ("atomic_numbers", "species", "numbers", "nuclear_charges", "z", "Z")
POSITIONS = ("conformations", "coordinates", "geometry", "positions", "coords", "R", "pos")
CELLS = ("cell", "cells", "lattice", "unit_cell")
PERIODICITY = ("pbc",)
KINDS = ("config_type", "subset")
"""Text that names the kind of the frames of a group, SPICE's subset among them."""
PROPERTIES = "properties"
"""The group within a group in which MACE keeps labels."""
_ENERGIES = {
    **dict.fromkeys(("energies", "wb97x_dz.energy"), USUAL),
    **dict.fromkeys(("E", "internal_energy_at_0K"), UNUSUAL),
}
_FORCES = {**dict.fromkeys(("wb97x_dz.forces", "dft_total_force"), USUAL), "F": UNUSUAL}
_GRADIENT = "grad"
GRADIENT_TIER = UNUSUAL + 1
"""Gradients are looked at where there are no forces."""
_QUANTITY = {"energy": "energy", "forces": "force", "stress": "stress"}
_SPICE, _ANI = Units.parse("Hartree,bohr"), Units.parse("Hartree,Å")


@dataclass(frozen=True, slots=True)
class _Label:
    """A data set that is a label. quantity: whose unit it has. sign: −1 of a gradient."""

    data: Hdf5Data
    quantity: str
    sign: float


def is_set(group: Hdf5Group) -> bool:
    """Whether ``group`` holds numbers and positions."""
    return bool(_first(group, NUMBERS) is not None and _first(group, POSITIONS) is not None)


def read_hdf5(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Frames of every group with numbers and positions, in the order of their names."""
    if not is_hdf5(path):
        raise DataError(f"{path}: not an HDF5 file")
    yield from sound(_all_frames(path, options), path)


def _all_frames(path: Path, options: ReadOptions) -> Iterator[Frame]:
    found, seen, root = 0, list[str](), dict[str, str]()
    for group in groups_of(path):
        root = root or group.attributes()
        seen = seen or sorted(group.data)[:20]
        if is_set(group):
            found += 1
            if PROPERTIES in group.groups:
                group.take_in(PROPERTIES)
            yield from _frames(group, root, options)
    if not found:
        raise DataError(
            f"{path}: no group has both atomic numbers ({', '.join(NUMBERS)}) and positions ({', '.join(POSITIONS)}); "
            f"the first data sets are: {', '.join(seen) or 'none'}"
        )


def _first(group: Hdf5Group, names: Iterable[str]) -> Hdf5Data | None:
    return next((group.data[name] for name in names if name in group.data), None)


def _frames(group: Hdf5Group, root: dict[str, str], options: ReadOptions) -> Iterator[Frame]:
    numbers_data, positions, cells = (_first(group, names) for names in (NUMBERS, POSITIONS, CELLS))
    assert numbers_data is not None
    assert positions is not None
    count, atoms = _size(positions)
    if count == 0:
        return
    found = {label: _label(group, label, count, options) for label in ("energy", "forces", "stress")}
    labels = {name: label for name, label in found.items() if label and (name != "stress" or cells is not None)}
    factors = _factors(group, root, positions, labels, options)
    numbers = _numbers(numbers_data, count, atoms)
    states, kind = _states(group, count), _kind(group)
    periodic = _first(group, PERIODICITY)
    parts = [data for data in (numbers_data, positions, cells, periodic) if data is not None]
    used = {data.name for data in (*parts, *(label.data for label in labels.values()))}
    _note_unused(group, used.union(KINDS), count, atoms, options)
    rows = {name: _rows(label.data, count) for name, label in labels.items()}
    boxes = repeat(None) if cells is None else _alike_or_per_frame(cells, count, (3, 3))
    axes = repeat(cells is not None) if periodic is None else _alike_or_per_frame(periodic, count, (3,))
    for index, (place, box, pbc) in enumerate(zip(_rows(positions, count), boxes, axes)):  # noqa: B905
        where = f"{group.where}: conformation {index}"
        cell = None if box is None else box.astype(np.float64) * factors["length"]
        frame = build_frame(
            where,
            DEFAULT_UNITS,
            numbers=numbers[index] if numbers.ndim == 2 else numbers,
            positions=place.astype(np.float64) * factors["length"],
            cell=cell,
            pbc=pbc,
            config_type=kind,
            charge=float(states["charge"][index]) if "charge" in states else None,
            spin=float(states["spin"][index]) if "spin" in states else None,
            **{name: _value(labels[name], next(row), cell, factors, options, where) for name, row in rows.items()},
        )
        options.notes.states.add(frame)
        yield frame


def _value(
    label: _Label,
    stored: NDArray[Any],
    cell: NDArray[Any] | None,
    factors: dict[str, float],
    options: ReadOptions,
    where: str,
) -> Any:
    """What is ``stored`` of a label in eV and Å; None if it is missing."""
    if np.isnan(stored).any():
        options.notes.remarks[f"NaN stands for {label.data.name} that are missing"] += 1
        return None
    value = label.sign * factors[label.quantity] * stored.astype(np.float64)
    if label.quantity in ("stress", "virial"):
        matrix = three_by_three(value, where)
        return matrix if label.quantity == "stress" or cell is None else stress_of_virial(matrix, cell, where)
    return value if label.quantity == "energy" else value.reshape(-1, 3)


def _size(positions: Hdf5Data) -> tuple[int, int]:
    """The number of conformations and of atoms in each."""
    shape = positions.shape or ()
    if len(shape) == 2 and shape[1] == 3:
        return 1, shape[0]
    if len(shape) != 3 or shape[2] != 3:
        raise DataError(f"{positions.where}: positions must have shape [conformations, atoms, 3], got {list(shape)}")
    return shape[0], shape[1]


def _numbers(data: Hdf5Data, count: int, atoms: int) -> NDArray[Any]:
    """Atomic numbers [n] or [m, n]."""
    if data.shape not in ((atoms,), (atoms, 1), (count, atoms)):
        raise DataError(
            f"{data.where}: of shape {list(data.shape or ())}, where {count} conformations have {atoms} atoms"
        )
    array = numbers_of_symbols(data.words(), data.where) if data.kind == "S" else data.whole()
    return array.reshape(count, atoms) if data.shape == (count, atoms) else array.reshape(atoms)


def _alike_or_per_frame(data: Hdf5Data, count: int, shape: tuple[int, ...]) -> Iterable[NDArray[Any]]:
    """Values of this ``shape``: one for all conformations, or one for each."""
    if data.shape == shape:
        return repeat(data.whole())
    if data.shape == (count, *shape):
        return data
    raise DataError(f"{data.where}: must have shape {list(shape)} or {[count, *shape]}, got {list(data.shape or ())}")


def _kind(group: Hdf5Group) -> str | None:
    data = _first(group, KINDS)
    return data.words()[0] if data is not None and data.kind == "S" and data.shape in ((), (1,)) else None


def _label(group: Hdf5Group, label: str, count: int, options: ReadOptions) -> _Label | None:
    """The data set of ``label``: the one that was asked for, or the one with the best of the usual names."""
    asked: str | None = getattr(options, f"{label}_key")
    there = [name for name, data in group.data.items() if data.kind != "S" or data.shape]  # MACE writes "None"
    tiers = {name: tier for name in there if (tier := _tier(name, label)) is not None}
    best = min(tiers.values(), default=None)
    names = [name for name in there if (tiers.get(name) == best if asked is None else name == asked)]
    if not names or (asked is None and best is None):
        return None
    if len(names) > 1:
        raise DataError(
            f"{group.where}: {' and '.join(sorted(names))} could be the {label}; choose by "
            f"{advice(f'{label}_key', 'NAME')}"
        )
    options.notes.found(label, names[0], count)
    gradient = label == "forces" and _GRADIENT in names[0].lower()
    quantity = "virial" if label == "stress" and "virial" in names[0].lower() else _QUANTITY[label]
    return _Label(group.data[names[0]], quantity, -1.0 if gradient else 1.0)


def _tier(name: str, label: str) -> int | None:
    """How good a source of ``label`` a data set of this ``name`` is; None if it is none."""
    table = {"energy": _ENERGIES, "forces": _FORCES}.get(label, {})
    if name in table:
        return table[name]
    known = label_of(name)
    if known is not None and (known[0] == label or (known[0], label) == ("virial", "stress")):
        return known[1]
    plain = plain_name(name)
    gradient = label == "forces" and plain in ("gradient", "gradients", "grad", "energy_gradient", "dft_total_gradient")
    return GRADIENT_TIER if gradient else None


def _rows(data: Hdf5Data, count: int) -> Iterator[NDArray[Any]]:
    """The values of ``data``, one for each conformation."""
    if count == 1 and len(data) != 1:
        return iter([data.whole()])
    if len(data) != count:
        raise DataError(
            f"{data.where}: has shape {list(data.shape or ())}, which does not give one row to {count} conformations"
        )
    return iter(data)


def _factors(
    group: Hdf5Group, root: dict[str, str], positions: Hdf5Data, labels: dict[str, _Label], options: ReadOptions
) -> dict[str, float]:
    """To eV and Å, by quantity."""
    named = {"length": positions, **{label.quantity: label.data for label in labels.values()}}
    own = {data.name: Word(f"the attribute of {data.name}", text) for data in named.values() if (text := data.unit())}
    declared = replace(Declaration.found_in(root, group.attributes()), by_name=own)
    default = _default(group, positions)
    for quantity, data in named.items():
        follows = not own and "energy" in declared.by_quantity and quantity not in ("energy", "length")
        if data.name in own or quantity in declared.by_quantity or options.units is not None or follows:
            continue
        if default is None:
            raise DataError(
                f"{data.where}: neither it nor the file says its unit; give {advice('units', 'ENERGY,LENGTH')}, such "
                "as eV,Å or Hartree,bohr"
            )
        options.notes.remarks[f"the unit of {data.name} is not said; {default.name} are taken, as in such sets"] = 1
    units = FileUnits(declared, options.units, group.where, default or DEFAULT_UNITS, options.notes.remarks)
    if told := units.named():
        options.notes.units[told] += 1
    return {quantity: units.factor(quantity, data.name) for quantity, data in named.items()}


def _default(group: Hdf5Group, positions: Hdf5Data) -> Units | None:
    """Units of the sets that are known by their names, for what they do not state."""
    if positions.name == "conformations":
        return _SPICE
    ani = "wb97x_dz.energy" in group.data or {"species", "coordinates", "energies"} <= set(group.data)
    return _ANI if ani else None


def _states(group: Hdf5Group, count: int) -> dict[str, NDArray[Any]]:
    """``charge`` and ``spin`` of every conformation [m], as far as they are there."""
    there = ((name, data) for name, data in group.data.items() if may_be_states(name, data.shape, count))
    return states_of_frames(((name, data.whole()) for name, data in there if data.kind in "iuf"), count)


def _note_unused(group: Hdf5Group, used: set[str], count: int, atoms: int, options: ReadOptions) -> None:
    for name, data in group.data.items():
        if data.name not in used and plain_name(name) not in (*CHARGES, *SPINS):
            per_frame = data.shape is not None and data.shape[:1] == (count,) and data.kind in "iuf"
            row = np.broadcast_to(0.0, (data.shape or ())[1:]) if per_frame else ""
            options.notes.unused.add([(name, row)], atoms, count)
