"""What becomes of a frame whose worker fails: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from sdas.config.label import ResourcesConfig
from sdas.errors import LabelError
from sdas.label import Label, LabelStore, label_frames
from sdas.label.pool import WorkerDiedError, label_all
from sdas.label.processes import ProcessWorker

H, HE, LI, BE, B, C, N = range(1, 8)


def test_each_fault_costs_its_own_frame_alone(tmp_path, springs, spring, log):
    frames = springs(H, B, N, HE, BE, LI, C)
    with LabelStore.open(tmp_path / "labels") as store:
        done = label_frames(frames, spring, store, ResourcesConfig(workers=2, timeout_s=1.0, retries=1))
        kinds = ["label" if isinstance(outcome, Label) else outcome.kind for outcome in done.outcomes]
        assert kinds == ["label", "raised", "not finite", "timeout", "label", "killed", "label"]
        assert "ValueError: no boron here" in done.outcomes[1].reason
        assert "SIGKILL" in done.outcomes[5].reason
        assert done.outcomes[4].facts["workers_lost"] == 1
        assert [done.outcomes[index].energy for index in (0, 4, 6)] == [1.0, 25.0, 49.0]
        np.testing.assert_array_equal(done.outcomes[6].forces, [[-14.0, 0, 0]])
        assert len(store) == 3
        assert store.failure(done.keys[3]).kind == "timeout"
    assert Counter(line.split()[0] for line in log.read_text().splitlines())["Li"] == 2, "one retry"


class Line:
    """A worker in this process that says what its script says: None (ready), "death", or an outcome."""

    def __init__(self, script):
        self.script = list(script)
        self.frames, self.killed = [], False

    def submit(self, frame):
        self.frames.append(frame)

    def collect(self):
        said = self.script.pop(0)
        if said == "death":
            raise WorkerDiedError("by a test")
        return said

    def kill(self):
        self.killed = True


class Lines:
    """Workers with scripts, in the order in which they are started."""

    def __init__(self, *scripts):
        self.scripts, self.started = list(scripts), []

    def start(self):
        self.started.append(Line(self.scripts.pop(0)))
        return self.started[-1]

    def wait(self, workers, timeout_s):
        return [worker for worker in workers if worker.script]


LABEL = Label(0.0, np.zeros((1, 3)))


def test_a_frame_goes_to_another_worker_when_its_own_dies(springs):
    engine = Lines([None, LABEL, "death"], [None, LABEL, LABEL])
    outcomes = list(label_all(enumerate(springs(H, H, H)), engine, ResourcesConfig()))
    assert [number for number, _ in outcomes] == [0, 1, 2]
    assert outcomes[1][1].facts == {"workers_lost": 1}
    assert all(line.killed for line in engine.started)


def test_frames_are_taken_when_a_worker_is_free(springs):
    taken = []
    frames = (taken.append(index) or (index, frame) for index, frame in enumerate(springs(H, H, H)))
    outcomes = label_all(frames, Lines([None, LABEL, LABEL, LABEL]), ResourcesConfig())
    next(outcomes)
    assert taken == [0]


def test_workers_that_never_begin_are_an_error(springs):
    with pytest.raises(LabelError, match="workers end before they begin: by a test"):
        list(label_all(enumerate(springs(H)), Lines(*[["death"]] * 3), ResourcesConfig()))


def test_workers_are_ended_with_the_work(springs):
    engine = Lines([None, LABEL], [None])
    outcomes = label_all(enumerate(springs(H, H, H)), engine, ResourcesConfig(workers=2))
    next(outcomes)
    outcomes.close()
    assert [line.killed for line in engine.started] == [True, True]


def wait_for_lines(log, count):
    deadline = time.monotonic() + 60
    while len(log.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


DRIVER = """
import sys
from sdas.config.label import parse_oracle
from sdas.data import read_frames
from sdas.label import LabelStore, label_frames
oracle = parse_oracle("ase:spring_calculator:Spring", {"arguments": {"log": "computed.txt", "seconds": 0.15}})
frames = list(read_frames("frames.xyz", require=(), check_units=False))
with LabelStore.open("labels") as store:
    done = label_frames(frames, oracle, store)
print(done.computed, sum(outcome.energy for outcome in done.outcomes))
"""


def test_a_killed_driver_loses_the_label_in_flight_and_a_second_writer_computes_no_label_twice(
    tmp_path, spring, log, monkeypatch
):
    count = 12
    frames = "".join(f"1\nProperties=species:S:1:pos:R:3\nH {x + 1}.0 0.0 0.0\n" for x in range(count))
    (tmp_path / "frames.xyz").write_text(frames)
    path = os.pathsep.join(place for place in sys.path if place)
    drivers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    wait_for_lines(log, 4)
    drivers[0].send_signal(signal.SIGKILL)
    drivers[0].communicate()
    said = drivers[1].communicate(timeout=60)[0].split()
    assert drivers[1].returncode == 0
    assert float(said[1]) == sum(x**2 for x in range(1, count + 1))
    with LabelStore.open(tmp_path / "labels") as store:
        assert len(store) == count
    computed = log.read_text().splitlines()
    assert len(set(computed)) == count
    assert len(computed) <= count + 1


def test_a_worker_ends_with_whoever_started_it_in_the_midst_of_a_calculation(springs, spring, log):
    worker = ProcessWorker(spring, ResourcesConfig())
    assert worker.collect() is None
    worker.submit(springs(HE)[0])
    wait_for_lines(log, 1)
    worker.line.close()
    assert worker.process.wait(30) == 0
