"""Rounds select by the formula, label, train on, and end alike wherever they are killed."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import ase
import numpy as np
import pytest
import torch

from sdas.active import rounds
from sdas.active.engine import Here, Interrupted
from sdas.active.folder import member_folder, round_frames
from sdas.active.rounds import learn
from sdas.config import load_config, render_config
from sdas.config.label import parse_oracle
from sdas.data import FrameCache
from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.files import write_text
from sdas.label import LabelStore, label_frames
from sdas.predict import gradient_features, predict
from sdas.report.active import write_active_report
from sdas.run.ledger import Ledger, read_lines
from sdas.run.model import load_run_model
from sdas_kernels.nn import thinned

KINDS = ["trained", "assessed", "selected", "labeled"]


def acts(folder, *kinds):
    return [line for line in read_lines(folder / "rounds.jsonl") if not kinds or line["kind"] in kinds]


def outcome(folder):
    """All that was decided, and the models: what does not depend on the clock."""
    timed = {"seconds", "oracle_s"}
    return [{name: value for name, value in line.items() if name not in timed} for line in acts(folder)]


def test_the_most_uncertain_frames_are_selected(finished):
    """Against the formula, by each model on its own: σ² = 1/M Σ (F_m − F̄)², its mean over atoms and components."""
    pool = FrameCache.open(finished / "pool")
    taken: set[int] = set()
    for line in acts(finished, "selected"):
        models = [load_run_model(member_folder(finished, line["round"], member)) for member in range(2)]
        free = [index for index in range(len(pool)) if index not in taken]
        variance = {}
        for index in free:
            forces = np.stack([predict(model, [pool[index]]).forces for model in models])
            variance[index] = np.mean((forces - forces.mean(axis=0)) ** 2)
        assert line["chosen"] == sorted(free, key=variance.__getitem__)[:-4:-1]
        assert line["uncertainty"] == pytest.approx([variance[index] ** 0.5 for index in line["chosen"]], rel=1e-9)
        taken |= set(line["chosen"])
    assert len(taken) == 6


def test_labels_are_appended_and_kept(finished):
    chosen = [index for line in acts(finished, "selected") for index in line["chosen"]]
    pool, start = FrameCache.open(finished / "pool"), FrameCache.open(round_frames(finished, 2))
    assert [line["labels"] for line in acts(finished, "assessed")] == [8, 11, 14]
    for frame, index in zip(list(start)[-6:], chosen, strict=True):
        assert np.array_equal(frame.positions, pool[index].positions)
        assert np.array_equal(frame.forces, pool[index].forces)
    with sqlite3.connect(finished / "labels" / "labels.sqlite") as store:
        assert store.execute("SELECT count(*) FROM labels").fetchone() == (6,)


def test_every_act_is_announced_and_noted(finished):
    kinds = [line["kind"] for line in acts(finished)]
    one = ["training", "trained", "assessed", "selected", "labeling", "labeled"]
    assert kinds == ["pool", "start", *one, *one, "training", "trained", "assessed"]


def test_members_go_on_from_the_round_before(finished):
    """Fine-tuning takes a quarter of the steps at a part of the rate; the last model is that of the run."""
    config = (member_folder(finished, 1, 0) / "config.yaml").read_text()
    assert "steps: 2\n" in config
    assert "learning_rate: 0.003\n" in config
    task = json.loads((member_folder(finished, 1, 1) / "task.json").read_text())
    assert task["origin"] == "rounds/000/members/1"
    last, ours = load_run_model(member_folder(finished, 2, 0)), load_run_model(finished)
    assert all((ours.state_dict()[name] == value).all() for name, value in last.state_dict().items())
    before, after = (load_run_model(member_folder(finished, number, 0)).state_dict() for number in (0, 1))
    step = max(float((after[name] - value).abs().max()) for name, value in before.items() if value.is_floating_point())
    assert 0 < step < 0.01  # two steps of Adam from there, and no new draw of weights


KILLED_AT = [
    *[(Ledger, "_append", number) for number in (3, 5)],
    (Here, "train", 1),
    (rounds, "label", 1),
    (rounds, "write_cache", 0),
]


@pytest.mark.parametrize(("owner", "name", "number"), KILLED_AT)
def test_a_run_that_is_killed_ends_as_one_that_is_not(
    owner, name, number, finished, make_config, tmp_path, monkeypatch
):
    """Killed when something has just been done for the n-th time, but nobody knows yet."""
    calls, original = itertools.count(), getattr(owner, name)

    def killed(*arguments, **options):
        result = original(*arguments, **options) if name != "_append" else None
        if next(calls) == number:
            raise SystemExit
        return original(*arguments, **options) if name == "_append" else result

    config = make_config(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(SystemExit):
            learn(config)
    result = learn(config, resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)
    assert result.rounds == 2


def test_a_run_whose_process_is_killed_ends_as_one_that_is_not(finished, make_config, tmp_path):
    """By SIGKILL, while members are trained by processes of their own, which end too."""
    config, folder = make_config(tmp_path / "run", processes=2, models=2), tmp_path / "run"
    (tmp_path / "run.yaml").write_text(render_config(config))
    driver = subprocess.Popen(
        [sys.executable, "-P", "-m", "sdas.cli", "active", str(tmp_path / "run.yaml")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline, log = time.monotonic() + 240, folder / "rounds" / "000" / "members" / "1" / "log.txt"
    while not (log.exists() and log.stat().st_size):
        assert driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < deadline, "no member is trained"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert acts(folder)[-1]["kind"] == "training"
    learn(make_config(folder), resume=True)
    assert outcome(folder) == outcome(finished)


def test_a_full_disk_loses_nothing(finished, make_config, tmp_path, monkeypatch):
    """The act in which it was full is done again when there is room."""
    calls, original = itertools.count(), rounds.write_cache

    def full(*arguments, **options):
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(*arguments, **options)

    config = make_config(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(rounds, "write_cache", full)
        with pytest.raises(OSError, match="No space left"):
            learn(config)
    learn(config, resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)


def test_a_finished_run_goes_on_with_more_rounds(make_config, finished, tmp_path):
    folder = tmp_path / "run"
    learn(make_config(folder, rounds=1))
    assert learn(make_config(folder, rounds=2), resume=True).labels == 14
    assert outcome(folder) == outcome(finished)


def test_an_oracle_labels_what_is_selected(make_config, finished, places, tmp_path):
    """Effective medium theory computes the labels that were hidden, so the run is the same."""
    config = make_config(tmp_path / "run", pool=str(places / "unlabeled"), oracle="ase:ase.calculators.emt:EMT")
    result = learn(config)
    chosen, wanted = (acts(folder, "selected") for folder in (tmp_path / "run", finished))
    assert [line["chosen"] for line in chosen] == [line["chosen"] for line in wanted]
    assert result.labels == 14
    assert acts(tmp_path / "run", "labeled")[0]["computed"] == 3


def test_labels_by_other_versions_are_noted(make_config, finished, places, tmp_path, monkeypatch, capsys):
    """Those that the store has already, when a round asks for them; on the page too."""
    folder, oracle = tmp_path / "run", "ase:ase.calculators.emt:EMT"
    pool = FrameCache.open(places / "unlabeled")
    with LabelStore.open(folder / "labels") as store:
        label_frames(list(pool), parse_oracle(oracle), store)
    monkeypatch.setattr("sdas.label.ase.ASEOracle.versions", {"ase": "9.9"})
    monkeypatch.setattr("sdas.active.rounds.open_folder", lambda config, resume: None)  # which wants an empty one
    write_text(folder / "config.yaml", render_config(config := make_config(folder, rounds=1, oracle=oracle)))
    learn(config.model_copy(update={"active": config.active.model_copy(update={"pool": str(places / "unlabeled")})}))
    (labeled,) = acts(folder, "labeled")
    note = f"3 labels are by ase {ase.__version__}, now it is ase 9.9"
    assert labeled["computed"] == 0
    assert note in labeled["notes"][0]
    assert note in capsys.readouterr().err
    assert note in write_active_report(folder).read_text()


FAULTY = """
import time
import numpy as np
from ase.calculators.emt import EMT

