"""The exact FLOPs of training steps, without counting all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any


class FlopModel:
    """FLOPs of a training step as an affine function of its numbers of atoms, edges and graphs, learned exactly.

    Every operation of a message-passing model runs over atoms, edges, graphs or a constant, so the FLOPs of a step are
    c₀ + c₁·N + c₂·E + c₃·B with rational c. The first step is counted and not learned from, since it may do work that
    is done once. After it, a step whose row [1, N, E, B] does not lie in the span of the rows counted so far has to be
    counted (at most four times), and so has one more, which checks that the function is affine. Every other step is
    evaluated in exact arithmetic. If the check fails, the model warns and wants every step counted.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self.flops: list[int] = []
        self.started = False
        self.checked = False
        self.affine = True
        self._evaluated: dict[tuple[int, int, int], int] = {}

    def needs_count(self, atoms: int, edges: int, graphs: int) -> bool:
        """Whether a step of this size has to be counted and given to :meth:`record`."""
        return not self.affine or not self.checked or self._predict(atoms, edges, graphs) is None

    def record(self, atoms: int, edges: int, graphs: int, flops: int) -> None:
        """Learn from a counted step."""
        if not self.started:
            self.started = True
            return
        expected = self._predict(atoms, edges, graphs) if self.affine else flops
        if expected is None:
            self.rows.append((atoms, edges, graphs))
            self.flops.append(flops)
        elif expected == flops:
            self.checked = True
        else:
            self.affine = False
            warnings.warn(
                f"FlopModel: a step of {atoms} atoms, {edges} edges, {graphs} graphs took {flops} FLOPs where an "
                f"affine function gives {expected}; every step is counted from now on, which is slower",
                stacklevel=2,
            )

    def evaluate(self, atoms: int, edges: int, graphs: int) -> int:
        """FLOPs of a step that needs no count; raises `ValueError` for one that does."""
        flops = self._predict(atoms, edges, graphs) if self.affine else None
        if flops is None:
            raise ValueError(
                f"FlopModel: a step of {atoms} atoms, {edges} edges, {graphs} graphs must be counted first"
            )
        return flops

    def _predict(self, atoms: int, edges: int, graphs: int) -> int | None:
        """FLOPs of a row in the span of those counted, else None. Sizes recur, so what was evaluated is kept."""
        row = (atoms, edges, graphs)
        if row not in self._evaluated:
            weights = _combination([(1, *counted) for counted in self.rows], (1, *row))
            if weights is None:
                return None
            if len(self._evaluated) >= 100_000:
                self._evaluated.clear()
            self._evaluated[row] = round(sum((w * f for w, f in zip(weights, self.flops, strict=True)), Fraction(0)))
        return self._evaluated[row]

    def state_dict(self) -> dict[str, Any]:
        """What was learned, ready for JSON."""
        return {
            "rows": [list(row) for row in self.rows],
            "flops": self.flops,
            "started": self.started,
            "checked": self.checked,
            "affine": self.affine,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.rows = [(int(n), int(e), int(b)) for n, e, b in state["rows"]]
        self.flops = [int(f) for f in state["flops"]]
        self.checked, self.affine = bool(state["checked"]), bool(state["affine"])
        self.started = bool(state["started"])
        self._evaluated.clear()


class FlopModels:
    """A :class:`FlopModel` for every kind of step: what a step computes makes another function of its size."""

    def __init__(self) -> None:
        self._of: dict[str, FlopModel] = {}

    def of(self, kind: str) -> FlopModel:
        """That of steps of this ``kind``."""
        return self._of.setdefault(kind, FlopModel())

    def state_dict(self) -> dict[str, Any]:
        """What was learned, ready for JSON."""
        return {kind: model.state_dict() for kind, model in self._of.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        for kind, learned in state.items():
            self.of(kind).load_state_dict(learned)


def _combination(rows: Sequence[Sequence[int]], target: Sequence[int]) -> list[Fraction] | None:
    """Weights w with Σ w_i rows_i = target, exactly; None if there are none. The rows are independent."""
    system = [[Fraction(row[d]) for row in rows] + [Fraction(target[d])] for d in range(len(target))]
    unknowns = len(rows)
    for column in range(unknowns):
        pivot = next(r for r in range(column, len(system)) if system[r][column] != 0)
        system[column], system[pivot] = system[pivot], system[column]
        leading = system[column]
        for r, equation in enumerate(system):
            if r != column and equation[column] != 0:
                factor = equation[column] / leading[column]
                system[r] = [a - factor * b for a, b in zip(equation, leading, strict=True)]
    if any(equation[-1] != 0 for equation in system[unknowns:]):
        return None
    return [system[k][-1] / system[k][k] for k in range(unknowns)]
