"""Bonds, sides of bonds, torsions, and the area under the ROC curve."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from sdas.data import Frame
from sdas.interpret.bonds import angles_of, beyond, bonds_by_rdkit, bonds_of, roc_auc, torsions_of
from sdas.interpret.controls import beats, random_models


def frame_of(atoms: Atoms) -> Frame:
    pbc = np.array(atoms.pbc)
    cell = np.array(atoms.cell.array) if pbc.any() else None
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, pbc, None, None, None, "made")


def test_ethanol_has_its_bonds_and_torsions():
    frame = frame_of(molecule("CH3CH2OH"))  # C C O H(O) H H H H H
    bonded = bonds_of(frame)
    degree = bonded.sum(1).tolist()
    assert (bonded == bonded.T).all()
    assert bonded.sum() == 2 * 8
    assert sorted(degree) == [1] * 6 + [2, 4, 4]
    assert len(angles_of(bonded)) == 6 + 6 + 1  # 4 over 2, twice, and C-O-H
    turning = [sorted(frame.numbers[list(torsion)].tolist()) for torsion in torsions_of(frame.numbers.tolist(), bonded)]
    assert turning == [[1, 6, 6, 8], [1, 6, 6, 8]]  # about C-O and about C-C


def test_rdkit_finds_the_same_bonds():
    pytest.importorskip("rdkit", reason="RDKIT ABSENT")
    frame = frame_of(molecule("CH3CH2OH"))
    np.testing.assert_array_equal(bonds_by_rdkit(frame), bonds_of(frame))


def test_a_ring_is_not_cut_by_one_bond():
    bonded = bonds_of(frame_of(molecule("C6H6")))
    assert beyond(bonded, 0, 1) is None
    assert beyond(bonded, 0, int(np.flatnonzero(bonded[0])[-1])) == [int(np.flatnonzero(bonded[0])[-1])]
    assert torsions_of([6] * 6 + [1] * 6, bonded) == []


def test_bonds_reach_through_the_walls_of_a_cell():
    bonded = bonds_of(frame_of(Atoms("OH", [[0.1, 0, 0], [4.2, 0, 0]], cell=[5.0] * 3, pbc=True)))
    assert bonded[0, 1]


def test_the_area_is_that_of_mann_and_whitney():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.3
    wanted = stats.mannwhitneyu(score[positive], score[~positive]).statistic / positive.sum() / (~positive).sum()
    assert roc_auc(score, positive) == pytest.approx(wanted, rel=1e-12)
    assert roc_auc(score, np.zeros(60, bool)) is None


def test_only_what_beats_every_control_counts():
    assert beats(0.9, [0.8, 0.88])
    assert not beats(0.9, [0.8, 0.895])
    assert not beats(0.9, [0.8, None])
    assert not beats(None, [0.1])


def test_controls_have_the_shape_of_the_model_and_other_weights(make_model):
    import torch

    model = make_model()
    state = torch.get_rng_state()
    one, other = random_models(model, [1, 2])
    assert torch.equal(torch.get_rng_state(), state)
    assert one.config == model.config
    assert one.embedding.weight.dtype == model.embedding.weight.dtype
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
