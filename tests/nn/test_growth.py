"""A grown model computes what the smaller one does, and all that is new in it can learn."""

from __future__ import annotations

import copy
import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdas_kernels import dispatch, native
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, grow
from sdas_kernels.nn.fused import layer_weights

F64, F32 = torch.float64, torch.float32
# of 8 channels, 4 heads, lmax 2, 2 layers
GROWTHS = {
    "depth": {"layers": 4},
    "width": {"channels": 12},
    "width, not by a whole factor": {"channels": 20},
    "heads that split": {"heads": 8},
    "heads and width": {"heads": 8, "channels": 24},
    "heads that split, and new ones": {"heads": 12, "channels": 12},
    "degree": {"lmax": 3},
    "all": {"layers": 4, "channels": 16, "heads": 16, "lmax": 3},
}
SWITCHES = {
    "default": {},
    "SE(3)": {"parity": False},
    "one layer": {"layers": 1},
    "scalars": {"lmax": 0},
    "one layer of scalars": {"layers": 1, "lmax": 0},
    "no direction query": {"direction_query": False},
    "no radial query": {"radial_query": False},
    "no sink": {"sink": False},
    "no radial gain": {"radial_gain": False},
    "no attention": {"attention": False},
    "no node update": {"node_update": False},
    "product": {"node_product": True},
    "product, from a degree that has none": {"node_product": True, "lmax": 1},
    "product of one layer": {"node_product": True, "layers": 1},
    "channel mixing": {"path_mixing": "channel"},
    "everything off": {"attention": False, "radial_gain": False, "node_update": False, "path_mixing": "channel"},
}
EACH = {f"{name} of the default": ({}, growth) for name, growth in GROWTHS.items()}
EACH |= {f"{name} of one layer": ({"layers": 1}, GROWTHS[name]) for name in ("width", "degree")}
EACH |= {f"{name} of a product": ({"node_product": True}, GROWTHS[name]) for name in ("width", "degree", "depth")}
EACH |= {f"all of {name}": (config, GROWTHS["all"]) for name, config in SWITCHES.items()}
each = pytest.mark.parametrize(("config", "growth"), EACH.values(), ids=EACH)


@pytest.fixture
def batch(systems, to_graph):
    return NeighborGraph.batch([to_graph(systems[name]) for name in ("molecule", "small cell", "one atom")])


def assert_same(grown, model, batch, tolerance=1e-12):
    """Energies and forces, relative to the largest or 1, as the model runs and by the reference of every operator.

    Of 1, because readouts may cancel, and forces that vanish are noise.
    """
    for backend in (nullcontext(), dispatch.use_backend("reference")):
        with backend:
            wanted, found = model(batch), grown(batch)
        for name, right in wanted.items():
            torch.testing.assert_close(found[name], right, rtol=0, atol=tolerance * max(1.0, right.abs().max().item()))


def loss_of(model, batch):
    """How far energies and forces are from smooth ones."""
    found, r = model(batch), batch.positions
    energy = found["energy"] - torch.arange(batch.num_systems, dtype=r.dtype)
    return energy.square().mean() + (found["forces"] - torch.sin(2 * r)).square().mean()


def trained(model, batch, steps, rate=1e-3):
    """The losses before each step of Adam and after the last; the model is left with its gradients there."""
    optimizer, losses = torch.optim.Adam(model.train().parameters(), lr=rate), []
    for step in range(steps + 1):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        if step < steps:
            optimizer.step()
    model.eval()
    return losses


@each
def test_energies_and_forces_stay(make_model, batch, config, growth):
    model = make_model(**config)
    grown = grow(model, **growth)
    assert grown.config == model.config | growth
    assert_same(grown, model, batch)


@each
def test_every_new_weight_has_a_gradient_after_one_step(make_model, batch, config, growth):
    """Every element that has one, beyond rounding, in a model that was made as large."""
    grown = grow(make_model(**config), **growth)
    fresh = make_model(**grown.config)
    for model in (grown, fresh):
        trained(model, batch, steps=1)
    for (name, weight), other in zip(grown.named_parameters(), fresh.parameters(), strict=True):
        if other.grad is not None:
            dead = (other.grad.abs() > 1e-12) & (weight.grad == 0)
            assert not dead.any(), (name, dead.nonzero())


