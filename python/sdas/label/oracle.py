"""What an oracle is: frame in, label out, or a reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from ase.data import chemical_symbols

from sdas.config.label import MoleculeConfig, OracleConfig, PySCFConfig, TBLiteConfig
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

    def prepared(self, frame: Frame) -> Frame:
        """The frame with the charge and the spin that it is computed with.

        Raises :class:`LabelError` for what can be known not to work before anything is computed.
        """
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


def with_electrons(frame: Frame, config: MoleculeConfig) -> Frame:
    """The frame with charge and multiplicity: its own, or those of the configuration, or of a neutral singlet.

    Raises :class:`LabelError` where frame and configuration differ, and for a multiplicity that cannot be.
    """
    charge, spin = (_agreed(frame, config, kind, usual) for kind, usual in (("charge", 0.0), ("spin", 1.0)))
    electrons, unpaired = int(frame.numbers.sum()) - charge, spin - 1
    how = _how_to_set_right(frame.state)
    if charge != int(charge):
        raise LabelError(f"{frame.source}: the charge {charge:g} is no whole number; {how}")
    if electrons < 1:
        raise LabelError(f"{frame.source}: charge {charge:g} leaves it no electron")
    if electrons < unpaired or unpaired < 0 or (electrons - unpaired) % 2:
        wanted = "an even" if electrons % 2 else "an odd"
        raise LabelError(
            f"{frame.source}: {electrons:g} electrons at charge {charge:g} have {wanted} multiplicity 2S + 1, got spin "
            f"{spin:g}; {how}"
        )
    return replace(frame, charge=charge, spin=spin)


def _how_to_set_right(stated: Mapping[str, float]) -> str:
    """Where a charge and a spin that do not fit can be changed: what a file states is not to be set otherwise."""
    if not stated:
        return "set spin or charge (--set spin=2 for a radical, --set charge=1 for a cation)"
    told = "the file states " + " and ".join(f"{kind} {value:g}" for kind, value in stated.items())
    examples = {"charge": 1, "spin": 2}
    return told + "".join(f"; set the {kind} (--set {kind}={n})" for kind, n in examples.items() if kind not in stated)


def _agreed(frame: Frame, config: MoleculeConfig, kind: str, usual: float) -> float:
    """``charge`` or ``spin`` of a frame and a configuration that do not contradict each other."""
    stated, asked = getattr(frame, kind), getattr(config, kind)
    if None not in (stated, asked) and stated != asked:
        raise LabelError(f"{frame.source}: states {kind} {stated:g}, the oracle is set to {kind} {asked}")
    return float(next((value for value in (stated, asked) if value is not None), usual))


def symbols(numbers: Any) -> str:
    """Names of the elements among atomic ``numbers``, for messages."""
    return ", ".join(chemical_symbols[number] for number in sorted({int(number) for number in numbers}))
