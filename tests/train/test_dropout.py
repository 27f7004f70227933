"""Training on what is drawn: the same bits after a stop, a whole model at the end, and every member learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdas.data import FrameCache
from sdas.predict import predict
from sdas.run.checkpoint import load_training_state
from sdas.run.model import load_run_model
from sdas.train import train
from sdas_kernels.nn import members


def with_model(config, **changes):
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def state_of(config):
    return load_training_state(Path(config.run_dir) / "checkpoints")


@pytest.mark.parametrize(("dropout", "readouts"), [(0.3, 1), (0.2, 2)])
def test_a_run_that_stopped_draws_what_it_would_have(make_config, dropout, readouts):
    settings = {"schedule": "constant", "deterministic": True, "dropout": dropout, "optimizer": "muon"}
    configs = [with_model(make_config(run, **settings), members=readouts) for run in ("whole", "stopped")]
    train(configs[0])
    train(with_model(make_config("stopped", steps=5, **settings), members=readouts))
    train(configs[1], resume=True)
    whole, stopped = map(state_of, configs[:2])
    assert whole.step == stopped.step == 12
    assert all(torch.equal(whole.tensors[name], stopped.tensors[name]) for name in whole.tensors)
    if readouts == 1:
        other = make_config("plain", **{**settings, "dropout": 0.0})
        train(other)
        name = "model.layers.0.update.mlp.2.weight"
        assert not torch.equal(whole.tensors[name], state_of(other).tensors[name])


def test_each_readout_learns_and_the_model_is_their_mean(make_config):
    """After steps that train one of them each: all are far better than zero forces, and none is like another."""
    config = with_model(make_config(steps=100, optimizer="muon", dtype="float64"), members=3, channels=8)
    train(config)
    frames = [FrameCache.open(config.data.path)[index] for index in range(40)]
    forces = torch.tensor(np.concatenate([frame.forces for frame in frames]))
    model = load_run_model(config.run_dir)
    said = torch.stack([torch.from_numpy(predict(member, frames).forces) for member in members(model)])
    assert ((said - forces).abs().mean((1, 2)) < 0.6 * forces.abs().mean()).all()
    assert said.std(0).mean() > 1e-3
    assert torch.allclose(said.mean(0), torch.from_numpy(predict(model, frames).forces), atol=1e-9)
