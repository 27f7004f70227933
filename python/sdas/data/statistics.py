"""What a data set holds, summed up in one pass over its frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from sdas.data.frame import Frame

MAX_FORMULAS = 10_000


@dataclass(slots=True)
class Moments:
    """Count, mean, spread and extremes of numbers given one by one (Welford, Technometrics 4, 419, 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        """Take one more number into account."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)
        self.low, self.high = min(self.low, value), max(self.high, value)

    @property
    def std(self) -> float:
        """Population standard deviation; 0 without numbers."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass(slots=True)
class Summary:
    """Statistics of a data set: energies in eV per atom, forces in eV/Å."""

    frames: int = 0
    atoms: Moments = field(default_factory=Moments)
    elements: Counter[int] = field(default_factory=Counter)
    compositions: set[tuple[tuple[int, int], ...]] = field(default_factory=set)
    periodic: int = 0
    energy_per_atom: Moments = field(default_factory=Moments)
    force_norm: Moments = field(default_factory=Moments)
    force_square: float = 0.0
    net_force: Moments = field(default_factory=Moments)
    with_forces: int = 0
    with_stress: int = 0

    def add(self, frame: Frame) -> None:
        """Take one more frame into account."""
        self.frames += 1
        self.atoms.add(len(frame))
        composition = frame.composition
        self.elements.update(dict(composition))
        if len(self.compositions) < MAX_FORMULAS:
            self.compositions.add(composition)
        self.periodic += bool(frame.pbc.any())
        self.with_stress += frame.stress is not None
        if frame.energy is not None:
            self.energy_per_atom.add(frame.energy / len(frame))
        if frame.forces is not None:
            self.with_forces += 1
            self.force_square += float((frame.forces**2).sum())
            self.net_force.add(float(np.linalg.norm(frame.forces.sum(axis=0))))
            for norm in np.linalg.norm(frame.forces, axis=1).tolist():
                self.force_norm.add(norm)

    @property
    def force_rms(self) -> float:
        """Root mean square of all force components, eV/Å."""
        return math.sqrt(self.force_square / (3 * self.force_norm.count)) if self.force_norm.count else 0.0

    def lines(self) -> list[str]:
        """The summary as lines of text, each ``name: value unit``."""
        elements = ", ".join(f"{chemical_symbols[z]} {n}" for z, n in sorted(self.elements.items()))
        compositions = f"{len(self.compositions)}{' or more' if len(self.compositions) == MAX_FORMULAS else ''}"
        text = [
            f"frames: {self.frames} ({self.periodic} periodic)",
            f"atoms per frame: {self.atoms.low:.0f} to {self.atoms.high:.0f}, mean {self.atoms.mean:.1f}",
            f"elements: {elements}",
            f"compositions: {compositions}",
        ]
        energy, net = self.energy_per_atom, self.net_force
        if energy.count:
            text.append(
                f"energy: {energy.mean:.4f} ± {energy.std:.4f} eV per atom, from {energy.low:.4f} to {energy.high:.4f}"
            )
        if self.with_forces:
            text.append(f"forces: root mean square {self.force_rms:.4f} eV/Å, largest {self.force_norm.high:.4f} eV/Å")
            text.append(f"net force per frame: mean {net.mean:.2e} eV/Å, largest {net.high:.2e} eV/Å")
        for label, count in (("energy", energy.count), ("forces", self.with_forces), ("stress", self.with_stress)):
            text.append(f"frames with {label}: {count} of {self.frames}")
        return text


def summarize(frames: Iterable[Frame]) -> Summary:
    """The :class:`Summary` of ``frames``, in one pass and bounded memory."""
    summary = Summary()
    for frame in frames:
        summary.add(frame)
    return summary
