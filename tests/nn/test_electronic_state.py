"""Models that know charge and spin: what they add, on every route, and that neutral singlets are what they were."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdas_kernels import dispatch, native
from sdas_kernels.fused_sdas import cpp
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, CapturedPotential, CompiledPotential, ElectronicEmbedding, grow

F64 = torch.float64
STATES = [(-1.0, 2.0), (2.0, 1.0), (0.0, 3.0), (0.0, 1.0)]


@pytest.fixture
def charged(make_model):
    """`charged(**config)`: a model with random weights of states."""

    def make(dtype=F64, **config):
        model = make_model(dtype, charge_spin=True, **config)
        with torch.no_grad():
            model.electronic.weight.copy_(torch.randn(model.electronic.weight.shape, dtype=F64))
        return model

    return make


@pytest.fixture
def batch(systems, to_graph):
    """Four systems, each in a state of its own."""
    graphs = [to_graph(systems[name]) for name in ("small cell", "slab", "small cell", "liquid")]
    return with_states(NeighborGraph.batch(graphs), STATES)


def with_states(graph, states):
    charge, spin = torch.tensor(states, dtype=graph.dtype).unbind(1)
    return replace(graph, charge=charge, spin=spin)


def loss_of(found):
    return sum((out.square() * torch.linspace(0.5, 1, out.numel()).view(out.shape)).sum() for out in found.values())


def learn(model, run, batch, **options):
    """What a run gives, and the gradient of a loss of forces by every weight and by the positions."""
    model.zero_grad()
    batch = replace(batch, positions=batch.positions.detach().clone().requires_grad_())
    found = run(batch, **options)
    loss_of(found).backward()
    return found | {name: p.grad.clone() for name, p in model.named_parameters()} | {"r": batch.positions.grad}


def assert_same(found, wanted, tolerance=1e-9):
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        same = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(found[name], right, **same, msg=lambda m, name=name: f"{name}: {m}")


@torch.no_grad()
@pytest.mark.parametrize("layer", ["default", "paper"])
def test_the_state_is_added_to_the_scalars_of_every_atom(charged, batch, layer):
    """By a model that takes every atom for a species of its own, whose embedding is what that atom must start from."""
    model = charged(layer=layer)
    config = {name: value for name, value in model.config.items() if name not in ("charge_spin", "species")}
    atoms = torch.arange(1, batch.num_atoms + 1)
    alike = SDAS(atoms.tolist(), **config).double().eval()
    for name in ("layers", "readouts", *(["first_features"] if layer == "paper" else [])):
        getattr(alike, name).load_state_dict(getattr(model, name).state_dict())
    w, known = model.electronic.weight, model.config["species"]
    for atom, z in enumerate(batch.numbers.tolist()):
        charge, spin = STATES[batch.system[atom]]
        added = w[:, 0] * max(charge, 0) + w[:, 1] * max(-charge, 0) + w[:, 2] * (spin - 1)
        alike.embedding.weight[atom] = model.embedding.weight[known.index(z)] + added
    plain = replace(batch, numbers=atoms, charge=None, spin=None)
    assert_same(model(batch, stress=True), alike(plain, stress=True), 1e-11)


@pytest.mark.parametrize("stress", [False, True])
def test_training_by_the_fused_kernel_is_that_layer_by_layer(charged, batch, stress):
    model = charged().train()
    found = learn(model, model, batch, stress=stress)
    with dispatch.use_backend("reference", "network"):
        wanted = learn(model, model, batch, stress=stress)
    assert_same(found, wanted)
    assert wanted["electronic.weight"].abs().min() > 0


@pytest.mark.parametrize("reference", [[], ["network"]], ids=["default", "layer by layer"])
def test_gradients_of_a_loss_of_forces_by_finite_differences(charged, batch, reference):
    model = charged().train()
    step = 1e-5
    with dispatch.use_backend("reference", *reference) if reference else nullcontext():
        for name, weight in (("electronic", model.electronic.weight), ("embedding", model.embedding.weight)):
            direction = torch.randn(weight.shape, dtype=F64)
            slope = (learn(model, model, batch, stress=True)[f"{name}.weight"] * direction).sum()
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight += sign * step * direction
                losses.append(loss_of(model(batch, stress=True)).item())
                with torch.no_grad():
                    weight -= sign * step * direction
            assert slope.item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6)


def test_forces_of_charged_systems_are_minus_the_gradient(charged, systems, to_graph):
    model = charged()
    atoms, step = systems["molecule"], 1e-4
    forces = model(with_states(to_graph(atoms), [(1.0, 2.0)]))["forces"]
    for atom, axis in ((0, 0), (4, 2), (8, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(model(with_states(to_graph(moved), [(1.0, 2.0)]), forces=False)["energy"].item())
        assert forces[atom, axis].item() == pytest.approx((energies[1] - energies[0]) / (2 * step), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("layer", ["default", "paper"])
def test_neutral_singlets_are_what_they_are_without_the_option(charged, make_model, batch, layer):
    """To the last bit, stated or not, in evaluation and in training."""
    model, plain = charged(layer=layer), make_model(layer=layer)
    weights = {name: w for name, w in model.state_dict().items() if name != "electronic.weight"}
    plain.load_state_dict(weights)
    without = replace(batch, charge=None, spin=None)
    for stated in (with_states(batch, [(0.0, 1.0)] * 4), without):
        for training in (False, True):
            wanted, found = plain.train(training)(without, stress=True), model.train(training)(stated, stress=True)
            for name in wanted:
                assert torch.equal(found[name], wanted[name]), name


def test_models_without_the_option_are_what_they_were(make_model):
    model = make_model()
    assert "charge_spin" not in model.config
    assert not any("electronic" in name for name in model.state_dict())
    assert make_model(charge_spin=False).config == model.config


@pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
def test_one_call_evaluates_a_batch_of_one_state_and_any_batch_gives_the_same(charged, batch, monkeypatch):
    model, ran = charged(), []
    run = cpp.evaluate
    monkeypatch.setattr(cpp, "evaluate", lambda *arguments: ran.append(1) or run(*arguments))
    for states, calls in ((STATES, 0), ([(-1.0, 2.0)] * 4, 1), ([(1.0, 1.0)] * 4, 2), ([(0.0, 1.0)] * 4, 3)):
        given = with_states(batch, states)
        found = model(given, stress=True)
        assert len(ran) == calls
        with dispatch.use_backend("reference", "network"):
            assert_same(found, model(given, stress=True))


def test_a_batch_is_every_system_by_itself(charged, systems, to_graph):
    model = charged()
    alone = []
    for name, charge, spin in (("small cell", -1, 2), ("slab", None, None), ("liquid", None, 3)):
        of = systems[name]
        parts = (of.positions, of.numbers, 4.0, of.cell.array, of.pbc, F64)
        alone.append(NeighborGraph.build(*parts, charge=charge, spin=spin))
    joined = NeighborGraph.batch(alone)
    assert joined.charge.tolist() == [-1, 0, 0]
    assert joined.spin.tolist() == [2, 1, 3]
    found, wanted = model(joined), [model(graph) for graph in alone]
    for name in ("energy", "forces"):
        torch.testing.assert_close(found[name], torch.cat([w[name] for w in wanted]), rtol=1e-12, atol=1e-12)
    energies = [model(replace(alone[0], charge=torch.tensor([q]).double()))["energy"].item() for q in (-2, -1, 0, 1)]
    assert len({round(energy, 6) for energy in energies}) == 4


def test_states_move_with_the_graph(batch):
    narrow = batch.to(dtype=torch.float32)
    assert (narrow.charge.dtype, narrow.spin.dtype) == (torch.float32, torch.float32)
    assert narrow.charge.tolist() == [q for q, _ in STATES]
    assert batch.to("meta").spin.device.type == "meta"
    assert replace(batch, charge=torch.tensor([1, 0, 0, 2])).charge.dtype == F64


def test_compiled_and_captured_potentials_know_states(charged, batch):
    model = charged(channels=4, lmax=1, layers=1)
    captured = CapturedPotential(model, batch.num_atoms + 3, batch.num_edges + 5, systems=4)
    for states in (STATES, STATES[::-1]):
        given = with_states(batch, states)
        wanted = model(given)
        assert_same(captured(given), {name: wanted[name] for name in ("energy", "forces")})
    model.train()
    compiled = CompiledPotential(model, "eager")
    for given in (batch, NeighborGraph.batch([batch, with_states(batch, STATES[::-1])])):
        assert_same(learn(model, compiled, given), learn(model, model, given))


def test_models_that_were_made_in_float32_are_close_to_float64(charged, batch):
    exact = charged()(batch)
    found = charged(torch.float32)(batch.to(dtype=torch.float32))
    for name, right in exact.items():
        assert (found[name].double() - right).abs().max() < 1e-5 * max(1.0, right.abs().max())


def test_config_and_state_dict_make_the_same_model(charged, batch):
    model = charged()
    twin = SDAS(**model.config).double().eval()
    twin.load_state_dict(model.state_dict())
    assert_same(twin(batch), model(batch), 0)
    assert_same(copy.deepcopy(model)(batch), model(batch), 0)


@pytest.mark.parametrize("growth", [{"channels": 16, "heads": 8}, {"lmax": 3}, {"layers": 3}])
def test_a_grown_model_knows_states_alike(charged, batch, growth):
    model = charged()
    grown = grow(model, **growth)
    assert grown.config["charge_spin"] is True
    assert_same(grown(batch, stress=True), model(batch, stress=True))


def test_states_are_seen_in_inference_mode(charged, batch):
    model = charged()
    wanted = model(batch)
    with torch.inference_mode():
        made = replace(batch, charge=batch.charge.clone(), spin=batch.spin.clone())
        assert_same(model(made), wanted)
        with dispatch.use_backend("reference", "network"):
            assert_same(model(made), wanted)


def test_a_new_model_tells_what_no_state_has_trained():
    electronic = ElectronicEmbedding(4)
    states = {(1, 1): "positive charge", (-2, 1): "negative charge", (0, 2): "unpaired electrons", (0, 1): None}
    assert {state: electronic.untrained(*state) for state in states} == states
    with torch.no_grad():
        electronic.weight[1, 1] = 0.1
    assert electronic.untrained(-1, 1) is None
    assert electronic.untrained(-1, 2) == "unpaired electrons"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"charge": torch.zeros(3)}, ValueError, r"charge must be \[4\] for 4 cells, got \[3\]"),
        ({"charge": torch.tensor([0.0, 1.0, float("nan"), 0.0])}, ValueError, "charge must be finite, got nan"),
        (
            {"spin": torch.tensor([1.0, 0.0, 1.0, 1.0])},
            ValueError,
            r"multiplicity 2S \+ 1, so at least 1, got 0",
        ),
        ({"spin": torch.ones(4, dtype=torch.bool)}, TypeError, "spin must be numbers, got torch.bool"),
        ({"spin": [1, 1, 1, 1]}, TypeError, r"spin must be a torch\.Tensor, got list"),
    ],
)
def test_states_that_are_none_are_errors(batch, change, error, message):
    with pytest.raises(error, match=message):
        replace(batch, **change)


def test_numbers_that_are_no_state_are_errors():
    for given, error, message in (
        ({"charge": "one"}, TypeError, "charge must be a number, got 'one'"),
        ({"spin": 0}, ValueError, r"multiplicity 2S \+ 1, so at least 1, got 0"),
        ({"charge": np.inf}, ValueError, "charge must be finite, got inf"),
    ):
        with pytest.raises(error, match=message):
            NeighborGraph.build(np.zeros((1, 3)), [1], 4.0, **given)


def test_a_model_without_the_option_refuses_states(make_model, batch):
    model = make_model()
    with pytest.raises(ValueError, match="graph has charge -1, which only a model made with charge_spin=True knows"):
        model(batch)
    with pytest.raises(ValueError, match="the graph has spin 3"):
        model(with_states(batch, [(0.0, 1.0), (0.0, 3.0), (0.0, 1.0), (0.0, 1.0)]))
    with pytest.raises(TypeError, match="charge_spin must be True or False, got 1"):
        make_model(charge_spin=1)
