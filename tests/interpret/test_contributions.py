"""Parts are taken out one at a time, and put back."""

import numpy as np
import pytest
import torch

from sdas.interpret.contributions import contributions, parts_of
from sdas.predict import predict


def test_the_model_is_left_as_it_was(make_model, ethanol_frames):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = contributions(model, ethanol_frames[:2], 2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(rows) == 1 + len(list(parts_of(model)))


@pytest.mark.parametrize("config", [{}, {"path_mixing": "channel"}, {"layer": "paper"}], ids=str)
def test_every_part_is_used_but_one_whose_weights_are_zero(make_model, ethanol_frames, config):
    model = make_model(**config)
    _, (kind, name, weights) = [part for part in parts_of(model) if part[1][0] != "query"][1]
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    rows = contributions(model, ethanol_frames[:2], 2)[1:]
    changes = {(row["layer"], row["kind"], row["part"]): row["force_change_mev_per_ang"] for row in rows}
    assert changes.pop((1, kind, name)) == 0
    if "layer" in config:  # no energy reads the products of the layer that is last but one
        changes = {key: value for key, value in changes.items() if key[1] == "query"}
    assert min(changes.values()) > 0, changes


def test_without_its_only_values_a_model_has_no_forces(make_model, ethanol_frames):
    model, frames = make_model(lmax=0, layers=1), ethanol_frames[:3]
    row = next(row for row in contributions(model, frames, 2) if row["kind"] == "degree")
    forces = predict(model, frames).forces
    assert row["force_change_mev_per_ang"] == pytest.approx(1000 * np.abs(forces).mean(), rel=1e-9)
    labels = np.concatenate([frame.forces for frame in frames])
    assert row["force_error_mev_per_ang"] == pytest.approx(1000 * np.abs(labels).mean(), rel=1e-9)
