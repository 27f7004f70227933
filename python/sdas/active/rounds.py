"""Active learning: train an ensemble, ask where it is unsure, label that, and train on.

    an ensemble of M, each a training run with its seed                                    (:mod:`sdas.active.member`)
    σ²(x) = 1/M Σ (f_m(x) − f̄(x))² over the pool                                        (:mod:`sdas.predict.ensemble`)
    K frames                                                                               (:mod:`sdas.active.select`)
    their labels, appended to the training frames                                          (:mod:`sdas.active.labels`)
    fine-tuning for S steps, and again

Every act is in ``rounds.jsonl`` before and after it, and what it makes lies in folders. A run that was killed is
resumed within the act that it was killed in, and ends as one that was not.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sdas.active.assessment import Uncertainty, errors_of, part_of, scores_of
from sdas.active.engine import Interrupted
from sdas.active.exploration import explore
from sdas.active.folder import member_folder, member_folders, round_frames, round_pool
from sdas.active.labels import label
from sdas.active.member import Asked, Task, drawn_models, read_prediction, write_task
from sdas.active.pool import make_pool
from sdas.active.recipe import engine_of, is_scaled, is_tuned, member_config
from sdas.active.select import Frames, select
from sdas.active.shapes import Kinds, shape_of
from sdas.active.start import begin, forget, open_folder, opened_start
from sdas.config import Config
from sdas.data import Frame, FrameCache, write_cache
from sdas.data.elements import elements_of
from sdas.documents import read_document
from sdas.errors import ActiveError, SdasError
from sdas.predict import EnsemblePrediction, LastLayer, combine
from sdas.run.checkpoint import save_model
from sdas.run.folder import ACTS, MODEL, POOL, SUMMARY
from sdas.run.ledger import Ledger, Line
from sdas.run.lock import locked
from sdas.run.model import load_run_model
from sdas_kernels.nn import SDAS

POOL_ASKED, KNOWN, VALIDATION, TEST = "pool", "known", "validation", "test"
"""What members predict: frames that may be selected, and those that train, validate and test."""


@dataclass(frozen=True)
class ActiveResult:
    """run_dir: where everything lies. signal: what interrupted it, None if it is complete. rounds: of labels.

    labels: frames that train. errors: of the last ensemble, on test frames, or else on validation frames.
    """

    run_dir: Path
    signal: int | None = None
    rounds: int = 0
    labels: int = 0
    errors: dict[str, Any] | None = None


def learn(config: Config, resume: bool = False, observe: Callable[[Path], Any] | None = None) -> ActiveResult:
    """Run a configuration, or with ``resume`` go on with the run in its run_dir.

    ``observe`` is told the folder of the run whenever an ensemble was assessed.

    Raises :class:`sdas.errors.SdasError` for settings, data, oracles and ledgers that cannot be used.
    """
    folder = Path(config.run_dir)
    with locked(folder):
        open_folder(config, resume)
        ledger = Ledger(folder / ACTS, writes=True, kind=ActiveError)
        try:
            run = ActiveRun(config, ledger, observe)
        except SdasError:
            if not resume:
                forget(folder)
            raise
        try:
            return run.go()
        except Interrupted as stopped:
            return ActiveResult(folder, stopped.signal)


class ActiveRun:
    """One run. ``taken``: the frames of the pool that were labeled, or could not be."""

    def __init__(self, config: Config, ledger: Ledger, observe: Callable[[Path], Any] | None = None) -> None:
        self.config, self.settings, self.ledger, self.observe = config, config.active, ledger, observe
        self.folder, self.uncertainty = Path(config.run_dir), Uncertainty(config.active.measure)
        self.ledger.once("pool", lambda: make_pool(config))
        self.taken = set(self.ledger.once("start", lambda: begin(config))["taken"])
        self.pool = FrameCache.open(self.folder / POOL)
        self.start, self.split = opened_start(config)
        self.species = sorted({*elements_of(self.start, self.split.train), *(config.model.species or ())})

    def go(self) -> ActiveResult:
        """The whole run."""
        for number in range(self.settings.rounds + 1):
            self._train(number)
            if self.settings.exploration.frames and number < self.settings.rounds:
                self._explore(number)
            assessed = self._assess(number)
            if self.observe is not None and not self.ledger.replaying:
                self.observe(self.folder)
            if number == self.settings.rounds or not self._select(number):
                break
        self._keep_model(number)
        errors = assessed["test"] or assessed["validation"] or None
        return ActiveResult(self.folder, None, number, assessed["labels"], errors)

    def frames(self, number: int) -> FrameCache:
        """The frames of a round: those to begin with, and behind them those that were labeled until then."""
        return self.start if number == 0 else FrameCache.open(round_frames(self.folder, number))

    def _new(self, number: int) -> list[int]:
        """Indices, in the frames of a round, of those that were labeled by the rounds before it."""
        return list(range(len(self.start), len(self.frames(number))))

    def _train(self, number: int) -> None:
        """Train the ensemble of a round, and let it predict."""
        folders = member_folders(self.folder, number, self.settings.models)
        labels = len(self.split.train) + len(self._new(number))

        def act() -> dict[str, Any]:
            began = time.monotonic()
            explores = bool(self.settings.exploration.frames) and number < self.settings.rounds
            self._run_members(number, "train", asks_for_pool=not explores)
            summaries = [read_document(folder / SUMMARY) for folder in folders]
            return {
                "round": number,
                "models": [summary["model_fingerprint"] for summary in summaries],
                "flops": sum(summary["train_flops"] for summary in summaries),
                "seconds": round(time.monotonic() - began, 3),
            }

        self._note("training", {"round": number, "labels": labels})
        self.ledger.once("trained", act)

    def _run_members(self, number: int, word: str, asks_for_pool: bool) -> None:
        """Let the members of a round do what they have not yet done."""
        folders = member_folders(self.folder, number, self.settings.models)
        for member, folder in enumerate(folders):
            config = member_config(self.config, folder, number, member, self.frames(number).path, self.species)
            write_task(folder, self._task(number, member, asks_for_pool), config)
        with tqdm(total=len(folders), desc=f"round {number}: {word}", unit="model", disable=None) as bar:
            engine_of(self.config).train(folders, lambda _: bar.update())

    def _explore(self, number: int) -> None:
        """Add frames of the ensemble's own dynamics to the pool, and let its members predict them all."""
        place, settings = round_pool(self.folder, number), self.settings

        def act() -> dict[str, Any]:
            cache, known = self.frames(number), [*self.split.train.tolist(), *self._new(number)]
            models, starts = self._disagreeing(number), [cache[index] for index in known]
            seed = self.config.train.seed + number
            found, ended = explore(models, starts, settings.exploration, seed, settings.overlap)
            write_cache(chain(self.pool, found), place, overwrite=True)
            return {"round": number, "frames": len(found), "replicas_ended": ended}

        self._note("exploring", {"round": number})
        self.ledger.once("explored", act)
        self.pool = FrameCache.open(place)

        def ask() -> dict[str, Any]:
            self._run_members(number, "predict", asks_for_pool=True)
            return {"round": number}

        self.ledger.once("predicted", ask)

    def _disagreeing(self, number: int) -> Sequence[SDAS | Path]:
        """The models of a round whose disagreement is measured."""
        settings, folders = self.settings, member_folders(self.folder, number, self.settings.models)
        drawn = [drawn_models(folder, settings.uncertainty, settings.draws) for folder in folders]
        return [model for of_member in drawn for model in of_member] or folders

    def _task(self, number: int, member: int, asks_for_pool: bool) -> Task:
        settings, folder = self.settings, member_folder(self.folder, number, member)
        tuned = is_tuned(settings, number)
        frames = os.path.relpath(self.frames(number).path, self.folder.resolve())
        old, new = self.split.train.tolist(), self._new(number)
        known = [*old, *new]
        pool = os.path.relpath(self.pool.path, self.folder.resolve())
        gradients = member == 0 and settings.features == "gradient"  # selections are by the features of one
        return Task(
            run=os.path.relpath(self.folder, folder),
            frames=frames,
            train=self._replayed(number) if tuned else known,
            validation=self.split.validation.tolist(),
            origin=os.path.relpath(member_folder(self.folder, number - 1, member), self.folder) if tuned else None,
            uncertainty=settings.uncertainty,
            draws=settings.draws,
            scaled=is_scaled(settings, number),
            asked=[
                *([Asked(POOL_ASKED, pool, self._free(), gradients=gradients)] if asks_for_pool else []),
                Asked(KNOWN, frames, known, drawn=False, gradients=gradients),
                Asked(VALIDATION, frames, self.split.validation.tolist()),
                Asked(TEST, frames, self.split.test.tolist()),
            ],
        )

    def _replayed(self, number: int) -> list[int]:
        """The frames that the last round labeled, and as many older ones as are set."""
        first = len(self.frames(number - 1))
        old = np.array([*self.split.train, *self._new(number - 1)], dtype=np.int64)
        new = np.arange(first, len(self.frames(number)))
        if self.settings.replay is not None:
            wanted = min(len(old), round(self.settings.replay * len(new)))
            old = np.sort(self._generator(number).permutation(old)[:wanted])
        return [*old.tolist(), *new.tolist()]

    def _free(self) -> list[int]:
        """The frames of the pool that may still be selected."""
        return [index for index in range(len(self.pool)) if index not in self.taken]

    def _said(self, number: int, name: str, frames: Sequence[Frame]) -> EnsemblePrediction:
        """What the models of a round say of frames, with the variance of the source that is set."""
        folders = member_folders(self.folder, number, self.settings.models)
        said, sizes = [read_prediction(each, name) for each in folders], [len(frame) for frame in frames]
        prediction = combine([each.prediction for each in said], sizes)
        drawn = [each for of_member in said for each in of_member.drawn]
        if drawn:
            spread = combine(drawn, sizes)
            found = {"energy_variance": spread.energy_variance, "force_variance": spread.force_variance}
            return replace(prediction, **found)
        if self.settings.uncertainty != "last-layer" or not frames:
            return prediction
        known = [read_prediction(each, KNOWN) for each in folders]
        variances = [LastLayer(one.features).variance(each.features) for one, each in zip(known, said, strict=True)]
        return replace(prediction, energy_variance=np.mean(variances, axis=0))

    def _assess(self, number: int) -> Line:
        """Errors of the ensemble of a round, and what its uncertainties are worth."""

        def act() -> dict[str, Any]:
            cache = self.frames(number)
            validation = [cache[int(index)] for index in self.split.validation]
            test = [cache[int(index)] for index in self.split.test]
            on_validation, on_test = self._said(number, VALIDATION, validation), self._said(number, TEST, test)
            pool = self._said(number, POOL_ASKED, [self.pool[index] for index in self._free()])
            calibration = self.uncertainty.calibration(on_validation, validation)
            deviations = np.sqrt(scores_of(self.settings.measure, pool))
            facts = {
                "round": number,
                "labels": len(self.split.train) + len(self._new(number)),
                "validation": errors_of(on_validation, validation),
                "test": errors_of(on_test, test),
                "calibration": {
                    "scale": None if calibration is None else calibration.scale,
                    "validation": self.uncertainty.cross_judged(on_validation, validation),
                    "test": self.uncertainty.judged(calibration, on_test, test),
                },
                "pool": {"frames": len(deviations), "unit": self.uncertainty.unit, **_spread(deviations)},
            }
            self._say(facts)
            return facts

        return self.ledger.once("assessed", act)

    def _select(self, number: int) -> bool:
        """Select and label frames of the pool for the round after this one; False if none is left to select."""
        selected = self.ledger.once("selected", lambda: self._selected(number))
        chosen, wanted = selected["chosen"], self.settings.labels_per_round
        if len(chosen) < wanted:
            print(
                f"round {number}: {len(chosen)} of {wanted} frames are selected; the pool has no more, of "
                f"{selected['candidates']} frames {selected['duplicates']} are near-duplicates (active.duplicates)",
                file=sys.stderr,
            )
        if not chosen:
            return False
        self._note("labeling", {"round": number, "frames": len(chosen)})
        self.ledger.once("labeled", lambda: self._labeled(number, chosen))
        self.taken.update(chosen)
        return True

    def _selected(self, number: int) -> dict[str, Any]:
        settings, cache, free = self.settings, self.frames(number), self._free()
        known = [cache[index] for index in (*self.split.train.tolist(), *self._new(number))]
        candidates = [self.pool[index] for index in free]
        scores = scores_of(settings.measure, self._said(number, POOL_ASKED, candidates))
        kinds, first = Kinds(), member_folder(self.folder, number, 0)
        said = {name: read_prediction(first, name) for name in (POOL_ASKED, KNOWN)}
        gradient = settings.features == "gradient"
        features = {name: each.gradients if gradient else each.features for name, each in said.items()}
        found = select(
            settings.select,
            settings.labels_per_round,
            scores,
            Frames(features[POOL_ASKED], kinds.of(candidates), list(map(shape_of, candidates))),
            Frames(features[KNOWN], kinds.of(known), list(map(shape_of, known))),
            threshold=settings.duplicates,
            seed=self.config.train.seed + number,
        )
        return {
            "round": number,
            "chosen": [free[row] for row in found.chosen],
            "sources": [candidates[row].source for row in found.chosen],
            "uncertainty": np.sqrt(scores[found.chosen]).tolist(),
            "duplicates": len(found.duplicates),
            "candidates": len(free),
        }

    def _labeled(self, number: int, chosen: Sequence[int]) -> dict[str, Any]:
        """Label what was chosen, tell how right the ensemble was about it, and write the frames of the next round."""
        began, cache = time.monotonic(), self.frames(number)
        found = label([self.pool[index] for index in chosen], self.settings, self.folder)
        free = self._free()
        everything = self._said(number, POOL_ASKED, [self.pool[index] for index in free])
        said = part_of(everything, [free.index(chosen[row]) for row in found.indices])
        validation = [cache[int(index)] for index in self.split.validation]
        calibration = self.uncertainty.calibration(self._said(number, VALIDATION, validation), validation)
        write_cache(chain(cache, found.frames), round_frames(self.folder, number + 1), overwrite=True)
        return {
            "round": number,
            "labeled": [chosen[row] for row in found.indices],
            **found.document(),
            "before": errors_of(said, found.frames),
            "calibration": self.uncertainty.judged(calibration, said, found.frames),
            "seconds": round(time.monotonic() - began, 3),
        }

    def _keep_model(self, number: int) -> None:
        """Put the model of the first member of the last ensemble where other commands look for the model of a run."""
        folder = member_folder(self.folder, number, 0)
        summary = {"training": {**read_document(folder / SUMMARY), "round": number}}
        save_model(self.folder / MODEL, load_run_model(folder), summary)

    def _note(self, kind: str, facts: dict[str, Any]) -> None:
        self.ledger.once(kind, lambda: facts)

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.config.train.seed, number])

    def _say(self, facts: dict[str, Any]) -> None:
        part = "test" if facts["test"] else "validation"
        errors = facts[part]
        shown = f"; {part} forces {errors['force_mae_mev_per_ang']:.4g} meV/Å" if errors else ""
        pool, unit = facts["pool"], facts["pool"]["unit"]
        left = f"; {pool['frames']} frames in the pool, σ up to {pool['largest']:.3g} {unit}" if pool["frames"] else ""
        print(f"round {facts['round']}: {facts['labels']} labels{shown}{left}", file=sys.stderr)


def _spread(deviations: np.ndarray) -> dict[str, float | None]:
    if not len(deviations):
        return {"mean": None, "largest": None}
    return {"mean": float(deviations.mean()), "largest": float(deviations.max())}
