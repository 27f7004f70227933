"""The relaxed molecule is a minimum: its Hessian is symmetric and its vibrations are real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ase.units
import numpy as np
from ase.optimize import BFGS

from sdas.interpret.bonds import FloatArray, atoms_of
from sdas.md import SDASCalculator
from sdas.validate.check import Check, Curve, judged, skipped
from sdas.validate.subject import Subject, moved

MOST_ATOMS = 40
RELAX_EV_PER_ANG, RELAX_STEPS = 1e-3, 300
STEP_ANG = 1e-3
ASYMMETRY = 1e-3
IMAGINARY_PER_CM = 10.0
AWAY_PER_CM = 50.0

Forces = Callable[[list[FloatArray]], FloatArray]


def vibrations(subject: Subject, reference: Any = None) -> tuple[list[Check], list[Curve]]:
    """Relaxation of the first frame, its Hessian by differences of forces, its frequencies; also those of a reference.

    reference: a calculator of ASE, whose own minimum near the frame is compared.
    """
    frame, group = subject.first, "vibrations"
    if frame.pbc.any() or not 2 <= len(frame) <= MOST_ATOMS:
        why = f"the first frame is periodic, or has not 2 to {MOST_ATOMS} atoms"
        return [skipped(group, "frequencies", why)], []

    def by_model(positions: list[FloatArray]) -> FloatArray:
        return subject.predicted([moved(frame, each) for each in positions]).forces.reshape(len(positions), -1)

    atoms = atoms_of(frame)
    left = relax(atoms, SDASCalculator(subject.exact))
    hessian = hessian_of(atoms.positions, by_model)
    asymmetry = float(np.abs(hessian - hessian.T).max() / np.abs(hessian).max())
    wave_numbers = frequencies(hessian, atoms.get_masses(), atoms.positions)
    checks = [
        judged(group, "relaxation: largest force left", 1000 * left, 1000 * RELAX_EV_PER_ANG, "meV/Å"),
        judged(group, "asymmetry of the Hessian", asymmetry, ASYMMETRY, "of its largest entry"),
        judged(group, "largest imaginary frequency", max(0.0, -float(wave_numbers.min())), IMAGINARY_PER_CM, "cm⁻¹"),
    ]
    lines = {"model": wave_numbers.tolist()}
    if reference is not None:
        other = atoms_of(frame)
        relax(other, reference)
        own = frequencies(
            hessian_of(other.positions, lambda p: _by_calculator(other, p)), other.get_masses(), other.positions
        )
        lines["reference"] = own.tolist()
        away = float(np.abs(wave_numbers - own).mean())
        checks.append(judged(group, "frequencies: mean distance from the reference", away, AWAY_PER_CM, "cm⁻¹"))
    numbers = [float(k + 1) for k in range(len(wave_numbers))]
    return checks, [Curve("Frequencies", "vibration", "wave number (cm⁻¹)", numbers, lines)]


def relax(atoms: Any, calculator: Any) -> float:
    """Move the atoms to a minimum nearby; gives the largest force that is left, eV/Å."""
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=RELAX_EV_PER_ANG, steps=RELAX_STEPS)
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def hessian_of(positions: FloatArray, forces: Forces) -> FloatArray:
    """∂²E/∂x∂y `[3n, 3n]` eV/Å² by central differences; row x has the change of the forces with coordinate x."""
    ends = []
    for x in range(positions.size):
        for sign in (1, -1):
            shifted = positions.copy().reshape(-1)
            shifted[x] += sign * STEP_ANG
            ends.append(shifted.reshape(positions.shape))
    found = forces(ends).reshape(positions.size, 2, positions.size)
    return -(found[:, 0] - found[:, 1]) / (2 * STEP_ANG)


def frequencies(hessian: FloatArray, masses: FloatArray, positions: FloatArray) -> FloatArray:
    """Wave numbers of the vibrations in cm⁻¹, ascending, imaginary ones negative; rigid motions are projected out."""
    root = np.repeat(np.sqrt(masses), 3)
    weighted = (hessian + hessian.T) / 2 / root[:, None] / root
    arms = positions - np.average(positions, axis=0, weights=masses)
    rigid = [np.tile(axis, len(masses)) * root for axis in np.eye(3)]
    rigid += [np.cross(axis, arms).reshape(-1) * root for axis in np.eye(3)]
    u, s, _ = np.linalg.svd(np.stack(rigid, axis=1), full_matrices=True)
    inner = u[:, int((s > 1e-6 * s[0]).sum()) :]
    values = np.linalg.eigvalsh(inner.T @ weighted @ inner)
    quantum = ase.units._hbar * 1e10 / np.sqrt(ase.units._e * ase.units._amu) / ase.units.invcm
    return quantum * np.sign(values) * np.sqrt(np.abs(values))


def _by_calculator(atoms: Any, positions: list[FloatArray]) -> FloatArray:
    found = []
    for each in positions:
        atoms.positions = each
        found.append(atoms.get_forces().reshape(-1))
    return np.array(found)
