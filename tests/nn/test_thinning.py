"""Drawn models are the model with masks on its hidden units, and members average to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, grow, members, thinned, thinned_weights
from sdas_kernels.nn.fused import layer_weights
from sdas_kernels.nn.thinning import _maps


@pytest.fixture
def batch(systems, to_graph):
    return NeighborGraph.batch([to_graph(systems[name]) for name in ("molecule", "small cell", "one atom")])


def hidden_units(model):
    """The activations of every hidden layer, in the order of the matrices that read them."""
    updates = [layer.update.mlp[1] for layer in model.layers if getattr(layer, "update", None) is not None]
    return [*updates, *(readout[1] for readout in model.readouts)]


def masked(model, batch, masks):
    """Energies and forces with the activations multiplied by masks, layer by layer."""
    handles = [
        unit.register_forward_hook(lambda _module, _inputs, out, mask=mask: out * mask)
        for unit, mask in zip(hidden_units(model), masks, strict=True)
    ]
    try:
        assert layer_weights(model) is None, "hooked, so no kernel runs it whole"
        return model(batch)
    finally:
        for handle in handles:
            handle.remove()


def masks_of(model, drawn):
    """What was drawn, from the weights that came of it: one factor per unit."""
    found = []
    for (name, weight), unit in zip(_maps(model), hidden_units(model), strict=True):
        assert isinstance(unit, nn.SiLU)
        if name not in drawn:
            continue
        ratio = drawn[name] / weight
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio)), "all that reads a unit sees it or does not"
        found.append(ratio[0].detach())
    return found


@pytest.mark.parametrize("config", [{}, {"members": 4}, {"layer": "paper"}, {"node_update": False}], ids=str)
def test_units_are_left_out_of_energies_and_forces_alike(config, make_model, batch):
    model, dropout = make_model(**config), 0.4
    drawn = thinned(model, dropout, seed=3)
    masks = masks_of(model, drawn.state_dict())
    factors = torch.cat(masks)
    assert 0 < (factors == 0).sum() < len(factors)
    assert factors[factors != 0].numpy() == pytest.approx(1 / (1 - dropout))
    wanted, found = masked(model, batch, masks), drawn(batch)
    assert found["energy"].tolist() == pytest.approx(wanted["energy"].tolist(), rel=1e-12)
    assert torch.allclose(found["forces"], wanted["forces"], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found["forces"], model(batch)["forces"], rtol=1e-3)
    assert (layer_weights(drawn) is None) == (layer_weights(model) is None), "the same kernels run it"


def test_a_part_of_the_units_is_left_out_as_the_seed_draws(make_model):
    model = make_model(channels=32)
    left_out = torch.cat(masks_of(model, thinned(model, 0.25, 0).state_dict())) == 0
    assert left_out.double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / len(left_out)) ** 0.5)
    once, again, other = (thinned(model, 0.25, seed).state_dict() for seed in (1, 1, 2))
    name = "readouts.0.2.weight"
    assert torch.equal(once[name], again[name])
    assert not torch.equal(once[name], other[name])
    assert all(
        torch.equal(thinned(model, 0.0, 1).state_dict()[key], value) for key, value in model.state_dict().items()
    )


def test_the_mean_over_draws_is_the_model_where_units_act_linearly(make_model, batch):
    """Units of one readout act on the energy by a sum, so energies average to the model's."""
    model = make_model(layers=1, node_update=False)
    with torch.no_grad():
        energies = torch.stack([thinned(model, 0.3, seed)(batch, forces=False)["energy"] for seed in range(400)])
        bias = energies.mean(0) - model(batch, forces=False)["energy"]
    assert (bias.abs() < 4 * energies.std(0) / len(energies) ** 0.5 + 1e-12).all()


