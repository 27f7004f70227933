"""A free energy along variables, with its error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.free_energy.bias import WangLandauBias

DOCUMENT = "free_energy.json"


@dataclass(frozen=True, eq=False)
class Landscape:
    """F of each independent group of replicas `[groups, bins...]`, k_B T, NaN where a group has not been.

    names, units, centers: of the axes. thermal_ev: k_B T.
    """

    names: list[str]
    units: list[str]
    centers: list[np.ndarray]
    groups: np.ndarray
    thermal_ev: float

    @classmethod
    def of(cls, bias: WangLandauBias) -> Landscape:
        """What a bias has learnt; each group is shifted to agree with the others on average."""
        names, centers = [axis.name for axis in bias.axes], [axis.centers for axis in bias.axes]
        written = [str(getattr(axis.variable, "unit", "")) for axis in bias.axes]
        return cls(names, written, centers, aligned(bias.free_energies() / bias.thermal), bias.thermal)

    @property
    def known(self) -> np.ndarray:
        """Bins where every group has been `[bins...]`."""
        return np.isfinite(self.groups).all(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Over groups `[bins...]`, k_B T, zero at the minimum; NaN where not known."""
        mean = np.where(self.known, self.groups.mean(axis=0), np.nan)
        return mean - np.nanmin(mean)

    @property
    def error(self) -> np.ndarray | None:
        """Standard error of the mean `[bins...]`, k_B T; None of one group, which tells none."""
        count = len(self.groups)
        return None if count == 1 else np.where(self.known, self.groups.std(axis=0, ddof=1) / count**0.5, np.nan)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; null where it is not known."""
        error = self.error
        return {
            "variables": self.names,
            "units": self.units,
            "centers": [each.tolist() for each in self.centers],
            "free_energy_kt": nulls(self.mean),
            "standard_error_kt": None if error is None else nulls(error),
            "groups_kt": nulls(self.groups),
            "thermal_energy_ev": self.thermal_ev,
            "bins_not_visited": int((~self.known).sum()),
        }

    @classmethod
    def read(cls, path: str | Path) -> Landscape:
        """Of free_energy.json or its folder; raises SdasError."""
        place = Path(path)
        place = place / DOCUMENT if place.is_dir() else place
        facts: Mapping[str, Any] = read_document(place)
        try:
            groups = np.array(facts["groups_kt"], dtype=float)
            centers = [np.array(each) for each in facts["centers"]]
            return cls(facts["variables"], facts["units"], centers, groups, facts["thermal_energy_ev"])
        except (KeyError, TypeError, ValueError) as error:
            raise SdasError(f"{place}: holds no free energies ({error})") from None


def aligned(groups: np.ndarray) -> np.ndarray:
    """Free energies `[groups, bins...]`, each less its mean over the bins where all are known."""
    known = np.isfinite(groups).all(axis=0)
    if not known.any():
        raise SdasError("no bin was visited by every group of replicas: run longer")
    return groups - groups[:, known].mean(axis=1).reshape(-1, *[1] * (groups.ndim - 1))


def nulls(values: np.ndarray) -> Any:
    """Nested lists, as JSON holds numbers of which some are not known."""
    nested = values.astype(object)
    nested[~np.isfinite(values)] = None
    return nested.tolist()


def lowest(landscape: Landscape, count: int = 3) -> Sequence[tuple[float, ...]]:
    """Centers of the bins with the lowest free energies that are lower than their neighbors', lowest first."""
    mean, found = landscape.mean, []
    for place in np.argwhere(landscape.known):
        around = tuple(slice(max(0, index - 1), index + 2) for index in place)
        if mean[tuple(place)] == np.nanmin(mean[around]):
            found.append(
                (mean[tuple(place)], tuple(float(c[i]) for c, i in zip(landscape.centers, place, strict=True)))
            )
    return [where for _, where in sorted(found)[:count]]