class Faulty(EMT):
    def __init__(self, faults):
        super().__init__()
        self.faults = faults

    def calculate(self, atoms=None, *rest):
        super().calculate(atoms, *rest)
        fault = self.faults.get(f"{atoms.positions[0, 0]:.6f}")
        if fault == "raised":
            raise ValueError("no such triangle")
        if fault == "not finite":
            self.results["forces"] = self.results["forces"] * np.nan
        if fault == "timeout":
            time.sleep(3600)
"""


def test_what_an_oracle_cannot_label_is_told_and_not_asked_for_again(
    make_config, places, tmp_path, monkeypatch, capsys
):
    """It raises, gives no number, or hangs; the rest is learned."""
    (tmp_path / "faulty_oracle.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    fault = {3: "raised", 8: "not finite", 12: "timeout", 17: "raised"}
    pool = FrameCache.open(places / "unlabeled")
    faults = {f"{pool[index].positions[0, 0]:.6f}": kind for index, kind in fault.items()}
    settings = {"oracle": "ase:faulty_oracle:Faulty", "oracle_settings": {"arguments": {"faults": faults}}}
    settings |= {"labels_per_round": 10, "select": "random", "duplicates": 0.0, "resources": {"timeout_s": 3.0}}
    folder = tmp_path / "run"
    learn(make_config(folder, pool=str(places / "unlabeled"), **settings))
    selected, labeled = acts(folder, "selected"), acts(folder, "labeled")
    assert sorted(index for line in selected for index in line["chosen"]) == list(range(20))
    for line, found in zip(selected, labeled, strict=True):
        wanted = {place: fault[index] for place, index in enumerate(line["chosen"]) if index in fault}
        assert {row["index"]: row["kind"] for row in found["failed"]} == wanted
        assert found["labeled"] == [index for index in line["chosen"] if index not in fault]
    assert capsys.readouterr().err.count("of 10 frames could not be labeled (") == sum(
        bool(each["failed"]) for each in labeled
    )
    assert acts(folder, "assessed")[-1]["labels"] == 8 + 20 - len(fault)


def test_a_run_begins_from_nothing(make_config, places, tmp_path):
    folder = tmp_path / "run"
    data = {"path": str(folder / "start"), "split": {"sizes": [0.8, 0.2, 0.0]}}
    result = learn(make_config(folder, data=data, start_labels=10, rounds=1, select="random"))
    (start,), (selected,) = acts(folder, "start"), acts(folder, "selected")
    assert len(start["taken"]) == 10
    assert not set(start["taken"]) & set(selected["chosen"])
    assert result.labels == 11
    assert start["first_labels"]["computed"] == 10


def test_one_model_can_tell_by_its_last_layer(make_config, tmp_path, capsys):
    """And the pool may end before the rounds do."""
    settings = {"models": 1, "select": "lcmd", "uncertainty": "last-layer", "learning": "scratch", "duplicates": 0.0}
    result = learn(make_config(tmp_path / "run", rounds=4, labels_per_round=12, **settings))
    assert [len(line["chosen"]) for line in acts(tmp_path / "run", "selected")] == [12, 8, 0]
    assert result.rounds == 2
    assert "round 1: 8 of 12 frames are selected; the pool has no more" in capsys.readouterr().err
    assert acts(tmp_path / "run", "assessed")[0]["pool"]["unit"] == "eV"


def independent_draws(model, folder, source):
    """Models by the words of the documentation: blocks of the readout, or hidden units that are left out."""
    config = load_config(folder / "config.yaml")
    if source == "dropout":
        assert config.train.dropout == 0.05
        return [thinned(model, 0.05, config.train.seed + draw) for draw in range(4)]
    assert config.model.members == 3
    drawn = []
    for number in range(3):
        drawn.append(copy.deepcopy(model))
        for readout in drawn[-1].readouts:
            own = torch.zeros_like(readout[2].weight)
            width = own.shape[1] // 3
            own[:, number * width : (number + 1) * width] = 3
            readout[2].weight.data *= own
    return drawn


@pytest.mark.parametrize("source", ["shallow", "dropout"])
def test_what_is_drawn_from_one_model_tells_where_it_is_unsure(source, make_config, tmp_path):
    """Against the formula, by each drawn model on its own; the prediction is the model's own."""
    folder, settings = tmp_path / "run", {"uncertainty": source, "models": 1, "draws": 4, "rounds": 1}
    config = make_config(folder, model={"members": 3, "channels": 4} if source == "shallow" else {}, **settings)
    learn(config)
    member = member_folder(folder, 0, 0)
    model, pool = load_run_model(member), FrameCache.open(folder / "pool")
    drawn = independent_draws(model, member, source)
    forces = np.stack([[predict(each, [frame]).forces for frame in pool] for each in drawn])
    variance = np.mean((forces - forces.mean(axis=0)) ** 2, axis=(0, 2, 3))
    (line,) = acts(folder, "selected")
    assert line["chosen"] == np.argsort(-variance)[:3].tolist()
    assert line["uncertainty"] == pytest.approx(np.sqrt(variance[line["chosen"]]).tolist(), rel=1e-6)
    cache, split = FrameCache.open(config.data.path), json.loads((folder / "split.json").read_text())
    frames = [cache[index] for index in split["test"]]
    errors = np.abs(predict(model, frames).forces - np.concatenate([frame.forces for frame in frames]))
    assert acts(folder, "assessed")[0]["test"]["force_mae_mev_per_ang"] == pytest.approx(1000 * errors.mean(), rel=1e-6)


