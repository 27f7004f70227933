"""From frames to labels: what the store has is taken from there, and the rest is computed, each structure once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sdas.config.label import OracleConfig, ResourcesConfig
from sdas.data.frame import Frame
from sdas.label.actors import Actors
from sdas.label.oracle import Failure, Label, Oracle, make_oracle
from sdas.label.pool import Engine, Outcome, label_all
from sdas.label.processes import Processes
from sdas.label.store import LabelStore, address

SECONDS_BETWEEN_LOOKS = 0.2
"""At a store in which another process writes labels that this one waits for."""


@dataclass(frozen=True)
class Labelling:
    """frames: with the charge and the spin that they were computed with. outcomes: of each, in their order.

    keys: of each, in the store. computed: structures computed now. versions: of the programs that compute now.
    """

    frames: Sequence[Frame]
    outcomes: list[Outcome]
    keys: list[str]
    computed: int
    versions: Mapping[str, str]

    @property
    def failed(self) -> list[int]:
        """Indices of the frames without a label."""
        return [index for index, outcome in enumerate(self.outcomes) if isinstance(outcome, Failure)]

    @property
    def by_other_versions(self) -> Counter[str]:
        """How many labels come from other versions of the programs, by their names and versions."""
        versions = [label.facts.get("versions", {}) for label in self.outcomes if isinstance(label, Label)]
        return Counter(versions_told(theirs) for theirs in versions if theirs != self.versions)

    def notes(self) -> list[str]:
        """What whoever uses the labels should know: those by other versions."""
        now = versions_told(self.versions)
        return [
            f"{count} labels are by {versions}, now it is {now}; a new store computes them again"
            for versions, count in self.by_other_versions.items()
        ]


def label_frames(
    frames: Sequence[Frame],
    oracle: OracleConfig,
    store: LabelStore,
    resources: ResourcesConfig | None = None,
    *,
    retry_failed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Labelling:
    """Label ``frames``; labels are in the ``store`` as soon as they are known, so a killed call goes on by a new one.

    Args:
        oracle: as :func:`sdas.config.label.parse_oracle` gives it.
        retry_failed: try again what did not converge before; other failures are tried again in any case.
        progress: is told how many more frames have an outcome.

    Raises:
        LabelError: the oracle cannot label one of the frames (nothing is computed then), or the store cannot be
            written to.
    """
    resources = resources or ResourcesConfig()
    judge = make_oracle(oracle, resources.memory_mib)
    frames = [judge.prepared(frame) for frame in frames]
    return _Labelling(frames, judge, store, retry_failed, progress).run(_engine(oracle, resources), resources)


def versions_told(versions: Mapping[str, str]) -> str:
    """``pyscf 2.14.0, pyscf-dispersion 1.7.0``."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "unknown versions"


def _engine(oracle: OracleConfig, resources: ResourcesConfig) -> Engine:
    return Actors(oracle, resources) if resources.engine == "ray" else Processes(oracle, resources)


class _Labelling:
    """What is known and what is not yet."""

    def __init__(
        self,
        frames: Sequence[Frame],
        oracle: Oracle,
        store: LabelStore,
        retry_failed: bool,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.frames, self.method, self.store, self.progress = frames, dict(oracle.method), store, progress
        self.versions = dict(oracle.versions)
        self.keys = [address(frame, self.method) for frame in frames]
        self.open: dict[str, list[int]] = {}
        for index, key in enumerate(self.keys):
            self.open.setdefault(key, []).append(index)
        self.outcomes: dict[str, Outcome] = {}
        self.retry_failed, self.computed = retry_failed, 0

    def run(self, engine: Engine, resources: ResourcesConfig) -> Labelling:
        """Settle every key. Those that other processes are at are waited for."""
        while self.open:
            before = len(self.open)
            for number, outcome in label_all(self._claimed(), engine, resources):
                self._take_in(number, outcome)
            if len(self.open) == before:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        outcomes = [self.outcomes[key] for key in self.keys]
        return Labelling(self.frames, outcomes, self.keys, self.computed, self.versions)

    def _claimed(self) -> Iterator[tuple[int, Frame]]:
        """Index and frame of what this process is to compute."""
        for key, (first, *_) in list(self.open.items()):
            if self._is_known(key) or not self.store.claim(key):
                continue
            if self._is_known(key):  # written by the process that had the claim a moment ago
                self.store.release(key)
            else:
                yield first, self.frames[first]

    def _is_known(self, key: str) -> bool:
        """Whether the store has an outcome; it is settled then."""
        outcome: Outcome | None = self.store.get(key)
        if outcome is None and not self.retry_failed:
            failure = self.store.failure(key)
            outcome = failure if failure is not None and failure.kind == "unconverged" else None
        if outcome is not None:
            self._settle(key, outcome)
        return outcome is not None

    def _take_in(self, number: int, outcome: Outcome) -> None:
        """Write a new outcome down."""
        key, frame = self.keys[number], self.frames[number]
        outcome = replace(outcome, facts={**outcome.facts, "method": self.method})
        if isinstance(outcome, Label):
            self.store.put(key, frame, outcome)
        else:
            self.store.record_failure(key, frame, outcome)
        self.store.release(key)
        self.computed += 1
        self._settle(key, outcome)

    def _settle(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        count = len(self.open.pop(key))
        if self.progress is not None:
            self.progress(count)
