"""Muon makes orthogonal steps of matrices and leaves the rest to AdamW; a run with it goes on like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdas.config import TrainConfig
from sdas.data import FrameCache
from sdas.errors import CheckpointError, ConfigError
from sdas.run.checkpoint import load_training_state
from sdas.train import train
from sdas.train.optimizers import (
    QUINTIC,
    Muon,
    make_optimizer,
    makers_of_logits,
    matrices_and_others,
    orthogonalized,
    set_rate,
)
from sdas.train.processes import Processes
from sdas.train.rows import read_rows
from sdas.train.session import Session, TrainingData
from sdas_kernels.flops import FlopCounter
from sdas_kernels.nn import SDAS

SHAPES = [(6, 6), (3, 5, 9), (12, 4), (9, 5), (2, 3, 4, 4), (1, 7), (4, 12)]
BAND = (0.68, 1.21)
"""Where the singular values 1/50 to 1 come out."""


def random_matrices(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes or SHAPES]


def quintic(values: torch.Tensor) -> torch.Tensor:
    """What three steps make of singular values."""
    a, b, c = QUINTIC
    for _ in range(3):
        values = a * values + b * values**3 + c * values**5
    return values


def with_gradients(weights: list[torch.Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def test_singular_values_of_what_is_not_near_singular_come_out_near_one():
    band = quintic(torch.logspace(np.log10(1 / 50), 0, 10_000, dtype=torch.float64))
    assert BAND[0] < band.min() < band.max() < BAND[1]
    for shape in [(3, 8, 20), (40, 10), (1, 6)]:
        values = torch.linalg.svdvals(orthogonalized(random_matrices(shape))[0])
        assert BAND[0] < values.min() <= values.max() < BAND[1]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_orthogonalized_is_the_polar_factor_up_to_the_quintic_of_the_singular_values(scale):
    matrices = random_matrices()
    for matrix, result in zip(matrices, orthogonalized([scale * matrix for matrix in matrices]), strict=True):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        expected = u @ torch.diag_embed(quintic(s / torch.linalg.vector_norm(s, dim=-1, keepdim=True))) @ vh
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
        regular = s.min(-1).values > torch.linalg.vector_norm(s, dim=-1) / 50
        errors = torch.linalg.matrix_norm(result - u @ vh, 2)
        assert (errors[regular] < 1 - BAND[0]).all()


def test_every_slice_is_turned_by_itself_whatever_lies_beside_it():
    matrices = random_matrices()
    together = orthogonalized(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalized([matrix])[0], result, rtol=0, atol=1e-12)
        slices, results = matrix.reshape(-1, *matrix.shape[-2:]), result.reshape(-1, *matrix.shape[-2:])
        for one, whole in zip(slices, results, strict=True):
            torch.testing.assert_close(orthogonalized([one])[0], whole, rtol=0, atol=1e-12)


def test_no_gradient_gives_no_step():
    assert torch.equal(orthogonalized([torch.zeros(3, 4, 5)])[0], torch.zeros(3, 4, 5))
    (weight,) = with_gradients(random_matrices((4, 4)))
    before, weight.grad = weight.detach().clone(), None
    Muon([weight], [], lr=0.1, adam_lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("shape", [(32, 32), (3, 32, 32), (128, 32), (64, 96)])
def test_the_root_mean_square_of_an_update_is_a_fifth_of_the_rate(shape):
    (weight,) = with_gradients(random_matrices(shape))
    before = weight.detach().clone()
    Muon([weight], [], lr=0.1, adam_lr=1.0).step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.2)


def test_two_dimensions_are_stepped_like_pytorch_does_in_its_lower_precision():
    ours = with_gradients(random_matrices((6, 6), (4, 12), (12, 4)))
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    muon = Muon(ours, [], lr=0.1, adam_lr=1.0, weight_decay=0.3)
    other = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw", ns_steps=3)
    for _ in range(4):
        before = [weight.detach().clone() for weight in ours]
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        muon.step()
        other.step()
        for mine, its, old in zip(ours, theirs, before, strict=True):
            assert torch.equal(muon.state[mine]["momentum"], other.state[its]["momentum_buffer"])
            assert (mine - its).norm() < 0.05 * (mine - old).norm()  # its products are of bfloat16
            its.data.copy_(mine)


def test_what_makes_logits_decays_by_itself():
    """Of a model: the logits' weights and those of directions, not their biases and nothing else."""
    model = SDAS([1], channels=4, heads=2, lmax=1, layers=2)
    chosen = makers_of_logits(model)
    names = [name for name, weight in model.named_parameters() if any(weight is each for each in chosen)]
    parts = ("logits.weight", "direction_query.weight")
    assert names == [f"layers.{layer}.attention.{part}" for layer in (0, 1) for part in parts]
    plain, decayed = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    frozen = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([plain, decayed, frozen], [], 0.1, 0.1, logits=[decayed, frozen], logit_decay=0.5)
    plain.grad, decayed.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    optimizer.step()
    assert torch.equal(plain, torch.ones(2, 2))
    assert torch.equal(frozen, torch.ones(2, 2))
    torch.testing.assert_close(decayed.detach(), torch.full((2, 2), 0.95))


