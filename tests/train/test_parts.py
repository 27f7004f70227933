"""The parts of training, each by itself."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from sdas.config import TrainConfig
from sdas.data import Frame, FrameCache
from sdas.errors import TrainingError
from sdas.train.graphs import GraphStore
from sdas.train.order import FrameOrder
from sdas.train.rows import COLUMNS, Rows, read_rows
from sdas.train.schedule import ema_decay, learning_rate
from sdas.train.state import Progress
from sdas.train.until import Until


def frame(numbers, energy, force=1.0):
    z = np.array(numbers, dtype=np.int64)
    positions = np.arange(3.0 * len(z)).reshape(-1, 3)
    return Frame(z, positions, None, np.zeros(3, bool), energy, np.full((len(z), 3), force), None, "made")


def test_every_epoch_is_another_permutation_and_any_step_is_found_directly():
    frames = np.array([3, 5, 7, 11, 13])
    order = FrameOrder(frames, 4, seed=1)
    stream = np.concatenate([order.batch(step) for step in range(5)])
    epochs = stream.reshape(4, 5)
    assert all(sorted(epoch) == frames.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert np.array_equal(FrameOrder(frames, 4, seed=1).batch(3), order.batch(3))
    assert not np.array_equal(np.concatenate([FrameOrder(frames, 4, seed=2).batch(s) for s in range(5)]), stream)
    assert order.epoch(5) == 4.0


def test_cosine_with_warmup():
    config = TrainConfig(steps=100, learning_rate=2.0, warmup_steps=4)
    assert [learning_rate(config, step, 0.0) for step in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert learning_rate(config, 50, 0.5) == pytest.approx(1.0)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.0)
    constant = TrainConfig(steps=100, learning_rate=2.0, schedule="constant")
    assert learning_rate(constant, 99, 0.99) == 2.0


def test_averaging_forgets_the_start():
    config = TrainConfig(steps=10, ema_decay=0.999)
    assert ema_decay(config, 0) == pytest.approx(0.1)
    assert ema_decay(config, 10**6) == 0.999


def test_graphs_are_kept_within_the_memory_given(cache_path):
    frames = FrameCache.open(cache_path)
    roomy = GraphStore(frames, 3.0, torch.float32, 2**30)
    tight = GraphStore(frames, 3.0, torch.float32, 15_000)
    indices = np.arange(12)
    for _ in range(2):
        a, b = roomy.batch(indices), tight.batch(indices)
        assert torch.equal(a.graph.positions, b.graph.positions)
        assert torch.equal(a.graph.receivers, b.graph.receivers)
        assert torch.equal(a.forces, b.forces)
    assert len(roomy._kept) == 12
    assert 0 < len(tight._kept) < 4
    assert a.graph.num_atoms == roomy.counts(indices).atoms == sum(len(frames[i]) for i in range(12))
    assert a.energy.tolist() == [frames[i].energy for i in range(12)]


def row(step):
    return dict.fromkeys(COLUMNS, 1.5) | {"step": step, "val_energy_mae_mev": None}


def test_metrics_drop_rows_that_a_resumed_run_will_write_again(tmp_path):
    metrics = Rows(tmp_path, 0, tensorboard=False)
    for step in (5, 10, 15):
        metrics.write(row(step))
    with open(metrics.path, "a") as file:
        file.write("20,1.5,1.")  # a line that was cut short
    Rows(tmp_path, 10, tensorboard=False).write(row(11))
    assert [line["step"] for line in read_rows(tmp_path)] == ["5", "10", "11"]
    assert read_rows(tmp_path)[0]["val_energy_mae_mev"] == ""


@pytest.mark.parametrize(("keep", "line"), [(20, 1), (0, None), (None, None)], ids=["in the header", "empty", "whole"])
def test_metrics_cut_within_their_header_are_damaged_not_empty(tmp_path, keep, line):
    Rows(tmp_path, 0, tensorboard=False)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text()[:keep])
    if line is None:
        assert read_rows(tmp_path) == []
    else:
        with pytest.raises(TrainingError, match=f"line {line} is damaged"):
            read_rows(tmp_path)


def test_missing_tensorboard_is_said_clearly(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        Rows(tmp_path, 0, tensorboard=True)


@pytest.mark.parametrize("settings", [{"steps": 40}, {"minutes": 1.0}])
def test_a_run_away_from_a_terminal_says_how_far_it_is(settings, capsys, monkeypatch):
    from sdas.train import display

    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", 0.0)
    progress = Progress()
    shown = display.Display(Until(**settings), progress, visible=True)
    progress.count_step(0.25, atoms=18, seconds=0.5)
    shown.step(progress)
    shown.close()
    line = capsys.readouterr().err
    assert "step 1" in line
    assert "loss 0.25" in line
    assert "atoms/s 36" in line
    hidden = display.Display(Until(**settings), progress, visible=False)
    hidden.step(progress)
    hidden.close()
    assert capsys.readouterr().err == ""


def test_a_point_of_a_run_is_one_positive_number():
    progress = Progress(step=30, wall_s=90.0, flops=4_000)
    points = [Until(steps=40), Until(minutes=1.0), Until(flops=8_000)]
    assert [point.fraction(progress) for point in points] == [0.75, 1.5, 0.5]
    assert [point.reached(progress) for point in points] == [False, True, False]
    for wrong in ({}, {"steps": 3, "flops": 1e9}, {"steps": 0}, {"flops": -1.0}, {"minutes": float("nan")}):
        with pytest.raises(TrainingError, match="one positive number of steps, minutes or FLOPs"):
            Until(**wrong)
