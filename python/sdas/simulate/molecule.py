"""What is simulated: a molecule with conformers, from SMILES, from a sequence, or from a file of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from sdas.data import Frame
from sdas.data.frame import FloatArray, IntArray
from sdas.errors import SimulationError
from sdas.simulate.peptides import residues_of, smiles_of_sequence

BONDED = 1.25
"""Atoms closer than so many times the sum of their covalent radii are bonded, where no formula says so."""
ATTEMPTS = 5
"""Embeddings for each conformer that is wanted; many relax to the same minimum."""
SAME_KCAL_PER_MOL = 0.01
RELAXATION_STEPS = 2000


@dataclass(frozen=True, eq=False)
class Molecule:
    """numbers: int64 [n]. conformers: each [n, 3], Å. bonds: [m, 2], indices of atoms. charge: e.

    spin: multiplicity 2S + 1. origin: what it was made of, as facts of its frames. chemistry: RDKit's molecule, or None
    of a file. residues: their names, and the residue of each atom, of a peptide. remarks: what a user should know.
    """

    numbers: IntArray
    conformers: Sequence[FloatArray]
    bonds: IntArray
    charge: int
    spin: int
    origin: dict[str, str]
    chemistry: Any = None
    residues: tuple[list[str], list[int]] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it was made of, for messages."""
        return next(iter(self.origin.values()))

    def atoms(self, conformer: int = 0) -> Atoms:
        """One conformer for ASE."""
        return Atoms(self.numbers, self.conformers[conformer], info={"charge": self.charge, "spin": self.spin})


def from_smiles(smiles: str, conformers: int, seed: int) -> Molecule:
    """A molecule with hydrogens and up to so many conformers, by RDKit's distance geometry (ETKDGv3).

    Where the SMILES leaves stereo open, the first isomer is taken and a remark says which. Raises
    :class:`SimulationError` for a SMILES that means no molecule, and where no geometry is found.
    """
    Chem, _ = _rdkit()
    molecule, remarks = _with_stereo(_parsed(smiles))
    molecule = Chem.AddHs(molecule)
    found = _embedded(molecule, conformers, seed)
    if not found:
        raise SimulationError(f"RDKit finds no geometry for the SMILES {smiles!r}; give one by --start")
    return Molecule(
        numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64),
        conformers=[np.array(molecule.GetConformer(index).GetPositions()) for index in found],
        bonds=_bonds(molecule),
        charge=Chem.GetFormalCharge(molecule),
        spin=1 + sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()),
        origin={"smiles": Chem.MolToSmiles(Chem.RemoveHs(molecule))},
        chemistry=molecule,
        remarks=remarks,
    )


def from_sequence(sequence: str, conformers: int, seed: int) -> Molecule:
    """A capped peptide, as ``ACE-ALA-NME``, of L amino acids charged as in water at pH 7."""
    molecule = from_smiles(smiles_of_sequence(sequence), conformers, seed)
    return replace(
        molecule, origin={"sequence": sequence.upper()}, residues=residues_of(sequence, molecule.chemistry), remarks=()
    )


def from_frames(frames: Sequence[Frame]) -> Molecule:
    """The structures of a file as conformers: of one molecule, with its atoms in one order, its charge and its spin.

    Without a stated charge or spin it is neutral, or a singlet.
    """
    first = frames[0]
    for frame in frames:
        if frame.pbc.any():
            raise SimulationError(f"{frame.source}: is periodic; only molecules in open space are simulated")
        if not np.array_equal(frame.numbers, first.numbers):
            raise SimulationError(f"{frame.source}: has other atoms than {first.source}, or another order of them")
        if frame.state != first.state:
            raise SimulationError(f"{frame.source}: has another charge or spin than {first.source}")
    return Molecule(
        numbers=first.numbers,
        conformers=[frame.positions for frame in frames],
        bonds=_near(first),
        charge=round(first.charge or 0),
        spin=round(first.spin or 1),
        origin={"start": first.source},
    )