def test_a_setting_without_decay_of_logits_has_none(make_config):
    model = SDAS([1], channels=4, heads=2, lmax=1, layers=1)
    for decay, size in ((0.0, 1.0), (0.1, 1 - 0.1 * 0.1)):
        config = make_config(optimizer="muon", learning_rate=0.1, logit_decay=decay)
        optimizer = make_optimizer(config.train, model)
        weight = model.layers[0].attention.logits.weight
        with torch.no_grad():
            weight.fill_(1.0)
        for each in model.parameters():
            each.grad = torch.zeros_like(each)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_weights_are_stepped_by_adamw_to_the_bit(dtype):
    ours = with_gradients([torch.randn(shape, dtype=dtype) for shape in [(5,), (2, 3), (4, 2, 3)]])
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    muon = Muon(with_gradients(random_matrices()), ours, lr=0.3, adam_lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, fused=True)
    for _ in range(5):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        muon.step()
        adamw.step()
        assert all(torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True))


def named_matrices(model: SDAS) -> tuple[set[str], set[str]]:
    names = {weight: name for name, weight in model.named_parameters()}
    matrices, others = matrices_and_others(model)
    assert len(matrices) + len(others) == len(names)
    assert set(matrices) | set(others) == set(names)
    return {names[weight] for weight in matrices}, {names[weight] for weight in others}


def test_weights_of_the_default_layer_fall_into_one_group_each():
    matrices, others = named_matrices(SDAS([1, 6], channels=4, heads=2, layers=2))
    attention = {f"attention.{name}.weight" for name in ("logits", "direction_query", "value")}
    attention |= {f"attention.mixing.{degree}" for degree in range(3)}
    layer = {*attention, "update.mlp.0.weight", "update.mlp.2.weight", "update.gated.weight"}
    assert matrices == {f"layers.{k}.{name}" for k in range(2) for name in layer}
    biased = {"attention.logits.bias", "update.mlp.0.bias", "update.mlp.2.bias"}
    readouts = {f"readouts.{k}.{j}.{name}" for k in range(2) for j in (0, 2) for name in ("weight", "bias")}
    rest = {f"layers.{k}.{name}" for k in range(2) for name in (*biased, "attention.radial_gain")}
    assert others == {"embedding.weight", *readouts, *rest}
    matrices, others = named_matrices(SDAS([1, 6], channels=4, heads=2, layers=1, path_mixing="channel"))
    assert "layers.0.attention.mixing.weight" in matrices
    assert "layers.0.attention.path_weight" in others


def test_weights_of_the_paper_layer_fall_into_one_group_each():
    matrices, others = named_matrices(SDAS([1, 6], channels=4, heads=2, layers=2, layer="paper"))
    attention = {f"{name}.weight" for name in ("query", "key", "direction_query", "scalar_value")}
    assert matrices == {f"layers.{k}.{name}" for k in range(2) for name in attention} | {"layers.0.mixing.weight"}
    readout = {f"readouts.0.{j}.{name}" for j in (0, 2) for name in ("weight", "bias")}
    assert others == {"embedding.weight", "first_features.radial", *readout}


def test_flops_of_a_step_are_those_counted_by_hand():
    shapes = [(3, 8, 8), (8, 20), (20, 8), (6, 4)]
    matrices = with_gradients([torch.randn(shape) for shape in shapes])
    vector = with_gradients([torch.randn(10)])
    optimizer = Muon(matrices, vector, lr=0.1, adam_lr=0.1, weight_decay=0.1)
    with FlopCounter() as counter:
        optimizer.step()
    assert not counter.unknown
    newton_schulz = 0
    for slices, m, n in [(3, 8, 8), (2, 8, 20), (1, 4, 6)]:
        gram, square, product = 2 * m * m * n, 2 * m**3 + 3 * m * m, 2 * m * m * n + 2 * m * n  # with what they add
        newton_schulz += slices * 3 * (gram + square + product)
    elements = sum(matrix.numel() for matrix in matrices)
    assert counter.by_op["aten::bmm"] + counter.by_op["aten::baddbmm"] == newton_schulz
    # Two means of 3, a norm of 2, its division, decay, and a scaled addition; AdamW takes 15 with decay, and its count.
    assert counter.total == newton_schulz + elements * (3 + 3 + 2 + 1 + 1 + 2) + 15 * 10 + 1


