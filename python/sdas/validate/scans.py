"""Bonds and pairs of atoms that are pressed together must repel: no holes; and a torsion turns smoothly."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from sdas.data import Frame
from sdas.interpret.bonds import FloatArray, beyond, bonds_of
from sdas.interpret.coordinate import chosen_torsion, torsion_scan
from sdas.validate.check import Check, Curve, judged, skipped
from sdas.validate.subject import Subject

POINTS = 40
SHORTEST = 0.6
"""Scans go down to so many times the shortest distance in the frames."""
ALONE = 0.75
"""Of the sum of covalent radii: two atoms alone may attract as far as that. No bond is shorter, N₂ neither."""
STRETCHED = 1.3
"""Bonds are stretched to so many times their length."""
NEAR = 1.1
"""The minimum of a bond is looked for up to so many times its length in the frame."""
HOLE_EV = 0.05
"""Twice the thermal energy at 300 K: a hole of that depth holds atoms for a while."""
TORSION_POINTS = 72
ROUGH_MEV, ROUGH_SHARE = 1.0, 0.005


def hole(energies: FloatArray) -> float:
    """By how much energies that should only rise fall below what was reached before, eV; 0 if they only rise."""
    return float((np.maximum.accumulate(energies) - energies).max())


def dimers(subject: Subject) -> tuple[list[Check], list[Curve]]:
    """Two atoms alone, for each pair of elements, inwards from where any pair repels, or from the frames' shortest."""
    depths, lines = {}, {}
    share = np.linspace(1, SHORTEST, POINTS)
    for (a, b), shortest in sorted(subject.shortest().items()):
        first = min(shortest, ALONE * float(covalent_radii[a] + covalent_radii[b]))
        frames = [_dimer(a, b, first * x) for x in share]
        energy = subject.predicted(frames).energy
        name = chemical_symbols[a] + "–" + chemical_symbols[b]
        depths[name], lines[name] = hole(energy), (energy - energy[0]).tolist()
    if not depths:
        return [skipped("short range", "pairs of atoms alone", "no two atoms of the frames meet")], []
    curve = Curve("Pairs of atoms alone", "distance / the first of the scan", "energy (eV)", share.tolist(), lines)
    return [_deepest("pairs of atoms alone: deepest hole", depths)], [curve]


def bonds(subject: Subject) -> tuple[list[Check], list[Curve]]:
    """A bond of each kind in the first frame, pressed and stretched; what is beyond it moves along as it is."""
    frame, group = subject.first, "short range"
    bonded, shortest = bonds_of(frame), subject.shortest()
    pressed, stretched, curves = {}, {}, []
    for b, c in np.argwhere(np.triu(bonded)).tolist():
        elements = sorted((int(frame.numbers[b]), int(frame.numbers[c])))
        name = chemical_symbols[elements[0]] + "–" + chemical_symbols[elements[1]]
        side = beyond(bonded, b, c)
        if name in pressed or side is None or frame.pbc.any():
            continue
        arm = frame.positions[c] - frame.positions[b]
        length, nearest = float(np.linalg.norm(arm)), shortest[elements[0], elements[1]]
        inward = np.linspace(nearest, SHORTEST * nearest, POINTS)
        outward = np.linspace(nearest, STRETCHED * length, POINTS)
        energy = subject.energies([_stretched(frame, side, arm / length, x - length) for x in (*inward, *outward)])
        lowest = int(np.argmin(np.where(outward < NEAR * length, energy[POINTS:], np.inf)))
        pressed[name], stretched[name] = hole(energy[:POINTS]), hole(energy[POINTS + lowest :])
        x, y = np.concatenate([inward[::-1], outward]), np.concatenate([energy[:POINTS][::-1], energy[POINTS:]])
        order = np.argsort(x)
        line = (y - y.min())[order].tolist()
        curves.append(Curve(f"Bond {name}", "length (Å)", "energy (eV)", x[order].tolist(), {name: line}))
    if not pressed:
        return [skipped(group, "bonds", "the first frame is periodic, or has no bond outside of rings")], []
    return [
        _deepest("bonds pressed: deepest hole", pressed),
        _deepest(f"bonds stretched by {STRETCHED - 1:.0%}: deepest hole", stretched),
    ], curves


def torsion(subject: Subject) -> tuple[list[Check], list[Curve]]:
    """How far each energy of a torsion scan is from the cubic through its four neighbors, 5 degrees apart."""
    chosen = chosen_torsion(subject.first, None)
    if chosen is None:
        return [skipped("scans", "torsion: roughness", "there is no torsion about a bond outside of rings")], []
    degrees, frames = torsion_scan(subject.first, chosen, TORSION_POINTS)
    energy = subject.predicted(frames).energy
    energy = 1000 * (energy - energy.min())
    near, far = np.roll(energy, 1) + np.roll(energy, -1), np.roll(energy, 2) + np.roll(energy, -2)
    rough = float(np.abs(energy - (4 * near - far) / 6).max())
    bound = ROUGH_MEV + ROUGH_SHARE * float(np.ptp(energy))
    label = ",".join(map(str, chosen))
    curve = Curve(f"Torsion {label}", "torsion (degrees)", "energy (meV)", degrees.tolist(), {label: energy.tolist()})
    return [judged("scans", "torsion: roughness", rough, bound, "meV", f"atoms {label}")], [curve]


def _deepest(name: str, depths: dict[str, float]) -> Check:
    worst = max(depths, key=lambda pair: depths[pair])
    return judged("short range", name, depths[worst], HOLE_EV, "eV", f"{worst} of {', '.join(depths)}")


def _dimer(a: int, b: int, distance: float) -> Frame:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    none = np.zeros(3, dtype=bool)
    return Frame(np.array([a, b]), positions, None, none, None, None, None, f"pair at {distance:.3f} Å")


def _stretched(frame: Frame, side: list[int], direction: FloatArray, by: float) -> FloatArray:
    positions = frame.positions.copy()
    positions[side] += by * direction
    return positions
