"""Far copies do not see each other, and nothing jumps when a neighbor crosses the cutoff."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sdas.data import Frame
from sdas.validate.check import Check, judged
from sdas.validate.subject import Subject, moved

EXTENSIVE_MEV_PER_ATOM = 1e-3
CROSSING_ANG = 1e-3
JUMP_MEV, JUMP_MEV_PER_ANG = 0.01, 0.1


def extensivity(subject: Subject) -> list[Check]:
    """Two far copies of a molecule, or two cells side by side, have twice the energy and the same forces."""
    frame = subject.first
    one, two = subject.predicted([frame]), subject.predicted([_doubled(frame, float(subject.exact.cutoff))])
    energy = 1000 * abs(float(two.energy[0] - 2 * one.energy[0])) / (2 * len(frame))
    force = 1000 * float(np.abs(two.forces - np.tile(one.forces, (2, 1))).max())
    return [
        judged("locality", "two copies: energy", energy, EXTENSIVE_MEV_PER_ATOM, "meV/atom"),
        judged("locality", "two copies: forces", force, EXTENSIVE_MEV_PER_ATOM, "meV/Å"),
    ]


def _doubled(frame: Frame, cutoff: float) -> Frame:
    if frame.pbc.any() and frame.cell is not None:
        axis = int(np.argmax(frame.pbc))
        apart, cell = frame.cell[axis], frame.cell.copy()
        cell[axis] *= 2
    else:
        size = float(np.ptp(frame.positions[:, 0]))
        apart, cell = np.array([size + 3 * cutoff, 0.0, 0.0]), frame.cell
    positions = np.concatenate([frame.positions, frame.positions + apart])
    return replace(
        frame, numbers=np.tile(frame.numbers, 2), positions=positions, cell=cell, energy=None, forces=None, stress=None,
        charge=None, spin=None,
    )  # fmt: skip


def crossing(subject: Subject) -> list[Check]:
    """An atom comes from outside: it crosses the cutoff of the outermost atom, which is its only neighbor then.

    The jump is the difference between 0.001 Å inside and outside, where a smooth energy changes by far less. It is
    looked at with every element of the frame. Periodic frames are taken out of their cell.
    """
    frame, cutoff = subject.first, float(subject.exact.cutoff)
    center = frame.positions.mean(0)
    outermost = int(np.argmax(np.linalg.norm(frame.positions - center, axis=1)))
    out = frame.positions[outermost] - center
    out = out / np.linalg.norm(out) if np.linalg.norm(out) > 1e-6 else np.array([1.0, 0.0, 0.0])
    energy, force = 0.0, 0.0
    for element in np.unique(frame.numbers):
        ends = []
        for distance in (cutoff - CROSSING_ANG, cutoff + CROSSING_ANG):
            positions = np.concatenate([frame.positions, [frame.positions[outermost] + distance * out]])
            made = replace(
                frame, numbers=np.append(frame.numbers, element), positions=positions, cell=None,
                pbc=np.zeros(3, dtype=bool), energy=None, forces=None, stress=None, charge=None, spin=None,
            )  # fmt: skip
            ends.append(moved(made, positions))
        found = subject.predicted(ends)
        energy = max(energy, 1000 * abs(float(found.energy[0] - found.energy[1])))
        inside, outside = np.split(found.forces, 2)
        force = max(force, 1000 * float(np.abs(inside - outside).max()))
    return [
        judged("locality", "a neighbor crosses the cutoff: energy", energy, JUMP_MEV, "meV"),
        judged("locality", "a neighbor crosses the cutoff: forces", force, JUMP_MEV_PER_ANG, "meV/Å"),
    ]