@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_in_single_precision(make_model, systems, to_graph, growth):
    batch = NeighborGraph.batch([to_graph(systems[name], dtype=F32) for name in ("molecule", "slab")])
    model = make_model(F32)
    assert_same(grow(model, **growth), model, batch, 1e-6)


@settings(max_examples=30, deadline=None, database=None)
@given(data=st.data())
def test_any_sizes(data):
    def draw(values):
        return data.draw(st.sampled_from(values))

    channels, seed = draw(range(4, 49)), draw(range(1000))
    heads = draw([k for k in range(1, channels + 1) if channels % k == 0])
    lmax, layers = draw(range(4)), draw(range(1, 4))
    options = {name: draw([True, False]) for name in ("attention", "sink", "radial_query", "direction_query")}
    options |= {name: draw([True, False]) for name in ("radial_gain", "node_update", "parity")}
    options["path_mixing"] = draw(["full", "channel"])
    more = draw(range(heads, 49, heads))
    width = draw(range(more * -(-channels // more), max(49, channels * 2), more))
    growth = {"heads": more, "channels": width, "lmax": draw(range(lmax, 4)), "layers": draw(range(layers, 4))}
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = {"channels": channels, "heads": heads, "lmax": lmax, "layers": layers, "n_radial": 3, "key_channels": 2}
    model = SDAS([1, 8], cutoff=3.0, **shape, **options).double().eval()
    graph = NeighborGraph.build(random.uniform(0, 3, (6, 3)), random.choice([1, 8], 6), 3.0, dtype=F64)
    assert_same(grow(model, **growth, seed=seed), model, graph)


@pytest.mark.parametrize("order", list(itertools.permutations(["channels", "heads", "layers", "lmax"], 2)))
def test_one_growth_after_another(make_model, batch, order):
    sizes = {"channels": 16, "heads": 8, "layers": 3, "lmax": 2}
    model = grown = make_model(lmax=1)
    for name in order:
        grown = grow(grown, **{name: sizes[name]})
        assert_same(grown, model, batch)
    trained(grown, batch, steps=2)
    assert_same(grow(grown, **sizes), grown, batch)


@pytest.mark.parametrize("config", [{}, {"layers": 1}])
def test_training_goes_on(make_model, batch, config):
    model = make_model(**config)
    trained(model, batch, steps=10)
    grown = grow(model, **GROWTHS["all"])
    losses = trained(grown, batch, steps=20)
    assert losses[0] == pytest.approx(loss_of(model, batch).item(), rel=1e-10)
    assert losses[-1] <= losses[0]


def test_a_new_layer_shares_the_readout_and_learns_from_the_first_step(make_model, batch):
    """The last old layer's energy comes in equal parts from its readout and the new ones. What makes scalars in new
    layers is zero at birth, and has a gradient then."""
    model = make_model()
    grown = grow(model, layers=4)
    scalars = torch.randn(5, 8, dtype=F64)
    for k in (1, 2, 3):
        torch.testing.assert_close(3 * grown.readouts[k](scalars), model.readouts[1](scalars), rtol=1e-12, atol=1e-12)
    trained(grown, batch, steps=0)
    for layer in grown.layers[2:]:
        for weight in (layer.attention.mixing[0], layer.update.mlp[2].weight):
            of_scalars = weight[:8]
            assert not of_scalars.any()
            assert weight.grad[:8].abs().max() > 1e-6


def test_heads_that_split_ask_alike_and_part(make_model, batch):
    grown = grow(make_model(), heads=8)

    def halves():
        query = grown.layers[1].attention.logits.weight.split(grown.layers[1].attention.logit_sizes)[0]
        return query.detach().unflatten(0, (4, 2, 3)).unbind(1)

    assert torch.equal(*halves())
    trained(grown, batch, steps=10)
    first, second = halves()
    assert ((first - second).flatten(1).norm(dim=1) > 1e-6).all()


def test_no_two_channels_are_alike_after_ten_steps(make_model, batch):
    grown = grow(make_model(), channels=16)
    trained(grown, batch, steps=10)
    kinds = grown.kinds(batch)
    x = grown.features(batch, batch.edge_vectors(), kinds)[1].detach().flatten(0, 1)
    apart = torch.cdist(x.T, x.T) / x.norm(dim=0)
    assert x.norm(dim=0).min() > 1e-3
    assert (apart + torch.eye(16, dtype=F64)).min() > 1e-2


@pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
def test_the_fused_kernels_run_a_grown_model(make_model):
    grown = grow(make_model(), **GROWTHS["all"])
    assert layer_weights(grown) is not None
    assert [layer.attention.value_lmax for layer in grown.layers] == [0, 3, 3, 3]


def test_what_is_not_a_size_stays(make_model):
    model = make_model(F32, parity=False, path_mixing="channel").train()
    model.set_energy_reference({1: -13.6, 6: -1029.5, 8: -2041.25}, 0.7)
    model.layers[1].norm.epsilon = 1e-2
    model.layers[1].attention.eval()
    model.embedding.weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    grown = grow(model, **GROWTHS["all"])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert {weight.dtype for weight in grown.parameters()} == {F32}
    for name in ("species", "energy_shift", "energy_scale"):
        assert torch.equal(getattr(grown, name), getattr(model, name))
        assert getattr(grown, name).dtype == getattr(model, name).dtype
    assert grown.training
    assert [layer.attention.training for layer in grown.layers] == [True, False, True, True]
    assert [layer.norm.epsilon for layer in grown.layers] == [1e-3, 1e-2, 1e-3, 1e-3]
    assert [name for name, weight in grown.named_parameters() if not weight.requires_grad] == ["embedding.weight"]
    assert not any(weight.requires_grad for weight in grow(model.requires_grad_(False), layers=3).parameters())
    twin = SDAS(**grown.config)
    twin.load_state_dict(grown.state_dict())


def test_in_inference_mode(make_model, batch):
    with torch.inference_mode():
        model = make_model()
        grown = grow(model, **GROWTHS["all"])
        wanted, found = model(batch), grown(batch)
    torch.testing.assert_close(found["forces"], wanted["forces"], rtol=1e-10, atol=1e-12)
    assert not any(weight.is_inference() for weight in grown.parameters())


def test_without_new_sizes_it_is_a_copy(make_model):
    model = make_model()
    same = grow(model)
    assert same.embedding.weight is not model.embedding.weight
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), model.parameters(), strict=True))


