"""Forces and stresses are the derivatives of the energy, by central differences in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sdas.data import Frame
from sdas.interpret.bonds import FloatArray
from sdas.validate.check import Check, judged, skipped
from sdas.validate.subject import Subject, moved

STEP_ANG, STEP_STRAIN = 1e-4, 1e-5
FORCE_MEV_PER_ANG = 0.1
STRESS_MEV_PER_ANG3 = 0.01
DIRECTIONS = 24


def forces_by_differences(subject: Subject) -> list[Check]:
    """F·u against −dE/du along random directions u of all atoms at once, |u| = 1 for the most moved atom."""
    rng, frame = np.random.default_rng(1), subject.first
    forces = subject.predicted([frame]).forces
    directions = rng.normal(size=(DIRECTIONS, *frame.positions.shape))
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    ends = [frame.positions + sign * STEP_ANG * u for u in directions for sign in (1, -1)]
    energy = subject.energies(ends).reshape(-1, 2)
    slopes = (energy[:, 0] - energy[:, 1]) / (2 * STEP_ANG)
    worst = 1000 * float(np.abs(slopes + (directions * forces).sum((1, 2))).max())
    return [judged("derivatives", "forces = −dE/dx", worst, FORCE_MEV_PER_ANG, "meV/Å")]


def stress_by_differences(subject: Subject) -> list[Check]:
    """σ against (1/V) dE/dε for the six strains, of the first frame that is periodic along all axes."""
    group, name = "derivatives", "stress = dE/dε / V"
    frame = next((frame for frame in subject.frames if frame.pbc.all()), None)
    if frame is None or frame.volume is None:
        return [skipped(group, name, "no frame is periodic along all three axes")]
    stress = subject.predicted([frame], stress=True).stress
    assert stress is not None
    worst = 0.0
    for a in range(3):
        for b in range(a, 3):
            ends = [_strained(frame, a, b, sign * STEP_STRAIN) for sign in (1, -1)]
            energy = subject.predicted(ends).energy
            slope = (energy[0] - energy[1]) / (2 * STEP_STRAIN) / frame.volume
            worst = max(worst, 1000 * abs(float(slope - stress[0, a, b])))
    return [judged(group, name, worst, STRESS_MEV_PER_ANG3, "meV/Å³")]


def _strained(frame: Frame, a: int, b: int, strain: float) -> Frame:
    stretch: FloatArray = np.eye(3)
    stretch[a, b] += strain / 2
    stretch[b, a] += strain / 2
    assert frame.cell is not None
    return replace(moved(frame, frame.positions @ stretch), cell=frame.cell @ stretch)