def test_gradients_may_be_the_features(make_config, tmp_path):
    """The farthest frames by them of those that trained and were chosen, one after the other."""
    folder = tmp_path / "run"
    config = make_config(folder, select="maxdist", features="gradient", rounds=1, duplicates=0.0)
    learn(config)
    model, pool, cache = load_run_model(member_folder(folder, 0, 0)), FrameCache.open(folder / "pool"), config.data.path
    trained = json.loads((folder / "split.json").read_text())["train"]
    features = gradient_features(model, list(pool))
    near = list(gradient_features(model, [FrameCache.open(cache)[index] for index in trained]))
    wanted: list[int] = []
    for _ in range(3):
        distances = [min(np.linalg.norm(each - known) for known in near) for each in features]
        wanted.append(int(np.argmax(distances)))
        near.append(features[wanted[-1]])
    (line,) = acts(folder, "selected")
    assert line["chosen"] == wanted


def test_the_first_ensemble_may_grow_and_is_tuned_as_it_has_grown(make_config, tmp_path):
    """By adaptive scaling with the budget of a member."""
    folder, flops = tmp_path / "run", 2e7
    scaling = {"flops": flops, "delta_flops": flops / 10, "choose": "all", "grow": ["width"], "epsilon": 50.0}
    scaling |= {"patience": 1.0, "largest_channels": 4}
    learn(make_config(folder, growth=scaling, scaling="first", rounds=1))
    first, second = (member_folder(folder, number, 1) for number in (0, 1))
    grown = read_document(first / "scaling.json")
    assert grown["sizes"]["channels"] == 4
    assert load_run_model(second).config["channels"] == 4
    assert not (second / "scaling.json").exists()
    trained = acts(folder, "trained")
    members = [read_document(member_folder(folder, 0, member) / "scaling.json")["spent"] for member in range(2)]
    assert trained[0]["flops"] == sum(members) < 2.01 * flops  # a run ends with the step that reaches its budget


