"""Adaptive scaling: train, fit, decide, grow, go on, until the budget is spent.

    ΔC of training at a constant rate, with validations of the averaged weights on the way
    the law of the curve, which growth does not break                                        (:mod:`sdas.scaling.law`)
    go on, try, scale up or stop                                                          (:mod:`sdas.scaling.policy`)
    ..
    a cool-down: the rate falls to zero

Trials start from copies of the run's state in folders of their own. The winner's state becomes that of the run, and the
FLOPs of the others are lost: they are of the budget all the same. Every act is in the ledger before and after it, so a
run that was killed is resumed within the act that it was killed in (:mod:`sdas.run.ledger`).
"""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdas.config import Config
from sdas.documents import write_document
from sdas.run.fingerprint import model_fingerprint
from sdas.run.folder import SCALING, TRIALS
from sdas.run.start import check_resumed_by
from sdas.scaling.costs import LEAST_STEPS, check_budget, costs
from sdas.scaling.law import Law, law_since
from sdas.scaling.ledger import Ledger, Line, open_ledger
from sdas.scaling.policy import Decision, State, Trial, candidates, decide, paired_noise
from sdas.scaling.pool import Pool, check_pool, opened_pool
from sdas.scaling.rules import Axis, Rules, Sizes
from sdas.scaling.settings import check_settings, rules_of, starting_sizes
from sdas.scaling.trainer import Interrupted, Place, Trainer
from sdas.train.loop import finish, opened_run
from sdas.train.processes import Processes
from sdas.train.schedule import Ramp


