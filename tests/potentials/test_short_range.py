"""Shipped potentials with inner cutoffs have no holes at short distance, and dynamics pass in and out of them."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import FIRE

import sdas
from sdas import potentials
from sdas.data import Frame
from sdas.interpret.bonds import beyond, bonds_of
from sdas.md import Replicas, SDASCalculator
from sdas.validate.scans import bonds, dimers
from sdas.validate.subject import Subject
from sdas_kernels.nn import InnerCutoff


def pressed(frame: Frame, share: float) -> Atoms:
    """The molecule with its first bond outside of rings at a share of its length."""
    bonded = bonds_of(frame)
    sides = ((b, c, beyond(bonded, b, c)) for b, c in np.argwhere(np.triu(bonded)).tolist())
    b, c, side = next(each for each in sides if each[2] is not None)
    positions = frame.positions.copy()
    positions[side] -= (1 - share) * (frame.positions[c] - frame.positions[b])
    return Atoms(frame.numbers, positions)


def test_each_card_says_whether_there_are_inner_cutoffs() -> None:
    for name in potentials.NAMES:
        there = isinstance(sdas.pretrained(name).repulsion, InnerCutoff)
        assert there == potentials.card(name)["short_range"].startswith("inner cutoffs"), name


def test_pairs_alone_and_pressed_bonds_of_the_one_with_the_deepest_holes_repel() -> None:
    """Without inner cutoffs uracil's holes are 390 and 154 eV deep."""
    subject = Subject.of(sdas.pretrained("uracil"), [potentials.frame("uracil")])
    lines = {check.name: check.status for check in dimers(subject)[0] + bonds(subject)[0]}
    assert lines["pairs of atoms alone: deepest hole"] == lines["bonds pressed: deepest hole"] == "pass"


def test_a_molecule_with_a_pressed_bond_relaxes_to_itself() -> None:
    lowest = []
    for share in (1.0, 0.7):
        atoms = pressed(potentials.frame("malonaldehyde"), share)
        atoms.calc = SDASCalculator(sdas.pretrained("malonaldehyde"))
        FIRE(atoms, logfile=None).run(fmax=0.05, steps=300)
        lowest.append(atoms.get_potential_energy())
    assert lowest[1] == pytest.approx(lowest[0], abs=0.3)  # some conformation of it


def test_dynamics_through_an_inner_cutoff_keep_the_energy() -> None:
    """The bond begins within it, so steps pass from the model to the frozen potential and back."""
    model, start = sdas.pretrained("malonaldehyde"), pressed(potentials.frame("malonaldehyde"), 0.88)
    inner, distances, energies, within = model.repulsion.lengths(), [], [], []
    replicas = Replicas(model, [start], "nve", 100.0, timestep_fs=0.1)

    def observe(now: Replicas) -> None:
        distances.append(now.atoms(0).get_all_distances())
        energies.append(float(now.conserved()))

    replicas.run(300, observe=observe)
    for each in distances:
        pairs = ((i, j, tuple(sorted((start.numbers[i], start.numbers[j])))) for i, j in np.argwhere(np.triu(each, 1)))
        within.append(any(each[i, j] < inner.get(pair, 0.0) for i, j, pair in pairs))
    assert np.abs(np.diff(np.array(within, dtype=int))).sum() + 1 >= 2
    assert any(within)
    assert not all(within)
    assert np.ptp(energies) < 0.002
