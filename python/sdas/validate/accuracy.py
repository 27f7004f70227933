"""Errors on labels, beside how much there is to tell."""

from __future__ import annotations

import numpy as np

from sdas.evaluate import evaluate
from sdas.validate.check import Check, judged, skipped
from sdas.validate.subject import Subject

FORCE_SHARE, ENERGY_SHARE = 0.1, 0.2


def errors(subject: Subject) -> list[Check]:
    """Mean absolute errors on the labelled frames, against a share of what the labels themselves vary by."""
    group = "errors"
    labelled = [f for f in subject.frames if f.energy is not None or f.forces is not None or f.stress is not None]
    if not labelled:
        return [skipped(group, "forces on labels", "no frame has labels")]
    found, checks = evaluate(subject.exact, labelled).metrics, []
    forces = [frame.forces for frame in labelled if frame.forces is not None]
    if forces:
        size = 1000 * float(np.abs(np.concatenate(forces)).mean())
        error = found["force_mae_mev_per_ang"]
        assert error is not None
        checks.append(
            judged(group, "forces on labels", error, FORCE_SHARE * size, "meV/Å", f"mean size {size:.0f} meV/Å")
        )
    by_atoms: dict[tuple[tuple[int, int], ...], list[float]] = {}
    for frame in labelled:
        if frame.energy is not None:
            by_atoms.setdefault(frame.composition, []).append(1000 * frame.energy)
    spread = [abs(e - float(np.mean(same))) for same in by_atoms.values() if len(same) > 1 for e in same]
    if spread:
        size, error = float(np.mean(spread)), found["energy_mae_mev"]
        assert error is not None
        note = f"energies of equal atoms spread by {size:.0f} meV"
        checks.append(judged(group, "energies on labels", error, ENERGY_SHARE * size, "meV", note))
    return checks or [skipped(group, "energies on labels", "a single energy does not say how much energies vary")]
