"""Inner cutoffs are the shortest distances of the frames that train, through all that a run may do with them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import FrameCache, read_frames, write_cache
from sdas.data.shortest_distances import shortest_distances
from sdas.errors import CheckpointError, SdasError
from sdas.predict import predict_batches
from sdas.run.model import load_run_model
from sdas.train import train
from sdas.train.inner_cutoffs import with_inner_cutoff
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.until import Until
from sdas_kernels.nn import grow


def shortest_of(frames, cutoff: float = 3.0) -> dict[tuple[int, int], float]:
    """By distances of all pairs; frames without a cell."""
    found: dict[tuple[int, int], float] = {}
    for frame in frames:
        for i, j in combinations(range(len(frame)), 2):
            key = tuple(sorted((int(frame.numbers[i]), int(frame.numbers[j]))))
            distance = float(np.linalg.norm(frame.positions[i] - frame.positions[j]))
            if distance < cutoff:
                found[key] = min(found.get(key, np.inf), distance)
    return found


def about(lengths: dict[tuple[int, int], float]) -> dict[tuple[int, int], object]:
    """0.03 Å below, in whole fm."""
    return {pair: pytest.approx(length - 0.03, abs=1.1e-5) for pair, length in lengths.items()}


@pytest.fixture
def guarded_config(make_config):
    def make(**settings):
        config = make_config(**settings)
        config.model.repulsion = "inner-cutoff"
        return config

    return make


def test_periodic_images_count(molecules):
    frame = molecules(1)[0]
    box = replace(frame, cell=np.diag([2.0, 9.0, 9.0]), pbc=np.ones(3, bool))
    assert shortest_distances([box], [0], 3.0)[8, 8] == pytest.approx(2.0)
    assert (8, 8) not in shortest_distances([frame], [0], 3.0)


def test_a_run_takes_them_from_the_frames_that_train_and_a_resumed_one_keeps_them(guarded_config, cache_path):
    config, cache = guarded_config(), FrameCache.open(cache_path)
    data = TrainingData(cache, np.arange(24), np.arange(24, 32))
    wanted = about(shortest_of([cache[k] for k in range(24)]))
    with Processes("cpu") as processes:
        with Session(config, data, processes) as session:
            session.advance(Until(steps=3))
            session.save()
            assert session.model.repulsion.lengths() == session.averaged.repulsion.lengths() == wanted
            weights = [weight.clone() for weight in session.model.parameters()]
        with Session(config, data, processes) as session:
            assert session.progress.step == 3
            assert session.model.repulsion.lengths() == session.averaged.repulsion.lengths() == wanted
            assert all(map(torch.equal, weights, session.model.parameters()))
        config.model.repulsion = None
        with (
            pytest.raises(CheckpointError, match=r"model\.repulsion inner-cutoff, not None"),
            Session(config, data, processes),
        ):
            pass


def test_training_gives_the_same_weights_with_it(make_config, guarded_config):
    """As no frame that trains has closer atoms, nothing changes, to the last bit."""
    plain, guarded = make_config("plain"), guarded_config(run="guarded")
    for config in (plain, guarded):
        train(config)
    found, wanted = (load_run_model(config.run_dir) for config in (guarded, plain))
    for name, weight in wanted.named_parameters():
        assert torch.equal(found.get_parameter(name), weight), name


def test_new_frames_and_models_of_other_runs_only_make_them_shorter(guarded_config, tmp_path, molecules):
    first, closer, both = molecules(32), molecules(32, seed=9), dict[tuple[int, int], float]()
    closer = [replace(frame, positions=0.9 * frame.positions) for frame in closer]
    write_cache(closer, tmp_path / "closer")
    write_cache(first, tmp_path / "first")
    for pair, length in (*shortest_of(first[:24]).items(), *shortest_of(closer[:24]).items()):
        both[pair] = min(both.get(pair, np.inf), length)
    data = [
        TrainingData(FrameCache.open(tmp_path / name), np.arange(24), np.arange(24, 32)) for name in ("first", "closer")
    ]
    with Processes("cpu") as processes:
        with Session(guarded_config(run="a"), data[0], processes) as session:
            session.use_data(data[1])
            assert session.model.repulsion.lengths() == session.averaged.repulsion.lengths() == about(both)
            session.use_model(grow(session.model, channels=8), moments="kept")
            assert session.model.repulsion.lengths() == about(both)
        with Session(guarded_config(run="b"), data[0], processes) as other:
            origin = other.model
        with Session(guarded_config(run="c"), data[1], processes) as session:  # as a round of active learning does
            session.use_model(origin)
            assert session.averaged.repulsion.lengths() == about(both)


def test_the_command_adds_them_to_a_trained_model(make_config, tmp_path, cache_path):
    config = make_config()
    train(config)
    run, out = tmp_path / "run", tmp_path / "safe"
    result = CliRunner().invoke(app, ["inner-cutoff", str(run), "--out", str(out)])
    assert result.exit_code == 0, result.output
    frames, plain, made = list(read_frames(cache_path)), load_run_model(run), load_run_model(out)
    assert made.config == plain.config | {"repulsion": "inner-cutoff"}
    lengths = made.repulsion.lengths()
    assert f"H–O {lengths[1, 8]:.3f}" in result.output
    far = [frame for frame in frames if all(d > lengths[pair] for pair, d in shortest_of([frame]).items())]
    assert len(far) >= 24
    for (_, found), (_, wanted) in zip(predict_batches(made, far, 8), predict_batches(plain, far, 8), strict=True):
        assert np.array_equal(found.forces, wanted.forces)
        assert np.array_equal(found.energy, wanted.energy)
    alone = CliRunner().invoke(app, ["inner-cutoff", str(out), "--out", str(tmp_path / "again")])
    assert alone.exit_code == 1
    assert "name the frames that the model was trained on" in alone.output
    over = CliRunner().invoke(app, ["inner-cutoff", str(run), "--out", str(out)])
    assert over.exit_code == 1
    assert "holds a model already: choose another --out" in over.output
    again = with_inner_cutoff(made, frames[:2])
    assert again.repulsion.lengths() == lengths


def test_only_a_network_that_has_learned_all_takes_one(make_model, molecules):
    with pytest.raises(SdasError, match="without repulsion, got zbl"):
        with_inner_cutoff(make_model(repulsion="zbl"), molecules(2))
    with pytest.raises(SdasError, match="from frames, got none"):
        with_inner_cutoff(make_model(), [])
    strange = replace(molecules(1)[0], numbers=np.array([8, 7]))
    with pytest.raises(SdasError, match="does not know N; it was trained on H, C, O: name the frames that trained it"):
        with_inner_cutoff(make_model(), [strange])
