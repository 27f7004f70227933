"""Three ways from a molecule to many geometries: Langevin dynamics, normal modes, random torsions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from sdas.config.simulate import SimulationConfig
from sdas.data.frame import FloatArray
from sdas.errors import SimulationError
from sdas.simulate.molecule import Molecule, chemistry_of
from sdas.simulate.screening import Screen

SOFTEST_CM = 100.0
"""cm⁻¹; softer modes are displaced as if they were so stiff, for they are not harmonic."""
REST_EV_PER_ANG = 1e-3
RELAXATION_STEPS = 1000
UNFOLDING_STEPS = 30
"""Of the relaxation after torsions were turned: enough to part atoms that came close."""
HESSIAN_STEP_ANG = 0.005
ROTATABLE = "[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]"
STIFF = "[CX3](=[OX1])-[#7,#8]"
"""Amides and esters, which stay as they are."""
Torsion = tuple[int, int, int, int]
ENGINE_ERRORS = (RuntimeError, ValueError)
"""Of engines that cannot compute what has exploded, such as a field that does not converge."""
FAILED = "engine failed"
HBAR = units._hbar * units.J * units.s


@dataclass(frozen=True, eq=False)
class Sample:
    """positions: [n, 3], Å. facts: how it came about. fault: why it is to be dropped, or None."""

    positions: FloatArray
    facts: dict[str, Any]
    fault: str | None


def samples(molecule: Molecule, engine: Calculator, config: SimulationConfig) -> Iterator[Sample]:
    """Geometries without end by ``config.sampling``; conformers take turns. Raises :class:`SimulationError`."""
    ways: dict[str, Callable[[_Sampler], Iterator[Sample]]] = {
        "dynamics": _Sampler.dynamics,
        "modes": _Sampler.modes,
        "torsions": _Sampler.torsions,
    }
    return ways[config.sampling](_Sampler(molecule, engine, config))


class _Sampler:
    """A molecule, what moves it, and the random numbers."""

    def __init__(self, molecule: Molecule, engine: Calculator, config: SimulationConfig) -> None:
        self.molecule, self.engine, self.config = molecule, engine, config
        self.screen = Screen(molecule)
        self.generator = np.random.default_rng(config.seed)
        self.conformers = range(min(config.conformers, len(molecule.conformers)))

    def dynamics(self) -> Iterator[Sample]:
        """Every ``interval_fs`` of a trajectory for each conformer; one that explodes is begun anew."""
        runs: dict[int, Langevin] = {}
        while True:
            for conformer in self.conformers:
                time_fs = self.config.interval_fs
                if conformer not in runs:
                    runs[conformer] = self._langevin(self._atoms(conformer))
                    time_fs += self.config.equilibration_fs
                mover = runs[conformer]
                sample = self._after(mover, time_fs, {"conformer": conformer})
                yield sample
                if sample.fault:
                    del runs[conformer]

    def modes(self) -> Iterator[Sample]:
        """Classical harmonic displacements about the minimum of each conformer."""
        wells = []
        for conformer in self.conformers:
            atoms = self._atoms(conformer)
            if not BFGS(atoms, logfile=None).run(fmax=REST_EV_PER_ANG, steps=RELAXATION_STEPS):
                raise SimulationError(
                    f"conformer {conformer} does not come to rest in {RELAXATION_STEPS} steps: sample it by dynamics"
                )
            wells.append((atoms.get_positions(), *normal_modes(atoms)))
        while True:
            for conformer, (rest, stiffness, shapes) in enumerate(wells):
                spread = np.sqrt(units.kB * self.config.temperature_k / stiffness)
                shift = (spread * self.generator.standard_normal(len(stiffness))) @ shapes
                positions = rest + shift.reshape(-1, 3)
                yield Sample(positions, {"conformer": conformer}, self.screen.fault(positions))

    def torsions(self) -> Iterator[Sample]:
        """Rotatable bonds turned at random, atoms that came close parted, and then ``interval_fs`` of dynamics."""
        chemistry = chemistry_of(self.molecule)
        bonds = rotatable_bonds(chemistry)
        if not bonds:
            raise SimulationError(f"{self.molecule.name} has no rotatable bond; sample it by dynamics or modes")
        while True:
            for conformer in self.conformers:
                atoms = self._atoms(conformer)
                angles = self.generator.uniform(-180, 180, len(bonds))
                atoms.positions = turned(chemistry, atoms.positions, bonds, angles)
                try:
                    BFGS(atoms, logfile=None).run(fmax=1.0, steps=UNFOLDING_STEPS)
                except ENGINE_ERRORS:
                    yield Sample(atoms.get_positions(), {"conformer": conformer}, FAILED)
                else:
                    yield self._after(self._langevin(atoms), self.config.interval_fs, {"conformer": conformer})

    def _atoms(self, conformer: int) -> Atoms:
        atoms = self.molecule.atoms(conformer)
        atoms.calc = self.engine
        return atoms

    def _langevin(self, atoms: Atoms) -> Langevin:
        """Dynamics with velocities drawn at the temperature; not by :mod:`sdas.md`, which takes a second to import."""
        kt = units.kB * self.config.temperature_k
        atoms.set_momenta(np.sqrt(atoms.get_masses() * kt)[:, None] * self.generator.standard_normal((len(atoms), 3)))
        return Langevin(
            atoms,
            timestep=self.config.timestep_fs * units.fs,
            temperature_K=self.config.temperature_k,
            friction=self.config.friction_per_ps / (1000 * units.fs),
            fixcm=False,
            rng=self.generator,
        )

    def _after(self, mover: Langevin, time_fs: float, facts: dict[str, Any]) -> Sample:
        """Where the atoms are after so much more dynamics."""
        fault = None
        try:
            mover.run(max(1, round(time_fs / self.config.timestep_fs)))
        except ENGINE_ERRORS:
            fault = FAILED
        positions = mover.atoms.get_positions()
        facts["time_fs"] = round(mover.nsteps * self.config.timestep_fs, 6)
        return Sample(positions, facts, self.screen.fault(positions) or fault)


def normal_modes(atoms: Atoms) -> tuple[FloatArray, FloatArray]:
    """Stiffness [m] in eV/Å²/u, and shapes [m, 3 n] in u^−½, of all modes but translation and rotation.

    The amplitude q of a mode, in Å·√u, displaces atoms by q times its row and has the energy ½ · stiffness · q². The
    Hessian is of central differences of forces.
    """
    rest, masses = atoms.get_positions(), np.repeat(atoms.get_masses(), 3)
    rows = []
    for index in range(rest.size):
        forces = []
        for sign in (1, -1):
            moved = rest.copy()
            moved.flat[index] += sign * HESSIAN_STEP_ANG
            atoms.positions = moved
            forces.append(atoms.get_forces().ravel())
        rows.append((forces[1] - forces[0]) / (2 * HESSIAN_STEP_ANG))
    atoms.positions = rest
    hessian = np.array(rows)
    weighted = 0.5 * (hessian + hessian.T) / np.sqrt(np.outer(masses, masses))
    inner = _inner_motions(rest, masses)
    stiffness, vectors = np.linalg.eigh(inner @ weighted @ inner.T)
    softest = (SOFTEST_CM * units.invcm / HBAR) ** 2
    return np.maximum(stiffness, softest), vectors.T @ inner / np.sqrt(masses)


def rotatable_bonds(chemistry: Any) -> list[Torsion]:
    """Four atoms of the torsion about each bond that turns freely: single, in no ring, no amide, not at an end."""
    from rdkit.Chem import MolFromSmarts

    stiff = {frozenset((a, c)) for a, _, c in chemistry.GetSubstructMatches(MolFromSmarts(STIFF))}
    found = []
    for j, k in chemistry.GetSubstructMatches(MolFromSmarts(ROTATABLE)):
        if frozenset((j, k)) not in stiff:
            i, l = (_neighbor(chemistry, atom, other) for atom, other in ((j, k), (k, j)))
            found.append((i, j, k, l))
    return found


def turned(
    chemistry: Any, positions: FloatArray, bonds: list[tuple[int, int, int, int]], angles: FloatArray
) -> FloatArray:
    """Positions with the torsions ``bonds`` at ``angles``, degrees."""
    from rdkit.Chem import Conformer
    from rdkit.Chem.rdMolTransforms import SetDihedralDeg

    shape = Conformer(len(positions))
    shape.SetPositions(np.ascontiguousarray(positions))
    molecule = type(chemistry)(chemistry)
    molecule.RemoveAllConformers()
    place = molecule.GetConformer(molecule.AddConformer(shape, assignId=True))
    for bond, angle in zip(bonds, angles, strict=True):
        SetDihedralDeg(place, *bond, float(angle))
    return np.array(place.GetPositions())


def _neighbor(chemistry: Any, atom: int, other: int) -> int:
    near = chemistry.GetAtomWithIdx(atom).GetNeighbors()
    return next(int(one.GetIdx()) for one in near if one.GetIdx() != other)


def _inner_motions(positions: FloatArray, masses: FloatArray) -> FloatArray:
    """Orthonormal rows [m, 3 n] that span the mass-weighted motions without translation and rotation."""
    weights = masses[::3]
    centered = positions - weights @ positions / weights.sum()
    axes = np.eye(3)
    rigid = [np.tile(axis, len(weights)) for axis in axes] + [np.cross(axis, centered).ravel() for axis in axes]
    _, sizes, rows = np.linalg.svd(np.array(rigid) * np.sqrt(masses))
    return rows[int((sizes > 1e-6 * sizes[0]).sum()) :]
