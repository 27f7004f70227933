"""Three ways from a molecule to many geometries: Langevin dynamics, normal modes, random torsions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
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


class Sampler:
    """Geometries without end by ``config.sampling``; conformers take turns. An iterator.

    ``state`` is JSON, from which another one with the same molecule and settings goes on with the same geometries.
    """

    def __init__(self, molecule: Molecule, engine: Calculator, config: SimulationConfig) -> None:
        self.molecule, self.engine, self.config = molecule, engine, config
        self.screen = Screen(molecule)
        self.generator = np.random.default_rng(config.seed)
        self.conformers = min(config.conformers, len(molecule.conformers))
        self.count = 0
        self.runs: dict[int, Langevin] = {}
        ways = {"dynamics": self._by_dynamics, "modes": self._by_modes, "torsions": self._by_torsions}
        self._sample: Callable[[int], Sample] = ways[config.sampling]

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        """The next geometry. Raises :class:`SimulationError` for a molecule that cannot be sampled in this way."""
        sample = self._sample(self.count % self.conformers)
        self.count += 1
        return sample

    def state(self) -> dict[str, Any]:
        """What the next geometries depend on."""
        runs = {
            str(conformer): {
                "positions": mover.atoms.positions.tolist(),
                "momenta": mover.atoms.get_momenta().tolist(),
                "steps": mover.nsteps,
            }
            for conformer, mover in self.runs.items()
        }
        return {"count": self.count, "random": self.generator.bit_generator.state, "runs": runs}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.count, self.generator.bit_generator.state = state["count"], state["random"]
        for conformer, run in state["runs"].items():
            atoms = self._atoms(int(conformer))
            atoms.positions = run["positions"]
            atoms.set_momenta(run["momenta"])
            self.runs[int(conformer)] = self._langevin(atoms)
            self.runs[int(conformer)].nsteps = run["steps"]

    def _by_dynamics(self, conformer: int) -> Sample:
        """After ``interval_fs`` more of the trajectory of a conformer; one that explodes is begun anew."""
        time_fs = self.config.interval_fs
        if conformer not in self.runs:
            self.runs[conformer] = self._langevin(self._heated(self._atoms(conformer)))
            time_fs += self.config.equilibration_fs
        sample = self._after(self.runs[conformer], time_fs, {"conformer": conformer})
        if sample.fault:
            del self.runs[conformer]
        return sample

    def _by_modes(self, conformer: int) -> Sample:
        """A classical harmonic displacement about the minimum of a conformer."""
        rest, stiffness, shapes = self._wells[conformer]
        spread = np.sqrt(units.kB * self.config.temperature_k / stiffness)
        shift = (spread * self.generator.standard_normal(len(stiffness))) @ shapes
        positions = rest + shift.reshape(-1, 3)
        return Sample(positions, {"conformer": conformer}, self.screen.fault(positions))

    @cached_property
    def _wells(self) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """Of each conformer its minimum, and the stiffness and shapes of its modes."""
        found = []
        for conformer in range(self.conformers):
            atoms = self._atoms(conformer)
            if not BFGS(atoms, logfile=None).run(fmax=REST_EV_PER_ANG, steps=RELAXATION_STEPS):
                raise SimulationError(
                    f"conformer {conformer} does not come to rest in {RELAXATION_STEPS} steps: sample it by dynamics"
                )
            found.append((atoms.get_positions(), *normal_modes(atoms)))
        return found

    def _by_torsions(self, conformer: int) -> Sample:
        """Rotatable bonds turned at random, atoms that came close parted, and then ``interval_fs`` of dynamics."""
        chemistry, bonds = self._rotors
        atoms = self._atoms(conformer)
        angles = self.generator.uniform(-180, 180, len(bonds))
        atoms.positions = turned(chemistry, atoms.positions, bonds, angles)
        try:
            BFGS(atoms, logfile=None).run(fmax=1.0, steps=UNFOLDING_STEPS)
        except ENGINE_ERRORS:
            return Sample(atoms.get_positions(), {"conformer": conformer}, FAILED)
        mover = self._langevin(self._heated(atoms))
        return self._after(mover, self.config.interval_fs, {"conformer": conformer})

    @cached_property
    def _rotors(self) -> tuple[Any, list[Torsion]]:
        """The molecule for RDKit, and its rotatable bonds."""
        chemistry = chemistry_of(self.molecule)
        bonds = rotatable_bonds(chemistry)
        if not bonds:
            raise SimulationError(f"{self.molecule.name} has no rotatable bond; sample it by dynamics or modes")
        return chemistry, bonds

    def _atoms(self, conformer: int) -> Atoms:
        atoms = self.molecule.atoms(conformer)
        atoms.calc = self.engine
        return atoms

    def _heated(self, atoms: Atoms) -> Atoms:
        """The same atoms with momenta drawn at the temperature."""
        kt = units.kB * self.config.temperature_k
        atoms.set_momenta(np.sqrt(atoms.get_masses() * kt)[:, None] * self.generator.standard_normal((len(atoms), 3)))
        return atoms

    def _langevin(self, atoms: Atoms) -> Langevin:
        """Dynamics of atoms with momenta; not by :mod:`sdas.md`, which takes a second to import."""
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
