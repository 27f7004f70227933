"""All that is said of a trajectory: constants of each element, corrected for the size of the box, and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sdas.diffusion.comparison import DiffusionError, diffusion_error
from sdas.diffusion.estimate import Diffusion, diffusion, elements_of
from sdas.diffusion.figure import msd_figure
from sdas.diffusion.finite_size import yeh_hummer
from sdas.diffusion.paths import read_paths
from sdas.documents import write_document
from sdas.errors import SdasError
from sdas.files import write_atomically

DOCUMENT, PICTURE = "diffusion.json", "diffusion.svg"
BREATHING = 0.01
"""Relative change of the cell's vectors over a trajectory from which a note is given."""


@dataclass(frozen=True)
class Reading:
    """How trajectories are read: elements (by default all), the time between frames where a file does not tell it, what
    to leave out at the beginning, and the lag from which displacements are linear; all fs."""

    elements: Sequence[str] = ()
    interval_fs: float | None = None
    skip_fs: float = 0.0
    start_fs: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Liquid:
    """For the finite-size correction: K and mPa·s."""

    temperature_k: float
    viscosity_mpa_s: float


@dataclass(frozen=True)
class Analysis:
    """constants: of each element. reference, errors: the reference's, and how far the former are from them.

    correction_ang2_per_ps: to be added to every constant for the size of the box; None where no viscosity is known.
    """

    constants: list[Diffusion]
    reference: list[Diffusion] = field(default_factory=list)
    errors: list[DiffusionError] = field(default_factory=list)
    correction_ang2_per_ps: float | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "constants": [each.as_dict() for each in self.constants],
            "reference": [each.as_dict() for each in self.reference],
            "errors": [each.as_dict() for each in self.errors],
            "finite_size_correction_ang2_per_ps": self.correction_ang2_per_ps,
            "notes": self.notes,
            "versions": {"kinisi": version("kinisi")},
        }


def analyze(
    trajectory: str | Path,
    reading: Reading,
    reference: str | Path | None = None,
    liquid: Liquid | None = None,
) -> Analysis:
    """Diffusion constants of a trajectory and, where there is a reference, their errors.

    Raises SdasError, see :func:`sdas.diffusion.read_paths` and :func:`sdas.diffusion.diffusion`.
    """
    constants, notes = _constants(trajectory, reading)
    correction = None
    if liquid is not None:
        correction = yeh_hummer(liquid.temperature_k, liquid.viscosity_mpa_s, constants[0].cell)
    if reference is None:
        return Analysis(constants, correction_ang2_per_ps=correction, notes=notes)
    theirs, more = _constants(reference, reading)
    if [each.element for each in constants] != [each.element for each in theirs]:
        raise SdasError(f"{trajectory} and {reference} hold other elements: name those to compare by --element")
    if not np.allclose(constants[0].cell, theirs[0].cell, rtol=0.01, atol=0.01):
        more.append("the cells of model and reference differ, and with them the effect of the size of the box")
    errors = [diffusion_error(a, b, reading.seed) for a, b in zip(constants, theirs, strict=True)]
    return Analysis(constants, theirs, errors, correction, notes + more)


def _constants(trajectory: str | Path, reading: Reading) -> tuple[list[Diffusion], list[str]]:
    replicas, notes = read_paths(trajectory, reading.interval_fs)
    replicas = [each.after(reading.skip_fs) for each in replicas]
    found = [
        diffusion(replicas, element, reading.start_fs, reading.seed)
        for element in elements_of(replicas, reading.elements)
    ]
    notes += [
        f"{each.source}: the cell changes by {each.breathing:.1%}, which stretches paths"
        for each in replicas
        if each.breathing > BREATHING
    ]
    notes += [
        f"{each.element}: not told from zero: run longer, or more replicas"
        for each in found
        if 2 * each.sigma > each.mean
    ]
    return found, notes


def write_analysis(analysis: Analysis, folder: Path, facts: dict[str, Any]) -> None:
    """Write diffusion.json, with the facts, and the picture diffusion.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    write_document(folder / DOCUMENT, analysis.as_dict() | facts)
    picture = msd_figure(analysis.constants, analysis.reference)
    write_atomically(folder / PICTURE, lambda file: file.write(picture))
