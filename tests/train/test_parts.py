"""The parts of training, each by itself."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdas.config import TrainConfig
from sdas.data import DataError, Frame, FrameCache
from sdas.data.graphs import graph_of
from sdas.errors import TrainingError
from sdas.train.feed import Feed
from sdas.train.graphs import GraphStore
from sdas.train.order import BudgetedOrder, FrameOrder, in_batches, share
from sdas.train.processes import Processes
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


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(60, 200), st.integers(0, 5))
def test_a_budget_holds_every_frame_once_an_epoch_and_the_next_one_would_not_fit(costs, budget, seed):
    frames, n = 3 * np.arange(len(costs)) + 7, len(costs)
    costs = np.array(costs)
    order, batches = BudgetedOrder(frames, costs, budget, seed), []
    while order.epoch(len(batches)) < 3:
        batches.append(order.batch(len(batches)))
    stream = np.concatenate(batches)
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == frames.tolist()
    spent = [costs[(batch - 7) // 3].sum() for batch in batches]
    assert max(spent) <= budget
    for batch, following, cost in zip(batches[:-1], batches[1:], spent[:-1], strict=True):
        assert len(batch) > 0
        assert cost + costs[(following[0] - 7) // 3] > budget
    last = len(batches) - 1
    assert np.array_equal(BudgetedOrder(frames, costs, budget, seed).batch(last), batches[last])


def test_a_budget_of_frames_is_a_number_of_frames():
    frames = np.array([3, 5, 7, 11, 13])
    one, other = BudgetedOrder(frames, np.ones(5, dtype=np.int64), 4, 1), FrameOrder(frames, 4, 1)
    assert all(np.array_equal(one.batch(step), other.batch(step)) for step in (7, 0, 3, 11))
    assert one.epoch(5) == other.epoch(5) == 4.0


def test_batches_of_a_list_hold_what_fits():
    indices, costs = np.array([9, 8, 7, 6, 5]), np.array([4, 4, 1, 8, 1])
    assert [part.tolist() for part in in_batches(indices, costs, 9)] == [[9, 8, 7], [6, 5]]
    assert [part.tolist() for part in in_batches(indices, costs, 8)] == [[9, 8], [7], [6], [5]]
    assert in_batches(indices[:0], costs[:0], 8) == []


def test_processes_share_a_batch_by_its_cost():
    indices, costs = np.array([4, 2, 9, 7, 1]), np.array([10, 192, 90, 100, 20])
    shares = [share(indices, costs, rank, 2) for rank in range(2)]
    assert [part.tolist() for part in shares] == [[4, 2], [9, 7, 1]]
    assert [share(indices[:2], costs[:2], rank, 3).tolist() for rank in range(3)] == [[2], [4], []]
    dealt = [share(np.arange(7), np.full(7, 9), rank, 3).tolist() for rank in range(3)]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.fixture
def fed(cache_path):
    """An order, and what makes batches of it."""
    frames = FrameCache.open(cache_path)
    return FrameOrder(np.arange(12), 5, seed=3), GraphStore(frames, 3.0, torch.float64, 2**30)


def test_batches_that_are_made_ahead_are_those_of_their_steps(fed):
    order, store = fed
    feed = Feed(order, store, Processes("cpu"))
    for step in (0, 1, 2, 7, 8, 3):
        indices, batch = feed.take(step)
        assert indices.tolist() == order.batch(step).tolist()
        wanted = store.batch(indices)
        assert torch.equal(batch.graph.positions, wanted.graph.positions)
        assert torch.equal(batch.graph.senders, wanted.graph.senders)
        assert torch.equal(batch.energy, wanted.energy)
    feed.close()


def test_the_next_batch_is_made_while_a_step_computes(fed):
    """By another thread; what goes wrong in it is raised when its step comes."""
    order, store = fed
    made, make = [], store.batch

    def watched(indices):
        made.append((indices.tolist(), threading.current_thread() is threading.main_thread()))
        if len(made) == 3:
            raise DataError("frame 7 is damaged")
        return make(indices)

    store.batch = watched
    feed = Feed(order, store, Processes("cpu"))
    feed.take(0)
    feed._next[1].result()
    assert made == [(order.batch(0).tolist(), True), (order.batch(1).tolist(), False)]
    feed.take(1)
    with pytest.raises(DataError, match="frame 7 is damaged"):
        feed.take(2)
    feed.close()


def test_a_batch_of_no_frames_has_nothing(fed):
    _, store = fed
    batch = store.batch(np.arange(0))
    assert (batch.graph.num_atoms, batch.graph.num_edges, batch.graph.num_systems) == (0, 0, 0)
    assert (batch.counts.frames, batch.counts.energies) == (0, 0)
    assert batch.energy.shape == (0,)


def test_frames_cost_themselves_their_atoms_or_their_edges(fed):
    _, store = fed
    indices = np.array([2, 0, 5])
    assert store.costs(indices, "size").tolist() == [1, 1, 1]
    assert store.costs(indices, "atoms").tolist() == [len(store.frames[k]) for k in (2, 0, 5)]
    graphs = [graph_of(store.frames[k], 3.0, torch.float64) for k in (2, 0, 5)]
    assert store.costs(indices, "edges").tolist() == [graph.num_edges for graph in graphs]


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
