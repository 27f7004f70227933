"""A session is advanced, changed, saved and gone on with: a policy drives it, and a kill costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sdas.config import render_config
from sdas.data import FrameCache
from sdas.errors import CheckpointError, TrainingError
from sdas.run.checkpoint import load_training_state
from sdas.train.objective import validate
from sdas.train.processes import Processes
from sdas.train.rows import read_rows
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until
from sdas_kernels.nn import SDAS, grow

POLICY = """
import os, signal, sys
import numpy as np
from sdas.config import load_config
from sdas.data import FrameCache
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until
from sdas_kernels.nn import SDAS

config, first, second, killed_at = load_config(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
indices = np.arange(24), np.arange(24, 32)
data = TrainingData(FrameCache.open(first), *indices)
with Processes("cpu") as processes, Session(config, data, processes) as session:
    session.advance(Until(steps=50))
    if session.model.config["channels"] == 4:
        wider = SDAS(**session.model.config | {"channels": 8}).double()
        wider.set_energy_reference({1: -13.0, 8: -2040.0}, 1.0)
        session.use_model(wider, moments="kept")
        session.use_data(TrainingData(FrameCache.open(second), *indices))
        session.learning_rate = 3e-3
    if killed_at:
        session.advance(Until(steps=killed_at))
        os.kill(os.getpid(), signal.SIGKILL)
    session.advance(Until(steps=100))
    session.validate()
    session.save()
"""


@pytest.fixture
def make_data(cache_path):
    def make(path=cache_path, train=24):
        return TrainingData(FrameCache.open(path), np.arange(train), np.arange(24, 32))

    return make


@pytest.fixture
def opened(make_config, make_data):
    """`opened(**train)`: a session on small data, inside its processes."""
    with Processes("cpu") as processes:
        yield lambda data=None, **settings: Session(make_config(**settings), data or make_data(), processes)


def wider(session: Session, **changes) -> SDAS:
    model = SDAS(**session.model.config | {"channels": 8} | changes).double()
    model.set_energy_reference({1: -13.0, 6: -1030.0, 8: -2040.0}, 1.0)
    return model


def test_a_killed_policy_that_changed_model_and_data_ends_with_the_same_bits(
    make_config, tmp_path, cache_path, other_cache_path
):
    ends = {}
    for name, kills in {"alone": [0], "killed": [30, 50, 75, 0]}.items():
        config = make_config(name, steps=100, deterministic=True, checkpoint_every=10, validate_every=25)
        path = tmp_path / f"{name}.yaml"
        path.write_text(render_config(config))
        for kill in kills:
            arguments = [str(path), str(cache_path), str(other_cache_path), str(kill)]
            command = [sys.executable, "-P", "-c", POLICY, *arguments]
            result = subprocess.run(
                command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
            )
            assert result.returncode == (-signal.SIGKILL if kill else 0), result.stderr
        folder = Path(config.run_dir)
        ends[name] = load_training_state(folder / "checkpoints"), read_rows(folder)
    (alone, rows), (killed, killed_rows) = ends.values()
    assert alone.step == killed.step == 100
    assert alone.tensors["model.embedding.weight"].shape[1] == 8
    assert alone.tensors.keys() == killed.tensors.keys()
    assert all(torch.equal(alone.tensors[name], killed.tensors[name]) for name in alone.tensors)
    assert alone.document["changes"] == killed.document["changes"]
    assert alone.document["progress"]["flops"] == killed.document["progress"]["flops"]
    lasting = [name for name in rows[0] if name not in ("wall_s", "atoms_per_s")]
    assert [[row[name] for name in lasting] for row in rows] == [[row[name] for name in lasting] for row in killed_rows]


def test_a_run_in_pieces_is_the_run_in_one_piece(opened):
    ends = []
    for run, points in {"one": [12], "pieces": [1, 5, 6, 12]}.items():
        with opened(run=run) as session:
            assert all(session.advance(Until(steps=point)) for point in points)
            ends.append([weight.detach().clone() for weight in session.averaged.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_flops_and_minutes_end_an_advance(opened):
    with opened(steps=100_000) as session:
        session.advance(Until(steps=3))
        budget = 2 * session.progress.flops
        assert session.advance(Until(flops=budget))
        assert budget <= session.progress.flops < 1.5 * budget
        assert session.advance(Until(minutes=session.progress.wall_s / 60 + 0.002))
        step = session.progress.step
        assert session.advance(Until(steps=1))  # has passed
        assert session.progress.step == step


def test_a_new_model_is_trained_and_averaged_and_its_flops_are_counted_anew(opened):
    with opened(steps=100) as session:
        session.advance(Until(steps=8))
        before = session.progress.flops
        model = wider(session)
        session.use_model(model)
        weight, mean = model.embedding.weight, session.averaged.embedding.weight
        assert torch.equal(weight, mean)
        assert mean is not weight
        session.advance(Until(steps=16))
        assert session.progress.flops - before > 1.5 * before
        assert session.changes.model["channels"] == 8
        assert not torch.equal(weight, session.averaged.embedding.weight)


def test_a_model_that_grew_is_as_good_as_before_and_goes_on(opened):
    with opened(steps=100) as session:
        session.advance(Until(steps=8))
        frames = session.data.validation

        def errors():
            return validate(session.averaged, session._store, frames, ("size", 4), session.processes)

        before, sizes = errors(), {"channels": 8, "heads": 4, "layers": 2, "lmax": 2}
        session.use_model(grow(session.model, **sizes), grow(session.averaged, **sizes), moments="kept")
        assert errors() == pytest.approx(before, rel=1e-9)
        new = session.model.layers[1].attention.value.weight
        assert torch.equal(new, session.averaged.layers[1].attention.value.weight)
        session.advance(Until(steps=16))
        session.save()
        shipped = errors()
    with opened(steps=100) as again:
        assert {name: again.model.config[name] for name in sizes} == sizes
        assert validate(again.averaged, again._store, frames, ("size", 4), again.processes) == shipped


@pytest.mark.parametrize(("moments", "kept"), [("new", False), ("kept", True)])
def test_moments_of_weights_that_stay_are_kept_where_asked_for(opened, moments, kept):
    with opened() as session:
        session.advance(Until(steps=4))
        bias = "readouts.0.2.bias"  # of the same shape in both models
        old = session.optimizer.state[dict(session.model.named_parameters())[bias]]["exp_avg"].clone()
        session.use_model(wider(session), moments=moments)
        state = session.optimizer.state.get(dict(session.model.named_parameters())[bias])
        assert (state is not None and torch.equal(state["exp_avg"], old)) is kept
        assert session.optimizer.state.get(session.model.embedding.weight) is None  # of another shape


def test_momenta_of_muon_are_kept_beside_the_moments_of_other_weights(opened):
    with opened(optimizer="muon", steps=20) as session:
        session.advance(Until(steps=4))
        before = {name: dict(session.optimizer.state[w]) for name, w in session.model.named_parameters()}
        session.use_model(SDAS(**session.model.config | {"layers": 2}).double(), moments="kept")
        for name, weight in session.model.named_parameters():
            kept = session.optimizer.state.get(weight, {})
            assert kept == before.get(name, {})
        assert len(before) < len(list(session.model.parameters()))
        assert session.advance(Until(steps=8))


def test_a_rate_that_was_set_is_kept_and_one_that_was_not_follows_the_configuration(opened):
    with opened() as session:
        session.save()
    with opened(learning_rate=2e-3) as session:
        assert session.learning_rate == 2e-3
        session.learning_rate = 3e-3
        session.save()
    with opened(learning_rate=4e-3) as session:
        assert session.learning_rate == 3e-3


def test_new_data_are_seen_from_the_start_of_their_order(opened, make_data, other_cache_path):
    with opened() as session:
        session.advance(Until(steps=3))
        session.use_data(make_data(other_cache_path, train=8))
        session.advance(Until(steps=6))
        session.validate()
        session.save()
    assert read_rows(session.folder)[-1]["epoch"] == "1.5"
    with opened() as again:
        assert again.data.frames.path == other_cache_path
        assert again.data.train.tolist() == list(range(8))


def test_frames_that_are_no_cache_are_asked_for_when_a_run_goes_on(opened, make_data):
    held = TrainingData(list(make_data().frames), np.arange(24), np.arange(24, 32))
    with opened(held) as session:
        session.advance(Until(steps=2))
        session.save()
    with pytest.raises(CheckpointError, match="frames that are no cache"), opened():
        pass
    with opened(held) as again:
        assert again.progress.step == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.use_model(wider(s, species=[1, 6, 8])), r"must have species \[1, 8\], got \[1, 6, 8\]"),
        (lambda s: s.use_model(wider(s, cutoff=4.0)), "must have cutoff 3.0, got 4.0"),
        (lambda s: s.use_model(wider(s).float()), "must be torch.float64, got torch.float32"),
        (lambda s: s.use_model(torch.nn.Linear(2, 2)), "must be an SDAS model, got Linear"),
        (lambda s: s.use_model(wider(s), moments="old"), 'moments must be "new" or "kept"'),
        (lambda s: s.use_data(TrainingData(s.data.frames, np.arange(0), np.arange(3))), "no frames to train on"),
        (lambda s: setattr(s, "learning_rate", 0.0), "must be positive, got 0.0"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_changes(opened, change, message):
    with opened() as session:
        model, data, changes = session.model, session.data, vars(session.changes).copy()
        with pytest.raises(TrainingError, match=message):
            change(session)
        assert session.model is model
        assert session.data is data
        assert vars(session.changes) == changes
