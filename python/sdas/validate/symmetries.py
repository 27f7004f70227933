"""A molecule may be turned, shifted, mirrored and renumbered, and nothing changes but the directions of forces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sdas.data import Frame
from sdas.interpret.bonds import FloatArray
from sdas.validate.check import Check, judged, skipped
from sdas.validate.subject import Subject, moved

ENERGY_MEV_PER_ATOM = 0.1
FORCE_MEV_PER_ANG = 1.0
SHIFT_ANG = (3.1, -2.7, 4.3)
MOST_FRAMES = 3


def symmetries(subject: Subject) -> list[Check]:
    """Two lines for each symmetry, energies and forces: the largest change over three frames and both precisions.

    float32 rounds most. But graphs of float32 are made near the origin, so only float64 sees a place in space.
    """
    rng, group, checks = np.random.default_rng(0), "symmetry", []
    frames = subject.frames[:MOST_FRAMES]
    turn = _rotation(rng)
    mirror = turn * np.array([1.0, 1.0, -1.0])
    cases = {
        "translation": [(moved(f, f.positions + SHIFT_ANG), np.eye(3), np.arange(len(f))) for f in frames],
        "rotation": [(_turned(f, turn), turn, np.arange(len(f))) for f in frames],
        "mirror": [(_turned(f, mirror), mirror, np.arange(len(f))) for f in frames],
        "renumbering": [
            (_renumbered(f, order), np.eye(3), order) for f in frames for order in [rng.permutation(len(f))]
        ],
    }
    models = (subject.single, subject.exact)
    before = [[subject.predicted([frame], model) for model in models] for frame in frames]
    for name, changed in cases.items():
        if name == "mirror" and getattr(subject.exact, "config", {}).get("parity") is False:
            checks.append(skipped(group, name, "the model was made with parity=False: it tells mirror images apart"))
            continue
        energy, force = [0.0], [0.0]
        for (frame, turned, order), plain in zip(changed, before, strict=True):
            for model, own in zip(models, plain, strict=True):
                found = subject.predicted([frame], model)
                energy.append(1000 * abs(float(found.energy[0] - own.energy[0])) / len(frame))
                force.append(1000 * float(np.abs(found.forces - (own.forces @ turned.T)[order]).max()))
        checks.append(judged(group, f"{name}: energy", max(energy), ENERGY_MEV_PER_ATOM, "meV/atom"))
        checks.append(judged(group, f"{name}: forces", max(force), FORCE_MEV_PER_ANG, "meV/Å"))
    return checks


def _rotation(rng: np.random.Generator) -> FloatArray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def _turned(frame: Frame, turn: FloatArray) -> Frame:
    cell = None if frame.cell is None else frame.cell @ turn.T
    return replace(moved(frame, frame.positions @ turn.T), cell=cell)


def _renumbered(frame: Frame, order: np.ndarray) -> Frame:
    return replace(moved(frame, frame.positions[order]), numbers=frame.numbers[order])
