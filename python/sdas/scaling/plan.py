"""What a budget should buy, before any of it is spent: steps of each size, growths, and how far the error may fall."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdas.config import Config
from sdas.errors import ScalingError
from sdas.run.folder import LEDGER
from sdas.scaling.cooling import CoolDown
from sdas.scaling.costs import Cost, check_budget, costs
from sdas.scaling.history import History, read_history
from sdas.scaling.law import LEAST_POINTS
from sdas.scaling.loop import validation_points
from sdas.scaling.policy import candidates, together
from sdas.scaling.pool import Pool, check_pool, opened_pool
from sdas.scaling.rules import Rules, Sizes
from sdas.scaling.settings import check_settings, rules_of, starting_sizes
from sdas.train.loop import opened_run
from sdas.train.processes import Processes

EXPONENTS = (0.05, 0.40)
SOURCE = (
    "0.05 for language models, arXiv 2001.08361; about 0.28 for potentials by plain and EGNN networks, and more for\n"
    "  equivariant ones of higher degree, arXiv 2510.09768. None was measured on these data"
)
"""Exponents α of error against compute, and where they come from. Those of potentials are of the best size at each
compute; a single size levels off before."""
MOST_STAGES = 3
"""Growths that are looked ahead where everything grows at once."""


@dataclass(frozen=True)
class Plan:
    """budget: FLOPs, cool-down included. costs: the sizes at the start and after growth. batch: frames per step.
    history: of the run in the folder, None if there is none."""

    rules: Rules
    budget: float
    validations: int
    costs: list[Cost]
    batch: int
    history: History | None

    @property
    def first_growth(self) -> float:
        """FLOPs of the first decision by a law; it wants enough points."""
        delta, number = self.rules.delta_flops, 1
        while len(validation_points(0, number * delta, delta, self.validations)) < LEAST_POINTS:
            number += 1
        return number * delta

    @property
    def most_growths(self) -> int:
        """How many growths there is room for, each with its trials, with patience before it and time to pay back."""
        rules, number, compute, lost = self.rules, 0, self.first_growth, 0.0
        trials = (len(self.costs) - 1) * rules.trial * rules.delta_flops if rules.choose == "trials" else 0.0
        payback = rules.payback if rules.choose == "trials" else 0.0
        while (1 + payback) * compute + lost + trials <= rules.budget_flops:
            number, lost = number + 1, lost + trials
            compute = max(rules.patience * compute, compute + rules.delta_flops)
        return number

    def fall(self, alpha: float) -> float:
        """The error at the end over that after the first ΔC, by a pure power law."""
        return float((self.budget / self.rules.delta_flops) ** -alpha)

    def text(self) -> str:
        """A table and what it means."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rules = self.rules
        yield f"Budget {self.budget:.3g} FLOPs, of which {self.budget - rules.budget_flops:.3g} for the cool-down."
        yield f"A decision every {rules.delta_flops:.3g} FLOPs, with ε = {rules.epsilon:g} ({rules.epsilon_unit})."
        yield ""
        yield f"{'size':<14} channels heads layers lmax  frames  weights FLOPs/step     steps  epochs"
        for cost in self.costs:
            sizes, steps = cost.sizes, int(self.budget / cost.step_flops)
            yield (
                f"{cost.what:<14} {sizes.channels:8} {sizes.heads:5} {sizes.layers:6} {sizes.lmax:4} {sizes.frames:7} "
                f"{cost.parameters:8} {cost.step_flops:10.3g} {steps:9} {steps * self.batch / sizes.frames:7.3g}"
            )
        yield "steps, epochs: if the whole budget went to this size."
        yield ""
        yield f"Growth: the first one after {self.first_growth:.3g} FLOPs or later, at most {self.most_growths} in all."
        least, largest = (self.fall(alpha) for alpha in EXPONENTS)
        yield f"Error at the end over that after the first ΔC: {largest:.2f} to {least:.2f}, for exponents"
        yield f"  {EXPONENTS[1]:.2f} to {EXPONENTS[0]:.2f}, while no floor is near; that range is its uncertainty."
        yield f"  Published: {SOURCE}."
        yield from self._of_the_run()

    def _of_the_run(self) -> Iterator[str]:
        """What the law of the run so far says, where there is one."""
        law = self.history.law() if self.history else None
        if self.history is None or law is None:
            return
        last = self.history.points[-1]
        end = last.flops + self.rules.budget_flops - last.spent
        low, high = law.predict_interval(end)
        yield ""
        yield f"The run so far: {last.spent:.3g} FLOPs, {1000 * last.error:.3g} meV/Å."
        yield f"Without growth it would end, before the cool-down, at {1000 * law.predict(end):.3g} meV/Å"
        known = "" if law.identifiable else f"; {law.why}"
        yield f"  (95 %: {1000 * low:.3g} to {1000 * high:.3g}{known})."
        cooled, length = self.history.cooled_law(), self.budget - self.rules.budget_flops
        if cooled is not None and length > 0:
            try:
                error = cooled.predict(end + length, CoolDown(end, length))
            except ScalingError as beyond:
                yield f"and after it: {beyond}."
                return
            yield f"and after it at {1000 * error:.3g} meV/Å, by the multi-power law of {cooled.points} cooled points."


def plan(config: Config) -> Plan:
    """Count the FLOPs of the steps of each size; two steps of each are made in a folder that is removed.

    Raises :class:`sdas.errors.SdasError` for what a run would refuse before its training.
    """
    rules, folder = rules_of(config.scaling), Path(config.run_dir)
    history = read_history(folder) if (folder / LEDGER).exists() else None
    with tempfile.TemporaryDirectory() as scratch, Processes(config.train.device) as processes:
        config = config.model_copy(update={"run_dir": str(Path(scratch) / "run")})
        with opened_run(config, processes, resume=False) as (cache, split):
            pool = opened_pool(config, cache, split, processes)
            check_settings(config, rules, pool)
            check_pool(config, pool, starting_sizes(config, pool).frames, split)
            found = costs(config, pool, _stages(config, rules, pool), processes)
    check_budget(found[0], rules)
    assert config.scaling.flops is not None
    assert config.train.batch_size is not None
    return Plan(rules, config.scaling.flops, config.scaling.validations, found, config.train.batch_size, history)


def _stages(config: Config, rules: Rules, pool: Pool) -> dict[str, Sizes]:
    """The sizes at the start, and those of the first candidates, or of growths of everything one after another."""
    sizes = starting_sizes(config, pool)
    stages = {"start": sizes}
    if rules.choose == "trials":
        return stages | candidates(sizes, len(pool.order), rules)  # type: ignore[operator]
    for number in range(1, MOST_STAGES + 1):
        grown = candidates(sizes, len(pool.order), rules)
        if grown:
            sizes = together(sizes, grown)
            stages[f"growth {number}"] = sizes
    return stages