@pytest.mark.parametrize("layer", ["default", "paper"])
def test_a_shallow_ensemble_is_the_mean_of_its_members(layer, make_model, batch):
    """Each of which is a model with one readout: that block of the weights, M times as large at its end."""
    model, alone = make_model(layer=layer, members=3), make_model(layer=layer)
    assert model.config["members"] == 3
    assert "members" not in alone.config
    each = [member(batch) for member in members(model)]
    for number, found in enumerate(each):
        state = model.state_dict()
        for name in [name for name in state if name.startswith("readouts") and not name.endswith("2.bias")]:
            axis = int(name.endswith("2.weight"))
            block = state[name].chunk(3, axis)[number]
            state[name] = 3 * block if axis else block
        alone.load_state_dict(state)
        wanted = alone(batch)
        assert found["energy"].tolist() == pytest.approx(wanted["energy"].tolist(), rel=1e-12)
        assert torch.allclose(found["forces"], wanted["forces"], rtol=1e-10, atol=1e-12)
    whole = model(batch)
    for name in ("energy", "forces"):
        together = torch.stack([found[name] for found in each])
        assert torch.allclose(together.mean(0), whole[name], rtol=1e-10, atol=1e-12)
    assert together.std(0).max() > 1e-3 * together.abs().max(), "members differ from the start"


def test_a_member_begins_as_large_as_a_readout_alone(make_model):
    sizes = [members(make_model(channels=64, members=count))[0].readouts[0][2].weight for count in (1, 16)]
    alone, member = (weight[weight != 0].square().mean().sqrt().item() for weight in sizes)
    assert member == pytest.approx(alone, rel=0.3)


def test_members_stay_what_they_are_when_the_model_grows(make_model, batch):
    model = make_model(members=3)
    grown = grow(model, channels=12, layers=3)
    assert grown.config["members"] == 3
    for before, after in zip(members(model), members(grown), strict=True):
        assert torch.allclose(before(batch)["forces"], after(batch)["forces"], rtol=1e-9, atol=1e-11)


def test_a_step_trains_what_is_drawn(make_model, batch):
    """Its gradient is that through factors on the activations; one mixture of the members holds in every layer."""
    model = make_model(members=3).train()
    weights = thinned_weights(model, 0.3, np.random.default_rng(5))
    masks = masks_of(model, weights)
    mixtures = [0.7 * mask.view(3, -1).amax(1) / 3 for mask in masks[-2:]]
    assert mixtures[0].tolist() == pytest.approx(mixtures[1].tolist())
    assert sum(mixtures[0].tolist()) == pytest.approx(1)
    functional_call(model, weights, (batch,))["forces"].square().sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    masked(model, batch, masks)["forces"].square().sum().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(found[name], weight.grad, rtol=1e-8, atol=1e-10), name
    assert thinned_weights(make_model(), 0.0, np.random.default_rng(0)) == {}


def test_mixtures_are_even_among_all_that_sum_to_one(make_model):
    """By the moments of a flat Dirichlet distribution of three: mean 1/3, variance 1/18, covariance −1/36."""
    model = make_model(members=3, layers=1)
    generator = np.random.default_rng(1)
    drawn = [masks_of(model, thinned_weights(model, 0.0, generator))[0].view(3, -1)[:, 0] / 3 for _ in range(2000)]
    weights = torch.stack(drawn)
    assert weights.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=4 * (1 / 18 / 2000) ** 0.5)
    wanted = torch.full((3, 3), -1 / 36, dtype=torch.float64) + torch.eye(3, dtype=torch.float64) / 12
    assert torch.allclose(torch.cov(weights.T), wanted, atol=0.006)


def test_what_cannot_be_drawn_is_refused(make_model):
    for draw in (
        lambda p: thinned(make_model(), p, 0),
        lambda p: thinned_weights(make_model(), p, np.random.default_rng()),
    ):
        with pytest.raises(ValueError, match="dropout must be at least 0 and less than 1, got 1"):
            draw(1.0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        thinned(make_model(), 0.1, -1)
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        SDAS([1], members=0)


def test_what_is_no_model_and_no_number_is_named(make_model):
    with pytest.raises(TypeError, match="thinned: model must be an SDAS, got Linear"):
        thinned(torch.nn.Linear(1, 1), 0.1, 0)
    with pytest.raises(TypeError, match="members: model must be an SDAS, got Linear"):
        members(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"dropout must be a number, got '0\.1'"):
        thinned(make_model(), "0.1", 0)