def chemistry_of(molecule: Molecule) -> Any:
    """RDKit's molecule; of a file, with the bonds that the first structure has by its distances and charge."""
    if molecule.chemistry is not None:
        return molecule.chemistry
    Chem, _ = _rdkit()
    from rdkit.Chem import rdDetermineBonds
    from rdkit.Geometry import Point3D

    editable = Chem.RWMol()
    shape = Chem.Conformer(len(molecule.numbers))
    for index, (number, place) in enumerate(zip(molecule.numbers, molecule.conformers[0], strict=True)):
        editable.AddAtom(Chem.Atom(int(number)))
        shape.SetAtomPosition(index, Point3D(*place))
    editable.AddConformer(shape)
    try:
        rdDetermineBonds.DetermineBonds(editable, charge=molecule.charge)
        Chem.SanitizeMol(editable)
    except Exception as error:  # RDKit raises ValueError and its own kinds
        raise SimulationError(
            f"{molecule.name}: RDKit finds no bond orders at charge {molecule.charge} ({error}); give the molecule by "
            "--smiles"
        ) from None
    return editable.GetMol()


def _parsed(smiles: str) -> Any:
    """RDKit's molecule; raises :class:`SimulationError` with the reason."""
    Chem, _ = _rdkit()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise SimulationError(f"the SMILES {smiles!r} cannot be read; it must be one molecule, as CCO")
        problems = [problem.Message() for problem in Chem.DetectChemistryProblems(molecule)]
        if problems:
            raise SimulationError(f"the SMILES {smiles!r} is no molecule: {'; '.join(problems)}")
        molecule = Chem.MolFromSmiles(smiles)
    if "." in Chem.MolToSmiles(molecule):
        raise SimulationError(f"the SMILES {smiles!r} is of several molecules; only one is simulated at a time")
    return molecule


def _with_stereo(molecule: Any) -> tuple[Any, tuple[str, ...]]:
    """The first of its stereoisomers, and a remark if there are more."""
    from rdkit.Chem import MolToSmiles
    from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions

    isomers = EnumerateStereoisomers(molecule, StereoEnumerationOptions(unique=True, maxIsomers=0))
    first = next(isomers)
    if next(isomers, None) is None:
        return first, ()
    return first, (f"the SMILES leaves stereo open: {MolToSmiles(first)} is simulated",)


def _embedded(molecule: Any, conformers: int, seed: int) -> list[int]:
    """Indices of up to so many conformers that differ, relaxed by MMFF94 or UFF, that of the lowest energy first.

    Minima with the same energy are taken for one, or for mirror images.
    """
    _, AllChem = _rdkit()
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed + 1  # RDKit multiplies it by the number of the conformer, so 0 makes all alike
    tries = ATTEMPTS * conformers
    found = list(AllChem.EmbedMultipleConfs(molecule, tries, parameters))
    if not found:
        parameters.useRandomCoords = True
        found = list(AllChem.EmbedMultipleConfs(molecule, tries, parameters))
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        relaxed = AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=RELAXATION_STEPS)
    elif AllChem.UFFHasAllMoleculeParams(molecule):
        relaxed = AllChem.UFFOptimizeMoleculeConfs(molecule, maxIters=RELAXATION_STEPS)
    else:
        return found[:conformers]
    kept: list[int] = []
    last = -np.inf
    for energy, index in sorted((energy, index) for index, (_, energy) in zip(found, relaxed, strict=True)):
        if energy - last > SAME_KCAL_PER_MOL and len(kept) < conformers:
            kept.append(index)
            last = energy
    return kept


def _bonds(molecule: Any) -> IntArray:
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _near(frame: Frame) -> IntArray:
    """Pairs of atoms that are bonded by their distance."""
    radii = covalent_radii[frame.numbers]
    distances = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=-1)
    return np.argwhere(np.triu(distances < BONDED * (radii[:, None] + radii), 1)).astype(np.int64)


def _rdkit() -> tuple[Any, Any]:
    try:
        from rdkit import Chem
        from rdkit.Chem import AllChem
    except ImportError:
        raise SimulationError("this needs RDKit: pip install 'sdas-kernels[label]'") from None
    return Chem, AllChem
