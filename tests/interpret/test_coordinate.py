"""Torsion scans, principal components, and what features tell."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sdas.errors import SdasError
from sdas.interpret.bonds import bonds_of, distances_of
from sdas.interpret.coordinate import chosen_torsion, circular_r2, principal_components, torsion_angles, torsion_scan
from sdas.interpret.features import angles_read, held_out_r2, invariants


def test_a_scan_turns_the_torsion_and_nothing_else(ethanol_frames):
    frame = ethanol_frames[0]
    torsion = chosen_torsion(frame, None)
    assert sorted(frame.numbers[list(torsion)].tolist()) == [1, 6, 6, 8]
    angles, scan = torsion_scan(frame, torsion, 8)
    np.testing.assert_allclose(torsion_angles(scan, torsion), angles, atol=1e-6)
    bonded = bonds_of(frame)
    for turned in scan:
        np.testing.assert_allclose(distances_of(turned)[bonded], distances_of(frame)[bonded], atol=1e-9)
        assert turned.energy is None


@pytest.mark.parametrize("wanted", [[0, 1, 2], [0, 1, 2, 99], [0, 0, 1, 2], [3, 4, 0, 1]])
def test_what_is_no_torsion_is_refused(ethanol_frames, wanted):
    with pytest.raises(SdasError, match="torsion"):
        chosen_torsion(ethanol_frames[0], wanted)


def test_the_correlation_with_an_angle_is_one_for_its_waves_and_none_for_others():
    degrees = np.arange(0, 360, 10.0)
    phi = np.radians(degrees)
    assert circular_r2(3 + np.cos(phi - 0.7), degrees) == pytest.approx(1)
    assert circular_r2(np.cos(3 * phi), degrees) == pytest.approx(0, abs=1e-12)


def test_components_are_those_of_the_covariance():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(50, 4)) @ np.diag([3.0, 1.0, 0.5, 0.1])
    values, share = principal_components(inputs)
    eigenvalues = np.linalg.eigvalsh(np.cov(inputs.T))[::-1]
    np.testing.assert_allclose(values.var(0, ddof=1), eigenvalues[:3], rtol=1e-9)
    np.testing.assert_allclose(share, eigenvalues[:3] / eigenvalues.sum(), rtol=1e-9)


def test_invariants_do_not_turn_with_the_molecule(make_model, ethanol_frames):
    model, frame = make_model(), ethanol_frames[0]
    turn = Rotation.from_rotvec([0.3, -1.1, 0.4])
    turned = replace(frame, positions=turn.apply(frame.positions))
    one, other = invariants(model, [frame, turned], 2)
    assert one.shape == (9, model.lmax + 1, 8)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_a_straight_line_is_read_and_noise_is_not():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(80, 5))
    assert held_out_r2(inputs, inputs @ [1.0, -2, 0, 0.5, 0] + 4) > 0.99
    assert held_out_r2(inputs, rng.normal(size=80)) < 0.2


def test_features_that_hold_the_angle_are_a_finding(ethanol_frames):
    """Planted: the cosine of every kind of angle stands in the features of the model, and noise in the control's."""
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(24, 9, 2, 3))
    planted = rng.normal(size=(24, 9, 2, 3)) * 1e-3
    found = angles_read(noise, [rng.normal(size=noise.shape)], ethanol_frames)
    assert not found["degrees"]["all degrees"]["finding"]
    positions = np.stack([frame.positions for frame in ethanol_frames])
    for i in range(9):
        near = np.flatnonzero(bonds_of(ethanol_frames[0])[i])
        arms = positions[:, near] - positions[:, i : i + 1]
        arms /= np.linalg.norm(arms, axis=2, keepdims=True)
        elements = ethanol_frames[0].numbers[near]
        kinds = sorted({tuple(sorted((a, b))) for p, a in enumerate(elements) for b in elements[p + 1 :]})
        for slot, kind in enumerate(kinds):
            pairs = [
                (arms[:, p] * arms[:, q]).sum(1)
                for p in range(len(near))
                for q in range(p + 1, len(near))
                if tuple(sorted((elements[p], elements[q]))) == kind
            ]
            planted[:, i].reshape(24, -1)[:, slot] += 100 * np.mean(pairs, 0)
    found = angles_read(planted, [noise], ethanol_frames)
    assert found["degrees"]["all degrees"]["finding"], found
