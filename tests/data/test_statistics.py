"""Sums over a stream agree with sums over the whole."""

import numpy as np
import pytest

from sdas.data.statistics import Moments, summarize


def test_moments_agree_with_numpy_far_from_zero():
    values = 1e6 + np.random.default_rng(0).normal(size=500)
    moments = Moments()
    for value in values.tolist():
        moments.add(value)
    assert (moments.count, moments.low, moments.high) == (500, values.min(), values.max())
    assert moments.mean == pytest.approx(values.mean(), rel=1e-14)
    assert moments.std == pytest.approx(values.std(), rel=1e-8)


def test_a_summary_agrees_with_numpy(water):
    frames = [water(i) for i in range(30)]
    forces = np.array([frame.forces for frame in frames])
    summary = summarize(iter([*frames, water(30, forces=None, energy=None, cell=5 * np.eye(3), pbc=np.ones(3, bool))]))
    assert (summary.frames, summary.with_forces, summary.energy_per_atom.count, summary.periodic) == (31, 30, 30, 1)
    assert summary.elements == {1: 62, 8: 31}
    assert summary.compositions == {((1, 2), (8, 1))}
    assert summary.energy_per_atom.mean == pytest.approx(np.mean([frame.energy / 3 for frame in frames]))
    assert summary.force_rms == pytest.approx(np.sqrt((forces**2).mean()))
    assert summary.force_norm.high == pytest.approx(np.linalg.norm(forces, axis=2).max())
    assert summary.net_force.mean == pytest.approx(np.linalg.norm(forces.sum(axis=1), axis=1).mean())
    text = "\n".join(summary.lines())
    for part in ("frames: 31 (1 periodic)", "H 62, O 31", "eV per atom", "eV/Å", "frames with forces: 30 of 31"):
        assert part in text
