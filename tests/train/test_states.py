"""Charge and spin in training: two states of the same atoms are told apart, and refused where they cannot be."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from sdas.data import DataError, FrameCache, write_cache
from sdas.errors import CheckpointError, SdasError, TrainingError
from sdas.predict import predict, predict_batches
from sdas.run.model import load_run_model
from sdas.train.changes import check_beginning
from sdas.train.loop import fit, train
from sdas.train.processes import Processes
from sdas.train.session import Session, TrainingData
from sdas.train.states import check_states

PULL = 2 * 0.4
"""eV/Å: by how much the springs of the two states differ."""


@pytest.fixture
def configure(make_config, charged_frames, tmp_path):
    """`configure(charge_spin, run, **train)`: a configuration for the charged frames."""
    write_cache(charged_frames, tmp_path / "charged")

    def make(charge_spin, run="run", **settings):
        split = {"sizes": [28, 8, 4]}
        config = make_config(run, {"path": str(tmp_path / "charged"), "split": split}, **settings)
        return config.model_copy(
            update={"model": config.model.model_copy(update={"charge_spin": charge_spin, "channels": 8})}
        )

    return make


def error_of(model, frames):
    """Mean absolute error of force components, eV/Å."""
    return float(np.abs(predict(model, frames).forces - np.concatenate([frame.forces for frame in frames])).mean())


def test_two_charges_of_the_same_atoms_are_told_apart(configure, charged_frames):
    """Without the option the model learns the mean of both, so it is wrong by half of what they differ by."""
    train_on, rest = np.arange(32), np.arange(32, 40)
    errors, gaps = {}, {}
    for knows in (True, False):
        settings = {"steps": 100, "batch_size": 8, "learning_rate": 2e-2, "validate_every": 1000}
        config = configure(knows, f"run {knows}", **settings)
        with Processes("cpu") as processes:
            fit(config, charged_frames, train_on, rest, processes)
        model = load_run_model(config.run_dir)
        errors[knows] = error_of(model, charged_frames[32:])
        neutral, charged = (model_energy(model, charged_frames[k]) for k in (32, 33))
        gaps[knows] = charged - neutral
    wanted = charged_frames[33].energy - charged_frames[32].energy
    assert errors[False] > 0.2 * PULL
    assert errors[True] < 0.4 * errors[False]
    assert gaps[True] == pytest.approx(wanted, abs=0.5)
    assert gaps[False] == 0


def model_energy(model, frame):
    return predict(model, [frame]).energy[0]


def test_a_run_without_the_option_refuses_two_charges_and_names_it(configure):
    with pytest.raises(DataError, match=r"charge [01], where .* has [01]; a model without model.charge_spin=true"):
        train(configure(False))


def test_the_flops_of_a_run_with_the_option_follow_from_its_sizes(configure):
    """Else it would warn, and count every step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="FlopModel")
        summary = train(configure(True, "whole")).summary
    assert summary["status"] == "complete"
    assert summary["flops_unknown"] == []


def test_a_checkpoint_from_before_the_option_goes_on(make_config, cache_path):
    config = make_config(steps=6, checkpoint_every=3)
    data = TrainingData(FrameCache.open(cache_path), np.arange(24), np.arange(24, 32))
    with Processes("cpu") as processes, Session(config, data, processes) as session:
        session.advance(session.end)
        document = {"changes": {"unit": 1.0}, "optimizer": "adam"}
        document["began_as"] = config.model.model_dump(exclude={"charge_spin"})
        check_beginning(config, document)
        document["began_as"]["channels"] = 8
        with pytest.raises(CheckpointError, match=r"it began with model\.channels 8, not 4"):
            check_beginning(config, document)


def frames_in(frames, *states):
    """The first frames in states of charge and spin."""
    return [replace(frame, charge=q, spin=s) for frame, (q, s) in zip(frames, states, strict=False)]


@pytest.mark.parametrize("cached", [False, True])
def test_states_that_nothing_would_train_are_errors(configure, charged_frames, tmp_path, cached):
    def check(states, charge_spin=True):
        frames = frames_in(charged_frames[::2], *states)
        given = write_cache(frames, tmp_path / "c", overwrite=True) if cached else frames
        train_on, others = np.arange(2), np.arange(2, len(frames))
        check_states(configure(charge_spin), given, train_on, {"test": others})

    neutral = (0.0, 1.0)
    check([neutral, (1.0, None), (2.0, None), (None, None)])
    check([(None, None)] * 4, charge_spin=False)
    with pytest.raises(TrainingError, match="no training frame states a charge or a spin beyond those of neutral sing"):
        check([neutral, (None, 1.0), (1.0, None)])
    for state, kind in (((-1.0, None), "negative charge"), ((None, 3.0), "unpaired electrons")):
        with pytest.raises(
            TrainingError, match=f"1 of the test frames have {kind}, which no training frame has, first"
        ):
            check([neutral, (1.0, None), neutral, state])
    with pytest.raises(DataError, match=r"charge 1, where .* with the same atoms has 0"):
        check([neutral] * 3 + [(1.0, None)], charge_spin=False)


def test_predictions_refuse_what_a_model_cannot_know(charged_frames, make_model):
    with pytest.raises(DataError, match=r"charge 1, where .* train with it"):
        list(predict_batches(make_model(), charged_frames[:2], 1))
    model = make_model(charge_spin=True)
    with pytest.raises(SdasError, match="charge 1: the model does not know positive charge"):
        predict(model, charged_frames[:2])
    model.electronic.weight.data[:, 0] = 0.5
    together = predict(model, charged_frames[:6])
    parts = [part for _, part in predict_batches(model, charged_frames[:6], 1)]
    np.testing.assert_allclose(together.energy, np.concatenate([part.energy for part in parts]), rtol=1e-12)
    assert abs(together.energy[1] - together.energy[0]) > 1e-3
    electrons = int(charged_frames[1].numbers.sum()) - 1
    with pytest.raises(DataError, match="is no multiplicity"):
        predict(model, [replace(charged_frames[1], spin=1.0 + (electrons + 1) % 2)])
