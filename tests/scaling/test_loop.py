"""An adaptive run trains, tries, grows and cools down as its ledger says; a kill at any point costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdas.config import parse_config, render_config
from sdas.data import Frame, write_cache
from sdas.errors import ConfigError, SdasError
from sdas.run.checkpoint import load_training_state
from sdas.run.folder import LEDGER, MODEL
from sdas.run.model import load_run_model
from sdas.scaling import loop
from sdas.scaling.history import read_history
from sdas.scaling.ledger import Ledger
from sdas.scaling.policy import Decision, candidates
from sdas.scaling.rules import Rules
from sdas.scaling.settings import published_values, rules_of
from sdas.scaling.trainer import Trainer
from sdas.train.loop import train
from sdas.train.session import Session

DELTA = 1.5e6
PROGRAM = """
import sys
from pathlib import Path
from sdas.config import load_config
from sdas.scaling.loop import scale
scale(load_config(Path(sys.argv[1])))
"""


def frames(count: int, seed: int = 0, labels: bool = True) -> list[Frame]:
    """Water-like triples under springs of 2 eV/Å² towards 1.2 Å."""
    generator, made = np.random.default_rng(seed), []
    for k in range(count):
        positions = np.array([[0, 0, 0], [1.1, 0, 0], [0.5, 1.0, 0]]) + 0.1 * generator.normal(size=(3, 3))
        vectors = positions[:, None] - positions[None]
        lengths = np.linalg.norm(vectors, axis=-1) + 1.2 * np.eye(3)
        energy, forces = float(np.sum((lengths - 1.2) ** 2)) / 2, -2 * ((1 - 1.2 / lengths)[..., None] * vectors).sum(1)
        known = (energy, forces) if labels else (None, None)
        made.append(Frame(np.array([8, 1, 1]), positions, None, np.zeros(3, bool), *known, None, f"frame {seed}.{k}"))
    return made


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cache(frames(24), folder / "frames")
    write_cache(frames(8, seed=1), folder / "pool")
    write_cache(frames(3, labels=False), folder / "unlabeled")
    write_cache([replace(frame, forces=None) for frame in frames(24)], folder / "energies")
    return folder


@pytest.fixture
def make_config(tmp_path, places):
    def make(run="run", model=None, **scaling):
        budget = {"flops": 6 * DELTA, "delta_flops": DELTA, "cooldown": 0.25, "start_frames": 8}
        content = {
            "run_dir": str(tmp_path / run),
            "data": {"path": str(places / "frames"), "split": {"sizes": [16, 4, 4]}},
            "model": {"channels": 2, "heads": 1, "lmax": 1, "layers": 1, "cutoff": 3.0, "n_radial": 3, **(model or {})},
            "train": {"steps": 9, "batch_size": 2, "ema_decay": 0.9, "threads": 1, "dtype": "float64", "device": "cpu"},
            "scaling": {**budget, **scaling},
        }
        content["train"]["checkpoint_every"] = 20
        return parse_config(content, "test")

    return make


@pytest.fixture
def scripted(monkeypatch):
    """In place of the policy: try at the first decision, take the winner given, and stop three ΔC later."""

    def decide(law, state, rules):
        until, grown = state.spent + rules.delta_flops, candidates(state.sizes, state.pool_frames, rules)
        numbers = {"law": {"e_inf": state.error, "a": 1.0, "alpha": 1.0, "scatter": 0.01}}
        if state.trials:
            axis = state.trials[-1].axis
            return Decision("scale up", "as told", until, (axis,), state.trials[-1].sizes, numbers=numbers)
        if state.sizes.channels == 2 and state.sizes.frames == 8:
            return Decision("try", "as told", until, tuple(grown), numbers=numbers)
        action = "stop" if state.spent > 3.5 * rules.delta_flops else "go on"
        return Decision(action, "as told", until, numbers=numbers)

    monkeypatch.setattr(loop, "decide", decide)


class Killed(Exception):
    """In place of the signal that nobody survives."""


def kill_at(monkeypatch, owner, name, call, after=False):
    """Let the given call of a method, from 1 on, be the last that a process does: before it, or after it."""
    method, calls = getattr(owner, name), [0]

    def dying(self, *arguments, **named):
        calls[0] += 1
        if calls[0] == call and not after:
            raise Killed
        result = method(self, *arguments, **named)
        if calls[0] == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(make_config, scripted, monkeypatch, tmp_path):
    settings = {"grow": ["width", "data"], "trial": 0.5}
    whole = loop.scale(make_config("whole", **settings)).content
    config, resumed = make_config("killed", **settings), False
    kills = [
        (Session, "_step", 3, False),  # before the first validation
        (Trainer, "train", 2, True),  # with a state that is not in the ledger yet
        (Session, "_step", 14, False),  # within the first trial
        (Ledger, "_append", 1, False),
        (Trainer, "error", 1, True),  # of the second trial, which has just grown
        (Trainer, "take", 1, True),  # with the state of the winner in place
        (Session, "_step", 8, False),
        (Session, "validate", 2, True),
    ]
    for kill in kills:
        with monkeypatch.context() as patch:
            kill_at(patch, *kill)
            with pytest.raises(Killed):
                loop.scale(config, resume=resumed)
        resumed = True
    assert loop.scale(config, resume=True).content == whole
    ledgers = [(tmp_path / run / "ledger.jsonl").read_bytes() for run in ("whole", "killed")]
    assert ledgers[0] == ledgers[1]
    kinds = [json.loads(line)["kind"] for line in ledgers[0].splitlines()]
    assert [kinds.count(kind) for kind in ("trying", "born", "tried", "taken", "grown", "cooling")] == [
        2,
        2,
        2,
        1,
        1,
        1,
    ]
    assert loop.scale(config, resume=True).content == whole  # once it has ended, nothing is done again
    assert (tmp_path / "killed" / "ledger.jsonl").read_bytes() == ledgers[0]
    assert not (tmp_path / "killed" / "trials").exists()


def lines(folder: Path) -> int:
    return (folder / LEDGER).read_bytes().count(b"\n") if (folder / LEDGER).exists() else 0


def test_a_run_that_is_killed_by_signal_9_ends_as_one_that_is_not(make_config, tmp_path):
    def config(run):
        made = make_config(run, grow=["width", "depth"], epsilon=99.0, patience=1.0, payback=0.0, validations=9)
        return made.model_copy(update={"train": made.train.model_copy(update={"deterministic": True})})

    loop.scale(config("whole"))
    killed = config("killed")
    (tmp_path / "config.yaml").write_text(render_config(killed))
    process = subprocess.Popen([sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "config.yaml")])
    middle = lines(tmp_path / "whole") // 2
    while process.poll() is None and lines(tmp_path / "killed") < middle:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9
    assert middle <= lines(tmp_path / "killed") < lines(tmp_path / "whole")
    loop.scale(killed, resume=True)
    for name in (LEDGER, f"{MODEL}/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert "grown" in (tmp_path / "whole" / LEDGER).read_text()


def test_flops_are_charged_to_the_budget_and_add_up(make_config, scripted, tmp_path):
    """Of the winner once, of the loser too; the model that is saved has the sizes that the ledger says."""
    config = make_config(grow=["width", "data"], pool=None)
    content = loop.scale(config).content
    history = read_history(tmp_path / "run")
    (trials, (taken,)) = history.rounds[0]
    lost = sum(trial["flops"] for trial in trials if trial["axis"] != taken)
    state = load_training_state(tmp_path / "run" / "checkpoints")
    assert taken == "data"
    assert content["lost"] == lost > 0
    assert content["spent"] == state.document["progress"]["flops"] + lost
    assert content["spent"] < config.scaling.flops
    assert content["sizes"] == {"channels": 2, "heads": 1, "layers": 1, "lmax": 1, "frames": 16}
    assert len(state.tensors["data.train"]) == 16
    assert [point.flops for point in history.points] == sorted({point.flops for point in history.points})
    assert history.points[-1].spent == history.cooled[0].spent - (history.cooled[0].flops - history.points[-1].flops)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["train_flops"], summary["flops_of_lost_trials"]) == (content["spent"], lost)


def test_the_rate_falls_to_zero_over_the_part_that_is_set(make_config, scripted, tmp_path):
    spent = loop.scale(make_config(grow=["data"], warmup=0.0)).content["spent"]
    state = load_training_state(tmp_path / "run" / "checkpoints")
    ramp, flops = state.document["changes"]["ramp"], state.document["progress"]["flops"]
    assert (ramp["first"], ramp["last"]) == (1.0, 0.0)
    assert ramp["end"] - ramp["start"] == pytest.approx(0.25 * spent, rel=0.05)
    assert ramp["end"] <= flops
    rates = [float(row.split(",")[3]) for row in (tmp_path / "run" / "metrics.csv").read_text().split()[1:]]
    assert rates[0] == 1e-2
    assert 0 <= rates[-1] < 0.05 * rates[0]


def test_the_published_rules_grow_everything_and_begin_the_optimizer_anew(make_config, tmp_path, monkeypatch):
    """With an ε that no curve reaches: W·k_W, D·k_D and N·k_N as soon as there is a law, at the same error."""
    values = {key.removeprefix("scaling."): value for key, value in published_values(20 * DELTA).items()}
    assert rules_of(make_config(**values).scaling) == Rules.published(20 * DELTA)
    kept = []
    use_model = Session.use_model
    monkeypatch.setattr(Session, "use_model", lambda *given: (kept.extend(given[3:]), use_model(*given)))
    config = make_config(**{**values, "flops": 2 * DELTA, "delta_flops": DELTA, "epsilon": 1e6, "start_frames": 8})
    content = loop.scale(config).content
    history = read_history(tmp_path / "run")
    (growth,) = history.growths
    assert growth.axes == ["width", "depth", "data"]
    assert content["sizes"] == {"channels": 4, "heads": 1, "layers": 2, "lmax": 1, "frames": 16}
    assert growth.born == pytest.approx(growth.before, rel=1e-9)
    assert history.cooled == []
    assert history.law().last == history.points[-1].flops
    model = load_run_model(tmp_path / "run")
    assert (model.config["channels"], model.config["layers"]) == (4, 2)
    assert set(kept) == {"new"}


def test_the_data_grow_into_a_pool_file_whose_frames_come_last(make_config, places, scripted, tmp_path):
    config = make_config(grow=["data"], pool=str(places / "pool"), start_frames=8, k_n=2.5)
    assert loop.scale(config).content["sizes"]["frames"] == 20
    state = load_training_state(tmp_path / "run" / "checkpoints")
    used = state.tensors["data.train"].tolist()
    assert sum(index < 24 for index in used) == 16  # all that trained before, from the 24 of the data
    assert all(24 <= index < 32 for index in used if index >= 24)


@pytest.mark.parametrize(
    ("scaling", "model", "message"),
    [
        ({"flops": None}, {}, "scaling.flops is not set: give the budget, as in --flops 3e12"),
        ({"flops": 1e6, "delta_flops": 2e6}, {}, "delta_flops must be at most the 7.5e.05 FLOPs before the cool-down"),
        ({"delta_flops": 2e4}, {}, "scaling.delta_flops must be at least .*, 8 steps of"),
        ({"start_frames": 17}, {}, "scaling.start_frames must be at most the 16 training frames, got 17"),
        ({"k_w": 1.5}, {"channels": 4, "heads": 4}, "channels that 4 heads divide: from 4, 1.5 leads to 6"),
        ({"pool": "unlabeled"}, {}, "energy"),
        ({"pool": "nowhere.xyz"}, {}, "nowhere.xyz"),
        ({}, {"layer": "paper"}, "model.layer must be default for a model that grows"),
        (
            {"k_w": 1.25, "choose": "all"},
            {"channels": 4, "heads": 2},
            "channels that 2 heads divide: from 4, 1.25 leads",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(make_config, places, monkeypatch, scaling, model, message):
    if scaling.get("pool") == "unlabeled":
        scaling = {"pool": str(places / "unlabeled")}
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("trains"))
    with pytest.raises(SdasError, match=message):
        loop.scale(make_config(model=model, **scaling))


def test_an_epsilon_that_is_not_positive_is_refused(make_config):
    for epsilon in (0, -1):
        with pytest.raises(ConfigError, match=r"scaling.epsilon: input should be greater than 0"):
            make_config(epsilon=epsilon)


@pytest.mark.parametrize(
    ("frames", "split", "message"),
    [
        ("frames", (20, 1, 3), "1 of the 1 validation frames have forces.* set data.split.sizes"),
        ("frames", (20, 0, 4), "0 of the 0 validation frames have forces.* set data.split.sizes"),
        ("energies", (16, 4, 4), "0 of the 4 validation frames have forces.* no frame of the data has any"),
    ],
)
def test_sets_without_forces_to_judge_by_are_refused_before_training(
    make_config, places, monkeypatch, frames, split, message
):
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("trains"))
    config = make_config()
    data = {"path": str(places / frames), "split": config.data.split.model_copy(update={"sizes": split})}
    with pytest.raises(SdasError, match=message):
        loop.scale(config.model_copy(update={"data": config.data.model_copy(update=data)}))


def test_a_run_is_gone_on_with_by_the_command_that_began_it(make_config, scripted):
    config = make_config(grow=["data"])
    loop.scale(config)
    with pytest.raises(SdasError, match=r"a run of 'sdas scale'.* go on with 'sdas scale --resume"):
        train(config, resume=True)
    config = make_config("trained")
    train(config)
    with pytest.raises(SdasError, match="of which 'sdas scale' knows nothing"):
        loop.scale(config, resume=True)


def test_batches_by_a_budget_are_refused(make_config):
    config = make_config()
    by_atoms = config.train.model_copy(update={"batch_size": None, "batch_atoms": 9})
    with pytest.raises(ConfigError, match=r"set it, and train.batch_atoms to null"):
        loop.scale(config.model_copy(update={"train": by_atoms}))


def test_a_resumed_run_keeps_its_rules(make_config, monkeypatch):
    config = make_config()
    with monkeypatch.context() as patch:
        kill_at(patch, Trainer, "train", 2)
        with pytest.raises(Killed):
            loop.scale(config)
    changed = config.model_copy(update={"scaling": config.scaling.model_copy(update={"epsilon": 0.1})})
    with pytest.raises(SdasError, match=r"cannot change scaling.epsilon \(0.5 → 0.1\)"):
        loop.scale(changed, resume=True)
    with pytest.raises(SdasError, match="is not empty; resume it"):
        loop.scale(config)


def test_a_signal_saves_the_state_and_the_run_goes_on(make_config, scripted, monkeypatch):
    config = make_config(grow=["data"])
    step = Session._step

    def interrupted(self, counts_all):
        step(self, counts_all)
        if self.progress.step == 20:
            self.interrupted = 15

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_step", interrupted)
        stopped = loop.scale(config)
    assert (stopped.status, stopped.signal, stopped.content) == ("interrupted", 15, {})
    assert load_training_state(loop.Path(config.run_dir) / "checkpoints").step == 20
    assert loop.scale(config, resume=True).status == "complete"
