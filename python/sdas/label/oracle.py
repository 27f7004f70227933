"""What an oracle is: frame in, label out, or a reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from ase.data import chemical_symbols

from sdas.config.label import OracleConfig, PySCFConfig, TBLiteConfig
from sdas.data.frame import FloatArray, Frame
from sdas.errors import LabelError


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """energy: eV. forces: float64 [n, 3], eV/Å. stress: float64 [3, 3], eV/Å³, or None.

    facts: how it came about, as JSON holds it: convergence, versions, seconds.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Kind = Literal["unconverged", "raised", "not finite", "timeout", "killed"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frame has no label. ``unconverged`` is the verdict of the method; any other kind may pass another time."""

    kind: Kind
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class UnconvergedError(LabelError):
    """The SCF did not converge, by safer settings neither."""


class Oracle(Protocol):
    """A method that labels frames, one at a time."""

    @property
    def method(self) -> Mapping[str, Any]:
        """What decides the numbers, as JSON holds it: part of the address of each label."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """The programs that compute, and their versions."""
        ...

    def check(self, frame: Frame) -> None:
        """Raise :class:`LabelError` for what can be known not to work before anything is computed."""
        ...

    def compute(self, frame: Frame) -> Label:
        """The label; raises :class:`UnconvergedError`, or whatever the program raises."""
        ...


def make_oracle(config: OracleConfig, memory_mib: int) -> Oracle:
    """The oracle of a configuration. Raises :class:`LabelError` if its program is missing or does not know it."""
    if isinstance(config, PySCFConfig):
        from sdas.label.pyscf import PySCFOracle

        return PySCFOracle(config, memory_mib)
    if isinstance(config, TBLiteConfig):
        from sdas.label.tblite import TBLiteOracle

        return TBLiteOracle(config)
    from sdas.label.ase import ASEOracle

    return ASEOracle(config)


def outcome_of(oracle: Oracle, frame: Frame) -> Label | Failure:
    """What ``oracle`` says of ``frame``: a label only if all of its numbers are finite, and never an exception.

    Its facts tell the versions and the seconds too.
    """
    begin = time.perf_counter()
    outcome = _attempt(oracle, frame)
    told = {"versions": dict(oracle.versions), "seconds": round(time.perf_counter() - begin, 3)}
    return replace(outcome, facts={**outcome.facts, **told})


def _attempt(oracle: Oracle, frame: Frame) -> Label | Failure:
    try:
        label = oracle.compute(frame)
    except UnconvergedError as error:
        return Failure("unconverged", str(error))
    except Exception as error:  # programs raise whatever they raise; the next frame may be well
        return Failure("raised", f"{type(error).__name__}: {error}")
    parts = {"energy": np.asarray(label.energy), "forces": label.forces, "stress": label.stress}
    for name, values in parts.items():
        if values is not None and not np.isfinite(values).all():
            return Failure("not finite", f"the {name} holds NaN or infinity", label.facts)
    return label


def check_electrons(frame: Frame, charge: int, spin: int) -> None:
    """Raise :class:`LabelError` unless ``spin`` unpaired electrons are possible at this ``charge``."""
    electrons = int(frame.numbers.sum()) - charge
    if electrons < max(spin, 1):
        raise LabelError(f"{frame.source}: charge {charge} leaves {electrons} electrons, of which {spin} are unpaired")
    if (electrons - spin) % 2:
        wanted = "an odd" if electrons % 2 else "an even"
        raise LabelError(
            f"{frame.source}: {electrons} electrons at charge {charge} need {wanted} number of unpaired ones, got spin "
            f"{spin}; set spin (unpaired electrons, --set spin={spin + 1}) or charge (--set charge={charge + 1})"
        )


def symbols(numbers: Any) -> str:
    """Names of the elements among atomic ``numbers``, for messages."""
    return ", ".join(chemical_symbols[number] for number in sorted({int(number) for number in numbers}))