def test_old_frames_are_replayed_as_many_as_are_set(make_config, tmp_path):
    learn(make_config(tmp_path / "run", rounds=1, replay=1.5))
    task = json.loads((member_folder(tmp_path / "run", 1, 0) / "task.json").read_text())
    assert len(task["train"]) == 3 + round(1.5 * 3)
    assert task["train"][-3:] == [30, 31, 32]


def test_a_signal_stops_the_run(make_config, tmp_path, monkeypatch):
    def stopped(self, folders, finished):
        raise Interrupted(15)

    monkeypatch.setattr(Here, "train", stopped)
    assert learn(make_config(tmp_path / "run")).signal == 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_per_round": 50}, "the pool has 20 frames that can be used, fewer than active.labels_per_round, 50"),
        ({"pool": None}, "no pool to select from"),
        ({"pool": "unlabeled"}, "has no energy or no forces, which the oracle hidden would uncover"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(settings, message, make_config, places, tmp_path):
    if settings.get("pool"):
        settings = {**settings, "pool": str(places / settings["pool"])}
    with pytest.raises(SdasError, match=message):
        learn(make_config(tmp_path / "run", **settings))


def test_another_run_is_left_alone(make_config, finished, tmp_path):
    with pytest.raises(SdasError, match="is not empty; resume it with --resume"):
        learn(make_config(finished))
    with pytest.raises(SdasError, match="no run to resume there"):
        learn(make_config(tmp_path), resume=True)
    with pytest.raises(SdasError, match=r"cannot change active\.select"):
        learn(make_config(finished, select="random"), resume=True)
