"""Factors agree with ASE's constants, and unknown or half-given units are refused."""

import re

import ase.units
import pytest

from sdas.data import DataError, Units
from sdas.data.units import (
    BOHR,
    GPA,
    HARTREE,
    KCAL_PER_MOL,
    KJ_PER_MOL,
    energy_factor,
    force_factor,
    length_factor,
    stress_factor,
)


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
        ("eV,Å,eV/Å,-kbar", 1, 1, 1, -0.1 * GPA),
        ("eV, Å, eV/Å, bar", 1, 1, 1, 1e-4 * GPA),
        ("Eh,a0,au,-Pa", HARTREE, BOHR, HARTREE / BOHR, -1e-9 * GPA),
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


@pytest.mark.parametrize(
    ("word", "factor"),
    [
        ("kcal/mol/Å", KCAL_PER_MOL),
        ("kcal/(mol Å)", KCAL_PER_MOL),
        ("kcal mol-1 A-1", KCAL_PER_MOL),
        ("kcal/mol/Ang", KCAL_PER_MOL),
        ("kJ·mol⁻¹·nm⁻¹", KJ_PER_MOL / 10),
        ("hartree/bohr", HARTREE / BOHR),
        ("Eh a0^-1", HARTREE / BOHR),
        ("eV per angstrom", 1.0),
        ("mHa/bohr", 1e-3 * HARTREE / BOHR),
    ],
)
def test_a_unit_of_force_is_understood_however_it_is_spelled(word, factor):
    assert force_factor(word) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("word", "factor"),
    [
        ("eV/Ang**3", 1.0),
        ("eV/A^3", 1.0),
        ("eV/Å³", 1.0),
        ("eV/Ang/Ang/Ang", 1.0),
        ("Ha/bohr3", HARTREE / BOHR**3),
        ("kB", 0.1 * GPA),
        ("MPa", 1e-3 * GPA),
        ("-GPa", -GPA),
        ("atm", 1.01325e-4 * GPA),
    ],
)
def test_a_unit_of_stress_is_understood_however_it_is_spelled(word, factor):
    assert stress_factor(word) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    "word", ["eV/atom", "eV/mol", "eV Å", "kcal/mol A", "eV/", "(eV/Å", "eV)/Å", "1", "/", "eV//Å"]
)
def test_a_unit_of_another_kind_is_not_taken(word):
    for factor in (energy_factor, force_factor, stress_factor):
        with pytest.raises(DataError, match=f"unknown unit of .*{re.escape(repr(word))}"):
            factor(word)


def test_factors_are_those_of_ase():
    assert stress_factor("bar") == pytest.approx(ase.units.bar, rel=1e-8)
    assert energy_factor("Ry") == pytest.approx(ase.units.Rydberg, rel=1e-8)
    assert length_factor("nm") == ase.units.nm