def test_the_seed_alone_decides_about_new_weights(make_model):
    model, other = make_model(), make_model()
    torch.nn.init.normal_(other.layers[0].attention.value.weight)
    grown = grow(model, channels=16), grow(other, channels=16), grow(model, channels=16, seed=1)
    first, same, another = (m.layers[0].attention.value.weight[0, 8:] for m in grown)
    assert torch.equal(first, same)
    assert not torch.equal(first, another)


@pytest.mark.parametrize(
    ("growth", "error", "message"),
    [
        ({"channels": 4}, ValueError, "grow: channels must be at least 8, got 4"),
        ({"layers": 1}, ValueError, "grow: layers must be at least 2, got 1"),
        ({"lmax": 1}, ValueError, r"grow: lmax must be 2\.\.8, got 1"),
        ({"lmax": 9}, ValueError, r"grow: lmax must be 2\.\.8, got 9"),
        ({"heads": 2}, ValueError, "grow: heads must be at least 4, got 2"),
        ({"layers": 2.5}, TypeError, "grow: layers must be a whole number, got 2.5"),
        ({"seed": -1}, ValueError, "grow: seed must be at least 0, got -1"),
        ({"channels": 10}, ValueError, "grow: heads must divide channels, got 4 heads, 10 channels"),
        ({"channels": 6.0}, TypeError, "grow: channels must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(make_model, growth, error, message):
    with pytest.raises(error, match=message):
        grow(make_model(), **growth)


def test_heads_that_the_channels_of_old_ones_do_not_fit_into_are_refused(make_model):
    model = make_model(channels=12, heads=4)
    message = "heads must be a multiple of 4 that divides 12 channels, got 6: heads of 2 channels cannot take over"
    with pytest.raises(ValueError, match=message):
        grow(model, heads=6)
    assert grow(model, heads=6, channels=18).config["heads"] == 6


def test_other_models_are_refused(make_model):
    with pytest.raises(TypeError, match="model must be an SDAS model, got Linear"):
        grow(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="model must be an SDAS model, got Mine"):
        grow(type("Mine", (SDAS,), {})([1], channels=4, heads=4))
    with pytest.raises(ValueError, match=r'must have layer="default", got layer=.paper., which cannot grow'):
        grow(make_model(layer="paper"), layers=3)
    hooked = make_model()
    hooked.layers[0].register_forward_hook(lambda *arguments: None)
    with pytest.raises(ValueError, match="swapped or hooked"):
        grow(hooked, layers=3)