@dataclass(frozen=True)
class ScalingResult:
    """run_dir: where everything lies. status: "complete" or "interrupted". signal: what interrupted it.
    content: of scaling.json, empty if interrupted."""

    run_dir: Path
    status: str
    signal: int | None
    content: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A validation: steps and FLOPs of the model and those before it, and the force error in eV/Å."""

    step: int
    flops: int
    error: float


def scale(config: Config, resume: bool = False) -> ScalingResult:
    """Run adaptive scaling as ``config.scaling`` says, or with ``resume`` go on with the run in its run_dir.

    Raises :class:`sdas.errors.SdasError` for settings, data and ledgers that cannot be used, before any training.
    """
    if resume:
        check_resumed_by("sdas scale", Path(config.run_dir))
    rules_of(config.scaling)
    with Processes(config.train.device) as processes, opened_run(config, processes, resume) as (cache, split):
        pool = opened_pool(config, cache, split, processes)
        check_pool(config, pool, starting_sizes(config, pool).frames, split)
        return scale_on(config, pool, processes)


def scale_on(config: Config, pool: Pool, processes: Processes) -> ScalingResult:
    """Run adaptive scaling on frames that are opened already, in config.run_dir, or go on with what is there.

    Raises :class:`sdas.errors.SdasError` as :func:`scale` does, but for the frames.
    """
    rules = rules_of(config.scaling)
    config = config.model_copy(update={"train": config.train.model_copy(update={"schedule": "constant"})})
    check_settings(config, rules, pool)
    ledger = open_ledger(Path(config.run_dir), writes=processes.first)
    processes.wait()
    if not ledger.replaying:
        (cost,) = costs(config, pool, {"start": starting_sizes(config, pool)}, processes)
        check_budget(cost, rules)
    trainer = Trainer(config, rules, pool, processes)
    try:
        return ScalingResult(trainer.folder, "complete", None, AdaptiveRun(rules, ledger, trainer).go())
    except Interrupted as stopped:
        return ScalingResult(trainer.folder, "interrupted", stopped.signal, {})
    finally:
        trainer.close()


@dataclass(frozen=True)
class Tried:
    """A trial that was made: its place, its error before any training, its curve, and what the policy wants of it."""

    place: Place
    born: float
    points: list[Point]
    trial: Trial


class AdaptiveRun:
    """One adaptive run: what has been spent, the curve, and the session that is open now."""

    def __init__(self, rules: Rules, ledger: Ledger, trainer: Trainer) -> None:
        self.rules, self.ledger, self.trainer = rules, ledger, trainer
        self.settings, self.seed = trainer.config.scaling, trainer.config.train.seed
        self.pool_frames = len(trainer.pool.order)
        self.place = Place(trainer.folder, trainer.start)
        self.curve: list[Point] = []
        self.flops, self.lost, self.decisions, self.tried_at = 0, 0, 0, 0
        self.growths: list[Line] = []

    @property
    def spent(self) -> int:
        """FLOPs so far, trials included."""
        return self.flops + self.lost

    def go(self) -> dict[str, Any]:
        """The whole run; gives the content of scaling.json."""
        self._start()
        self._train(self.rules.delta_flops)
        while True:
            decision = self._decide({})
            tried: dict[Axis, Tried] = {}
            if decision["action"] == "try":
                tried = self._try(decision)
                decision = self._decide(tried)
                self.tried_at = self.flops
            if decision["action"] == "stop":
                break
            if decision["action"] == "scale up":
                self._scale_up(decision, tried)
            self._train(decision["until"])
        self._cool_down()
        return self._end(decision["reason"])

    def _start(self) -> None:
        settings = self.settings.model_dump(mode="json", exclude={"pool"})
        facts: dict[str, Any] = {"settings": settings, "rules": asdict(self.rules), "sizes": asdict(self.place.sizes)}
        facts |= {"pool_frames": self.pool_frames, "seed": self.seed}
        self._note("start", facts)

    def _train(self, until: float) -> None:
        """Train the run until that many FLOPs are spent, trials included."""
        self._pass(self._advance(self.place, self.flops, until - self.lost))

    def _pass(self, points: list[Point]) -> None:
        """Take up points of the run; a step that is longer than the way between two leads to one of them only."""
        for point in points:
            if point.flops > self.flops:
                self.curve.append(point)
                self.flops = point.flops

    def _advance(self, place: Place, start: int, end: float, ramp: Ramp | None = None) -> list[Point]:
        """Train what is at a place, and validate it on the way, the last time at its end."""
        targets = validation_points(start, end, self.rules.delta_flops, self.settings.validations)
        return [self._validated(place, target, ramp) for target in targets]

    def _validated(self, place: Place, target: float, ramp: Ramp | None) -> Point:
        def act() -> dict[str, Any]:
            outcome = self.trainer.train(place, target, ramp)
            return {**outcome, "spent": outcome["flops"] + self.lost}

        line = self.ledger.once("validated", act)
        return Point(line["step"], line["flops"], line["error"])

    def _decide(self, tried: dict[Axis, Tried]) -> Line:
        """Fit the curve and ask the policy."""

        def act() -> dict[str, Any]:
            law = self._law()
            trials = tuple(each.trial for each in tried.values())
            state = State(
                spent=float(self.spent),
                compute=float(self.flops),
                error=self.curve[-1].error,
                sizes=self.place.sizes,
                pool_frames=self.pool_frames,
                step_flops=self._step_flops(),
                trials=trials,
                grown=tuple(axis for growth in self.growths for axis in growth["axes"]),
                grown_at=float(self.place.since),
                tried_at=float(self.tried_at),
            )
            decision = decide(law, state, self.rules)
            self._say(decision)
            return {"spent": self.spent, **decision.as_dict()}

        self.decisions += not tried
        return self.ledger.once("decided", act)

    def _law(self) -> Law | None:
        """Of the points that are of the model as it is."""
        curve = ((point.flops, point.error) for point in self.curve)
        return law_since(self.place.since, curve, self.rules.patience, self.seed)

    def _step_flops(self) -> float:
        """Of a training step, between the last two validations."""
        if len(self.curve) < 2:
            return 0.0
        before, last = self.curve[-2:]
        return (last.flops - before.flops) / (last.step - before.step)

    def _try(self, decision: Line) -> dict[Axis, Tried]:
        """Short runs of the candidates, each from the state of the run. Their FLOPs are lost until one is taken."""
        end = self.flops + self.rules.trial * self.rules.delta_flops
        scatter = decision["numbers"]["law"]["scatter"]
        tried: dict[Axis, Tried] = {}
        for axis in decision["axes"]:
            place = self._place_of_trial(axis)
            self._note("trying", {"axis": axis, "sizes": asdict(place.sizes)})
            born = self._born(place)
            points = self._advance(place, self.flops, end)
            tried[axis] = Tried(place, born, points, self._outcome(axis, place, points[-1], scatter))
            self.lost += points[-1].flops - self.flops
        return tried

    def _outcome(self, axis: Axis, place: Place, last: Point, scatter: float) -> Trial:
        """What came of a trial. Its noise is that of training, which the curve scatters by, and that of the validation
        frames, on which both errors were made, so that only the differences count."""

        def act() -> dict[str, Any]:
            before, flops = self.curve[-1].error, float(last.flops - self.flops)
            after, first = (self.trainer.frame_errors(each) for each in (place, self.place))
            of_frames = before * paired_noise(first, after)
            noise = math.hypot(of_frames, 2**0.5 * scatter * before)
            return asdict(Trial(axis, place.sizes, before, last.error, flops, noise))

        line = self.ledger.once("tried", act)
        return Trial(**{**{name: line[name] for name in Trial.__dataclass_fields__}, "sizes": place.sizes})

    def _scale_up(self, decision: Line, tried: dict[Axis, Tried]) -> None:
        """Take the state of the trial of what grows, or grow several axes at once."""
        grown = {"axes": decision["axes"], "sizes": decision["sizes"], "flops": self.flops}
        self.place = Place(self.trainer.folder, Sizes(**decision["sizes"]), since=self.flops)
        self.tried_at = 0
        if tried and len(decision["axes"]) == 1:
            winner = tried[decision["axes"][0]]
            self.ledger.once("taken", lambda: self.trainer.take(winner.place))
            self.lost -= winner.points[-1].flops - self.flops
            folder = self.trainer.name(winner.place)
            grown |= {"spent": self.spent, "born": winner.born, "folder": folder}
            self._note("grown", grown)
            self._pass(winner.points)
        else:
            grown |= {"spent": self.spent, "born": self._born(self.place), "folder": None}
            self._note("grown", grown)
        self.growths.append(grown)
        if not self.ledger.replaying and self.trainer.processes.first:
            shutil.rmtree(self.trainer.folder / TRIALS, ignore_errors=True)

    def _note(self, kind: str, facts: dict[str, Any]) -> Line:
        return self.ledger.once(kind, lambda: facts)

    def _place_of_trial(self, axis: Axis) -> Place:
        folder = self.trainer.folder / TRIALS / f"{self.decisions:03d}-{axis}"
        sizes = candidates(self.place.sizes, self.pool_frames, self.rules)[axis]
        return Place(folder, sizes, since=self.flops, origin=self.trainer.folder)

    def _born(self, place: Place) -> float:
        """Note the error of what has grown before it is trained: it has to be that of what it grew from."""

        def act() -> dict[str, Any]:
            return {"error": self.trainer.error(place), "sizes": asdict(place.sizes)}

        return float(self.ledger.once("born", act)["error"])

    def _cool_down(self) -> None:
        """Let the rate fall to zero over the part of all FLOPs that is set, or what is left of the budget."""
        part, budget = self.settings.cooldown, self.settings.flops
        assert budget is not None
        length = min(budget - self.spent, part / (1 - part) * self.spent)
        if length <= 0:
            return
        ramp = Ramp(self.flops, self.flops + length, 1.0, 0.0)
        self._note("cooling", {"flops": self.flops, "end": self.flops + length})
        self._pass(self._advance(self.place, self.flops, self.flops + length, ramp))

    def _end(self, reason: str) -> dict[str, Any]:
        """Write model, summary.json and scaling.json; gives the content of the last."""

        def act() -> dict[str, Any]:
            session = self.trainer.session(self.place)
            facts = {
                "n_test": self.trainer.pool.test_frames,
                "train_flops": self.spent,
                "flops_of_lost_trials": self.lost,
            }
            finish(session, True, facts)
            sizes, energy = asdict(self.place.sizes), session.progress.last.get("energy_mae_mev")
            return {
                "reason": reason,
                "spent": self.spent,
                "lost": self.lost,
                "force_mae_ev_per_ang": session.progress.last["force_mae_mev_per_ang"] / 1000,
                "energy_mae_ev": None if energy is None else energy / 1000,
                "sizes": sizes,
                "growths": self.growths,
                "model_fingerprint": model_fingerprint(session.averaged),
            }

        line = self.ledger.once("ended", act)
        content = {name: value for name, value in line.items() if name != "kind"}
        if self.trainer.processes.first:
            write_document(self.trainer.folder / SCALING, content)
            shutil.rmtree(self.trainer.folder / TRIALS, ignore_errors=True)
        return content

    def _say(self, decision: Decision) -> None:
        if self.trainer.processes.first:
            error = 1000 * self.curve[-1].error
            print(f"{self.spent:.3g} FLOPs, {error:.3g} meV/Å, {decision.action}: {decision.reason}", file=sys.stderr)


def validation_points(start: float, end: float, delta: float, per_doubling: int) -> list[float]:
    """FLOPs at which to validate between ``start`` and ``end``, the last at ``end``.

    A power law is told by doublings, so their distances grow with the FLOPs, from ΔC/8 on. A point too close to the end
    is left out.
    """
    least, factor = delta / LEAST_STEPS, 2 ** (1 / per_doubling)
    count = math.ceil(math.log(max(end, least) / least, factor))
    grid = [least * factor**k for k in range(count)]
    return [point for point in grid if start < point < end / factor**0.5] + [end]
