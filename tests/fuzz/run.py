"""Calls every public function with arguments of every kind: `python run.py CASES SEED`.

Each case is a valid call of which up to two arguments are changed. What it gives must be what the reference backend
gives for the same numbers without any guise; or else an error that names one of the arguments that were changed. The
case in turn stands in the file that the environment variable FUZZ_CASE names, for whoever finds this process dead.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))
import frozen
import modules
import targets
from changes import Change, changes_of, plain

from sdas_kernels import use_backend

TARGETS: list[Callable[[targets.Draw], targets.Call]] = [
    targets.spherical_harmonics,
    targets.radial_basis,
    targets.polynomial_envelope,
    targets.edge_geometry,
    targets.edge_softmax,
    targets.neighbor_tensor_product,
    targets.neighbor_attention,
    targets.tensor_product,
    targets.tensor_product_conv,
    targets.edge_index,
    targets.written_index,
    targets.build,
    targets.potential,
    targets.edge_vectors,
    modules.products,
    modules.harmonics,
    modules.convolution,
    modules.nodes,
    modules.layers,
    modules.geometry,
    modules.words,
    modules.memory,
    frozen.frozen,
]
HUGE = str(2**40)
OURS = re.compile(r"[A-Za-z_.]+: ")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


class Case:
    """A valid call, and the changes that make the case of it."""

    def __init__(self, pick: targets.Pick) -> None:
        self.target = pick(TARGETS)
        draw = targets.Draw(pick)
        self.call, self.tolerance = self.target(draw), TOLERANCE[draw.dtype]
        self.given, self.changes = dict(self.call.arguments), dict[str, Change]()
        for _ in range(pick([0, 1, 1, 1, 2])):
            name = pick([*sorted(self.given), ""])
            options = changes_of(self.call.arguments[name]) if name and name not in self.changes else []
            if options:
                self.changes[name] = pick(options)
                self.given[name] = self.changes[name].apply(self.given[name])

    def __str__(self) -> str:
        shapes = {name: list(t.shape) if isinstance(t, torch.Tensor) else t for name, t in self.call.arguments.items()}
        changes = {name: change.name for name, change in self.changes.items()}
        return f"{self.target.__name__}: {changes} of {shapes}"

    def check(self) -> None:
        """Raises `AssertionError` for a wrong result or a wrong error."""
        try:
            found = results(self.call.function, self.given)
        except (TypeError, ValueError) as error:
            self.check_error(error)
            return
        except RuntimeError as error:
            if "can't allocate memory" in str(error) and HUGE in {change.name for change in self.changes.values()}:
                return
            raise
        if not self.given:
            return
        dtypes = {value.dtype for value in self.given.values() if isinstance(value, torch.Tensor)}
        tolerance = max([self.tolerance, *(TOLERANCE.get(dtype, 0.0) for dtype in dtypes)])
        with use_backend("reference"):
            wanted = results(self.call.function, {name: plain(value) for name, value in self.given.items()})
        assert len(found) == len(wanted), f"{len(found)} results, {len(wanted)} wanted"
        for mine, its in zip(found, wanted, strict=True):
            compare(mine, its, tolerance)

    def check_error(self, error: Exception) -> None:
        """It is ours, it has a reason, and names it."""
        text = str(error)
        assert OURS.match(text), f"not our words: {text}"
        assert not all(change.harmless for change in self.changes.values()), f"no reason to say: {text}"
        names = {word for name in self.changes for word in (name, *self.call.words.get(name, ()))}
        assert any(name in text for name in names), f"names none of {sorted(names)}: {text}"


def results(function: Callable[..., Any], given: dict[str, Any]) -> list[Any]:
    """What a call gives, and the gradients by those arguments that require one."""
    found = function(**given)
    found = list(found.values()) if isinstance(found, dict) else found
    values = list(found) if isinstance(found, (list, tuple)) else [found]
    leaves = [t for t in given.values() if isinstance(t, torch.Tensor) and t.requires_grad]
    floating = [t for t in values if isinstance(t, torch.Tensor) and t.requires_grad]
    if leaves and floating:
        total = sum((t.double() * t.detach().double().cos()).sum() for t in floating)
        values += torch.autograd.grad(total, leaves, materialize_grads=True)
    return values


def compare(found: Any, wanted: Any, tolerance: float) -> None:
    """The same, to a tolerance of the largest number."""
    if not isinstance(wanted, torch.Tensor):
        assert str(found) == str(wanted), f"{found} where {wanted} is right"
        return
    kinds = [(t.dtype, list(t.shape)) for t in (found, wanted)]
    assert kinds[0] == kinds[1], f"{kinds[0]} where {kinds[1]} is right"
    if found.device.type == "meta" or not found.numel():
        return
    if not found.is_floating_point():
        assert torch.equal(found, wanted), "other numbers than the reference's"
        return
    found, wanted = plain(found.detach()).double(), plain(wanted.detach()).double()
    bound = tolerance * max(1.0, float(wanted.nan_to_num().abs().max()))
    worst = (found - wanted).abs().nan_to_num(nan=0.0).max()
    assert torch.equal(found.isnan(), wanted.isnan()), "NaN where the reference has none, or the other way"
    assert float(worst) <= bound, f"off by {float(worst):.3g}"


def main(cases: int, number: int) -> None:
    """Raises what a case finds, with the smallest case that hypothesis knows."""
    note = os.open(os.environ.get("FUZZ_CASE", os.devnull), os.O_WRONLY | os.O_CREAT, 0o600)

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def every_case(data: st.DataObject) -> None:
        case = Case(lambda options: data.draw(st.sampled_from(options)))
        words = str(case).encode()
        os.pwrite(note, words.ljust(4096), 0)
        try:
            case.check()
        except Exception as error:
            raise AssertionError(f"{case}\n{error!r}") from error

    every_case()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), int(sys.argv[2]))
