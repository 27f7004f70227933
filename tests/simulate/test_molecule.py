"""Molecules are what SMILES and sequences say, in three dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule as g2

from sdas.data import Frame
from sdas.errors import SimulationError
from sdas.simulate import from_frames, from_sequence, from_smiles
from sdas.simulate.molecule import chemistry_of
from sdas.simulate.peptides import RESIDUES

Chem = pytest.importorskip("rdkit.Chem")
NAMES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
LETTERS = dict(zip("ARNDCQEGHILKMFPSTWYV", NAMES.split(), strict=True))


def frame_of(atoms, **state):
    return Frame(
        atoms.numbers.astype(np.int64), atoms.positions, None, np.zeros(3, bool), None, None, None, "here", **state
    )


@pytest.mark.parametrize("letter", LETTERS)
def test_residues_are_the_natural_amino_acids(letter):
    """RDKit's own sequence reader is the judge; InChI sees stereo and not which nitrogen bears a proton."""
    from rdkit.Chem.MolStandardize.rdMolStandardize import Uncharger

    ours = Uncharger().uncharge(Chem.MolFromSmiles(RESIDUES[LETTERS[letter]] + "O"))
    assert Chem.MolToInchi(ours) == Chem.MolToInchi(Chem.MolFromSequence(letter))


def test_a_sequence_becomes_a_capped_peptide():
    alanine = from_sequence("ACE-ALA-NME", 1, 0)
    assert len(alanine.numbers) == 22
    names, owners = alanine.residues
    assert names == ["ACE", "ALA", "NME"]
    assert [owners.count(index) for index in range(3)] == [6, 10, 6], "atoms of Amber's residues"
    assert len(from_sequence("ace-ala-ala-nme", 1, 0).numbers) == 32
    charged = from_sequence("ACE-LYS-NME", 1, 0)
    assert (charged.charge, charged.origin) == (1, {"sequence": "ACE-LYS-NME"})


def test_geometries_have_the_stereo_that_is_written():
    for smiles in ("C[C@H](F)Cl", "C[C@@H](F)Cl", "F/C=C/F", "F/C=C\\F"):
        made = from_smiles(smiles, 1, 0).chemistry
        Chem.AssignStereochemistryFrom3D(made)
        assert Chem.MolToSmiles(Chem.RemoveHs(made)) == Chem.CanonSmiles(smiles)


def test_stereo_that_is_left_open_is_chosen_and_told():
    made = from_smiles("CC(F)Cl", 1, 0)
    assert made.remarks == (f"the SMILES leaves stereo open: {made.origin['smiles']} is simulated",)
    assert "@" in made.origin["smiles"]
    assert from_smiles("CCO", 1, 0).remarks == ()


def test_conformers_differ_in_energy_and_the_lowest_is_first():
    """Butane has two minima but for mirror images, anti and gauche; 0.8 kcal/mol apart by MMFF94."""
    made = from_smiles("CCCC", 4, 0)
    torsions = [abs(dihedral(places[:4])) for places in made.conformers]
    assert torsions == pytest.approx([180, 65], abs=3)


def dihedral(places):
    """Degrees, of four points."""
    a, b, c = np.diff(places, axis=0)
    n, m = np.cross(a, b), np.cross(b, c)
    return np.degrees(np.arctan2(np.linalg.norm(b) * a @ m, n @ m))


def test_charge_and_spin_are_those_of_the_formula():
    assert (from_smiles("[OH-]", 1, 0).charge, from_smiles("[CH3]", 1, 0).spin) == (-1, 2)


def test_a_file_gives_its_molecule_with_bonds_by_distance():
    atoms = g2("CH3CH2OH")
    made = from_frames([frame_of(atoms), frame_of(atoms)])
    assert len(made.conformers) == 2
    assert sorted(map(tuple, made.bonds.tolist())) == sorted(
        tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))) for bond in chemistry_of(made).GetBonds()
    )
    with pytest.raises(SimulationError, match="has other atoms than here"):
        from_frames([frame_of(atoms), frame_of(atoms[::-1])])
    with pytest.raises(SimulationError, match="another charge or spin"):
        from_frames([frame_of(atoms), frame_of(atoms, charge=1.0)])


@pytest.mark.parametrize(
    ("make", "text", "words"),
    [
        (from_smiles, "C(C", "'C\\(C' cannot be read"),
        (from_smiles, "", "cannot be read"),
        (from_smiles, "CC(C)(C)(C)C", "is no molecule: Explicit valence for atom # 1 C, 5"),
        (from_smiles, "[Na+].[Cl-]", "several molecules"),
        (from_sequence, "ALA-ALA", "must read ACE-…-NME"),
        (from_sequence, "ACE-ALX-NME", "has a residue 'ALX'; known are ALA, ARG"),
    ],
)
def test_what_is_no_molecule_is_an_error(make, text, words):
    with pytest.raises(SimulationError, match=words):
        make(text, 1, 0)
