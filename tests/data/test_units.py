"""Factors agree with ASE's constants, and unknown or half-given units are refused."""

import ase.units
import pytest

from sdas.data import DataError, Units
from sdas.data.units import BOHR, GPA, HARTREE, KCAL_PER_MOL, KJ_PER_MOL


def test_constants_are_those_of_ase():
    assert pytest.approx(ase.units.Hartree, rel=1e-14) == HARTREE
    assert pytest.approx(ase.units.Bohr, rel=1e-14) == BOHR
    assert pytest.approx(ase.units.kcal / ase.units.mol, rel=3e-7) == KCAL_PER_MOL
    assert pytest.approx(ase.units.kJ / ase.units.mol, rel=3e-7) == KJ_PER_MOL
    assert pytest.approx(ase.units.GPa, rel=1e-8) == GPA


@pytest.mark.parametrize(
    ("text", "energy", "length", "force", "stress"),
    [
        ("eV", 1, 1, 1, 1),
        ("kcal/mol", KCAL_PER_MOL, 1, KCAL_PER_MOL, KCAL_PER_MOL),
        ("kJ/mol, nm", KJ_PER_MOL, 10, KJ_PER_MOL / 10, KJ_PER_MOL / 1000),
        ("Hartree,bohr", HARTREE, BOHR, HARTREE / BOHR, HARTREE / BOHR**3),
        ("Ha,Å,Ha/bohr", HARTREE, 1, HARTREE / BOHR, HARTREE),
        ("eV,angstrom,eV/Å,GPa", 1, 1, 1, GPA),
        ("eV,Å,kcal/mol/Å,eV/Å^3", 1, 1, KCAL_PER_MOL, 1),
        ("au,au", HARTREE, BOHR, HARTREE / BOHR, HARTREE / BOHR**3),
        ("meV", 1e-3, 1, 1e-3, 1e-3),
    ],
)
def test_units_are_parsed(text, energy, length, force, stress):
    units = Units.parse(text)
    assert (units.energy, units.length, units.force, units.stress) == pytest.approx((energy, length, force, stress))


@pytest.mark.parametrize(
    "text", ["", "eV,", "parsec", "eV,furlong", "eV,Å,eV", "eV,Å,kcal/mol", "eV,Å,eV/Å,eV/Å", "eV,Å,eV/Å,GPa,K"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(DataError, match="unit"):
        Units.parse(text)


def test_spelling_does_not_matter_to_equality():
    assert Units.parse("Ha,a0").same_as(Units.parse("hartree, Bohr"))
    assert not Units.parse("eV").same_as(Units.parse("kcal/mol"))
