"""All checks, as one document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.run.fingerprint import model_fingerprint
from sdas.validate import accuracy, derivatives, dynamics, locality, scans, symmetries, vibrations
from sdas.validate.check import Check, Curve, failed
from sdas.validate.subject import Subject

MD_STEPS = 2000


def validate(
    model: torch.nn.Module, frames: Sequence[Frame], *, reference: Any = None, md_steps: int = MD_STEPS
) -> dict[str, Any]:
    """Run the suite.

    Args:
        model: an `sdas_kernels.nn.SDAS`, or anything with its call, `species` and `cutoff`.
        frames: structures, at least one. The first is scanned, relaxed and simulated; all count for the errors on
            labels and for the shortest distances, below which energies should only rise.
        reference: a calculator of ASE, for frequencies.
        md_steps: of 0.5 fs at constant energy.

    Returns:
        JSON: "passed", whether no line failed; "checks", a line each; "curves", what pictures are drawn of.

    Raises:
        SdasError: no frames, or an element or state that the model does not know. What a model cannot do makes a line
            fail.
    """
    subject = Subject.of(model, frames)
    parts: dict[str, Callable[[], Any]] = {
        "symmetry": lambda: (symmetries.symmetries(subject), []),
        "derivatives": lambda: (derivatives.forces_by_differences(subject), []),
        "derivatives by strain": lambda: (derivatives.stress_by_differences(subject), []),
        "locality": lambda: (locality.extensivity(subject), []),
        "locality at the cutoff": lambda: (locality.crossing(subject), []),
        "vibrations": lambda: vibrations.vibrations(subject, reference),
        "bonds": lambda: scans.bonds(subject),
        "short range": lambda: scans.dimers(subject),
        "scans": lambda: scans.torsion(subject),
        "dynamics": lambda: dynamics.constant_energy(subject, md_steps),
        "errors": lambda: (accuracy.errors(subject), []),
    }
    checks, curves = list[Check](), list[Curve]()
    for group, part in parts.items():
        try:
            lines, pictures = part()
        except SdasError as error:
            lines, pictures = [failed(group, f"{group}: could not be measured", str(error))], []
        checks += lines
        curves += pictures
    return {
        "model_fingerprint": model_fingerprint(model),
        "frames": len(frames),
        "passed": all(check.status != "fail" for check in checks),
        "checks": [check.numbers() for check in checks],
        "curves": [asdict(curve) for curve in curves],
    }
