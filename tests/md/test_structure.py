"""Dynamics start from any file that holds frames, of any format that can be named."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms

from sdas.data import sample
from sdas.data.units import BOHR
from sdas.errors import SdasError
from sdas.md.structure import read_structure


def test_a_format_that_the_name_does_not_give_is_named(tmp_path):
    ase.io.write(tmp_path / "start.odd", [molecule("H2O"), molecule("CO")], format="extxyz")
    assert len(read_structure(tmp_path / "start.odd", 0, {"format": "ase:extxyz"})) == 3
    assert len(read_structure(tmp_path / "start.odd", -1, {"format": "ase:extxyz"})) == 2
    with pytest.raises(SdasError, match=r"cannot be read.*--format ase:NAME"):
        read_structure(tmp_path / "start.odd", 0, {"format": "ase:vasp"})


def test_lengths_are_converted_and_what_ase_knows_is_kept(tmp_path):
    atoms = molecule("H2O", vacuum=3.0)
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "a.traj", atoms)
    found = read_structure(tmp_path / "a.traj", 0, {"units": "Hartree,bohr"})
    np.testing.assert_allclose(found.positions, atoms.positions * BOHR)
    np.testing.assert_allclose(found.cell, atoms.cell * BOHR)
    assert found.constraints[0].index.tolist() == [0]
    with pytest.raises(SdasError, match="--energy-key says nothing of a structure"):
        read_structure(tmp_path / "a.traj", 0, {"energy_key": "x"})


def test_formats_that_ase_does_not_read_are_read_too():
    path = sample("ethanol")[0]
    with np.load(path) as stored:
        for frame in (0, 7, -1, -1000):
            np.testing.assert_array_equal(read_structure(path, frame).positions, stored["coords"][frame])
    for frame in (1000, -1001):
        with pytest.raises(SdasError, match=f"there is no frame {frame}"):
            read_structure(path, frame)