def test_rates_keep_their_ratio():
    model = SDAS([1], channels=4, heads=2, layers=1)
    for chosen, ratio in [(None, 0.5), (0.003, 0.3)]:
        settings = TrainConfig(steps=1, optimizer="muon", learning_rate=0.01, adam_learning_rate=chosen)
        optimizer = make_optimizer(settings, model)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, ratio * 0.01])
        set_rate(optimizer, 0.004)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.004, ratio * 0.004])
    adam = make_optimizer(TrainConfig(steps=1, optimizer="adam"), model)
    assert len(adam.param_groups) == 1
    set_rate(adam, 0.1)
    assert adam.param_groups[0]["lr"] == 0.1


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"matrices must be \[.., m, n\], got \[3\]"):
        Muon([nn.Parameter(torch.zeros(3))], [], lr=0.1, adam_lr=0.1)
    weight = nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="more than one parameter group"):
        Muon([weight], [weight], lr=0.1, adam_lr=0.1)


def test_settings_that_do_not_go_together_are_named(make_config):
    with pytest.raises(ConfigError, match="adam_learning_rate needs 'optimizer: muon'"):
        make_config(optimizer="adamw", adam_learning_rate=1e-3)
    with pytest.raises(ConfigError, match=r"train.adam_learning_rate: input should be greater than 0, got 0"):
        make_config(optimizer="muon", adam_learning_rate=0)
    with pytest.raises(ConfigError, match="weight_decay needs 'optimizer: adamw' or 'optimizer: muon'"):
        make_config(optimizer="adam", weight_decay=0.1)
    assert make_config(optimizer="muon", weight_decay=0.1).train.weight_decay == 0.1


def rates_of(config, monkeypatch) -> list[list[float]]:
    """Rates of the groups in each step of a run that goes on."""
    seen, step = [], Muon.step

    def watched(optimizer: Muon) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])
        step(optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(Muon, "step", watched)
        train(config, resume=True)
    return seen


def test_rates_that_were_changed_hold_from_the_resume_on(make_config, monkeypatch):
    settings = {"optimizer": "muon", "schedule": "constant"}
    train(make_config(steps=2, **settings))
    told = rates_of(make_config(steps=4, learning_rate=0.004, adam_learning_rate=0.001, **settings), monkeypatch)
    assert told == [pytest.approx([0.004, 0.001])] * 2
    told = rates_of(make_config(steps=5, learning_rate=0.006, warmup_steps=12, **settings), monkeypatch)
    assert told == [pytest.approx([0.0025, 0.00125])]  # 5/12 of them


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_stopped_goes_on_with_the_same_bits(make_config, dtype):
    settings = {"optimizer": "muon", "weight_decay": 0.01, "schedule": "constant", "dtype": dtype}
    settings["deterministic"] = True
    train(make_config("whole", **settings))
    train(make_config("stopped", steps=5, **settings))
    train(make_config("stopped", **settings), resume=True)
    whole, stopped = (
        load_training_state(Path(make_config(run).run_dir) / "checkpoints") for run in ("whole", "stopped")
    )
    assert whole.step == stopped.step == 12
    assert {name.rpartition(".")[2] for name in whole.tensors if name.startswith("optimizer.")} == {
        "momentum", "step", "exp_avg", "exp_avg_sq",
    }  # fmt: skip
    assert whole.tensors.keys() == stopped.tensors.keys()
    assert all(torch.equal(whole.tensors[name], stopped.tensors[name]) for name in whole.tensors)
    assert whole.document["progress"]["flops"] == stopped.document["progress"]["flops"]


def test_the_state_of_another_optimizer_is_refused(make_config):
    config = make_config(steps=2, optimizer="adam")
    train(config)
    data = TrainingData(FrameCache.open(config.data.path), np.arange(24), np.arange(24, 32))
    with (
        Processes("cpu") as processes,
        pytest.raises(CheckpointError, match=r"it began with train.optimizer adam, not muon"),
        Session(make_config(steps=2, optimizer="muon"), data, processes),
    ):
        pass


def test_a_run_with_muon_learns(make_config):
    result = train(make_config(optimizer="muon", steps=100, learning_rate=0.02, validate_every=20, dtype="float32"))
    losses = [float(row["loss"]) for row in read_rows(result.run_dir)]
    assert losses[-1] < losses[0] / 2
