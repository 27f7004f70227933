"""The model: its configuration and state, energies in float64, batches, references, compilation, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from sdas.run.checkpoint import load_model, save_model
from sdas_kernels import dispatch
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, CapturedPotential, EdgeGeometry

F64 = torch.float64
SWITCHES = {
    "default": {},
    "paper": {"layer": "paper"},
    "SE(3)": {"parity": False},
    "no direction query": {"direction_query": False},
    "no radial query": {"radial_query": False},
    "no sink": {"sink": False},
    "no radial gain": {"radial_gain": False},
    "no attention": {"attention": False},
    "no node update": {"node_update": False},
    "channel mixing": {"path_mixing": "channel"},
    "everything off": {
        "attention": False,
        "radial_gain": False,
        "node_update": False,
        "path_mixing": "channel",
        "lmax": 0,
        "layers": 1,
    },
    "one layer": {"layers": 1},
    "one channel": {"channels": 1, "heads": 1, "key_channels": 1, "n_radial": 1},
    "odd channels": {"channels": 7, "heads": 7, "lmax": 3, "layers": 3},
}


@pytest.fixture(params=SWITCHES.values(), ids=SWITCHES)
def config(request):
    return request.param


def dense_energy(model, graph):
    """The default layer's formula around its attention, which its own tests hold against the published formula."""
    geometry = EdgeGeometry.from_vectors(graph.edge_vectors(), graph, model.lmax, model.n_radial, model.cutoff)
    known = model.config["species"]
    x = torch.zeros(graph.num_atoms, (model.lmax + 1) ** 2, model.config["channels"], dtype=graph.dtype)
    for atom, z in enumerate(graph.numbers.tolist()):
        x[atom, 0] = model.embedding.weight[known.index(z)]
    energy = torch.zeros(graph.num_systems, dtype=F64)
    for layer, readout in zip(model.layers, model.readouts, strict=True):
        x = x + layer.attention(layer.norm(x), geometry)
        x = x + layer.update(layer.norm(x))
        for atom in range(graph.num_atoms):
            energy[graph.system[atom]] += readout(x[atom, 0]).item()
    return energy


@torch.no_grad()
def test_energy_sums_every_layers_readout_over_atoms(make_model, systems, to_graph):
    model = make_model()
    batch = NeighborGraph.batch([to_graph(systems[name]) for name in ("molecule", "slab")])
    found = model(batch, forces=False)["energy"]
    torch.testing.assert_close(found, dense_energy(model, batch), rtol=1e-12, atol=1e-12)


def test_every_switch_runs_and_trains(make_model, systems, to_graph, config):
    model = make_model(**config).train()
    batch = NeighborGraph.batch([to_graph(systems[name]) for name in ("molecule", "small cell", "one atom")])
    found = model(batch)
    assert found["energy"].shape == (3,)
    assert found["forces"].shape == (batch.num_atoms, 3)
    (found["energy"].square().sum() + found["forces"].square().sum()).backward()
    for name, parameter in model.named_parameters():
        dead = name == "first_features.radial" and model.lmax == 0
        if not dead:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_config_and_state_dict_make_the_same_model(make_model, systems, to_graph, config, tmp_path):
    model = make_model(**config)
    model.set_energy_reference({1: -13.6, 6: -1029.5, 8: -2041.25}, 0.7)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    twin = SDAS(**model.config).to(F64).eval()
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert twin.config == model.config
    graph = to_graph(systems["molecule"])
    for name, value in model(graph).items():
        assert torch.equal(twin(graph)[name], value)


def test_state_dict_does_not_depend_on_the_backend(make_model):
    keys = make_model().state_dict().keys()
    with dispatch.use_backend("reference"):
        assert make_model().state_dict().keys() == keys


def test_a_batch_is_every_system_by_itself(make_model, systems, to_graph, config):
    model = make_model(**config)
    graphs = [to_graph(atoms) for atoms in systems.values()]
    together, alone = model(NeighborGraph.batch(graphs)), [model(g) for g in graphs]
    for name in ("energy", "forces"):
        torch.testing.assert_close(together[name], torch.cat([a[name] for a in alone]), rtol=1e-12, atol=1e-12)
    cells = [to_graph(systems[name]) for name in ("liquid", "small cell")]
    together = model(NeighborGraph.batch(cells), stress=True)["stress"]
    torch.testing.assert_close(together, torch.cat([model(g, stress=True)["stress"] for g in cells]))


def test_repeated_evaluation_gives_the_same_bits(make_model, systems, to_graph):
    model = make_model(torch.float32)
    batch = NeighborGraph.batch([to_graph(systems[name], dtype=torch.float32) for name in ("liquid", "small cell")])
    first, again = (model(batch, stress=True) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_energy_reference_shifts_each_species_and_scales_the_network(make_model, systems, to_graph):
    model, graph = make_model(), to_graph(systems["molecule"])
    plain = model(graph)
    shifts = {1: -13.5, 6: -1029.25, 8: -2041.75, 9: 3.0}
    model.set_energy_reference(shifts, 2.5)
    found = model(graph)
    wanted = 2.5 * plain["energy"] + sum(shifts[z] for z in graph.numbers.tolist())
    torch.testing.assert_close(found["energy"], wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(found["forces"], 2.5 * plain["forces"], rtol=1e-12, atol=1e-12)


def test_energies_are_float64_and_keep_large_references_exact(make_model, systems, to_graph):
    """A total energy of 1e7 eV must not swallow the network's meV, whatever the network's dtype."""
    model = make_model(torch.float32).double().float()
    graph = to_graph(systems["molecule"], dtype=torch.float32)
    network = model(graph, forces=False)["energy"].detach()
    shifts = {1: -1e6 - 1e-3, 6: -2e6 - 3e-5, 8: -3e6 - 7e-4}
    model.set_energy_reference(shifts, 1.0)
    total = sum(shifts[z] for z in graph.numbers.tolist())
    for same in (model, model.double().float(), model.bfloat16().float()):
        assert same.energy_shift.dtype == same.energy_scale.dtype == F64
        assert same.energy_shift.tolist() == [shifts[1], shifts[6], shifts[8]]
        energy = same(graph, forces=False)["energy"]
        assert energy.dtype == F64
        if same is model:
            assert (energy - total).item() == pytest.approx(network.item(), abs=0.05)


def test_isolated_atoms_have_their_shift_and_the_networks_isolated_energy(make_model, systems, to_graph):
    model, graph = make_model(), to_graph(systems["no edges"])
    model.set_energy_reference({1: -13.6, 6: -1030.0, 8: -2042.0}, 1.5)
    found = model(graph)
    kinds = torch.tensor([model.config["species"].index(z) for z in graph.numbers.tolist()])
    atomic = model.features(graph, graph.edge_vectors(), kinds)[0]
    assert found["energy"].item() == pytest.approx(-13.6 - 1030.0 - 2042.0 + 1.5 * atomic.sum().item(), rel=1e-14)
    assert found["forces"].abs().max() == 0


@pytest.mark.parametrize(
    ("shifts", "scale", "message"),
    [
        ({1: 0.0, 6: 0.0}, 1.0, r"no energy shift for atomic numbers \[8\]"),
        ({1: 0.0, 6: float("nan"), 8: 0.0}, 1.0, "shifts must be finite and scale positive"),
        ({1: 0.0, 6: 0.0, 8: 0.0}, 0.0, "shifts must be finite and scale positive"),
        ({1: 0.0, 6: 0.0, 8: 0.0}, float("inf"), "shifts must be finite and scale positive"),
    ],
)
def test_bad_energy_references_are_errors(make_model, shifts, scale, message):
    with pytest.raises(ValueError, match=message):
        make_model().set_energy_reference(shifts, scale)


def test_outputs_can_be_differentiated_again_only_where_asked(make_model, systems, to_graph):
    model, graph = make_model(), to_graph(systems["small cell"])
    for name, value in model(graph, stress=True).items():
        assert not value.requires_grad, name
    with torch.no_grad():  # forces are a gradient, also where the caller wants none
        torch.testing.assert_close(model(graph)["forces"], model.train()(graph)["forces"].detach())
    for name, value in model(graph, stress=True).items():
        assert value.requires_grad, name
    model.eval()
    graph.positions.requires_grad_()
    assert model(graph)["forces"].requires_grad
    assert set(model(graph, forces=False)) == {"energy"}
    assert set(model(graph, forces=False, stress=True)) == {"energy", "stress"}


@pytest.mark.parametrize("captured", [False, True], ids=["model", "captured"])
def test_evaluation_asks_for_no_gradients_by_weights(make_model, systems, to_graph, captured):
    """They require none while it runs, even if it fails, and afterwards what they required before."""
    model, graph = make_model(), to_graph(systems["liquid"])
    model.embedding.requires_grad_(False)
    before = [weight.requires_grad for weight in model.parameters()]
    seen = []

    def look(*_):
        seen.extend(weight.requires_grad for weight in model.parameters())
        if len(seen) > len(before):
            raise RuntimeError("failed")

    model.layers[1].register_forward_pre_hook(look)
    run = CapturedPotential(model, graph.num_atoms, graph.num_edges) if captured else model
    run(graph)
    assert seen == [False] * len(before)
    with pytest.raises(RuntimeError, match="failed"):
        run(graph)
    assert [weight.requires_grad for weight in model.parameters()] == before


def test_float32_is_close_to_float64(make_model, systems, to_graph):
    """Bound: 1e-5 of the largest energy and force."""
    for name in ("molecule", "liquid"):
        exact = make_model()(to_graph(systems[name]))
        found = make_model(torch.float32)(to_graph(systems[name], dtype=torch.float32))
        for key in exact:
            bound = 1e-5 * max(1.0, exact[key].abs().max().item())
            assert (found[key].double() - exact[key]).abs().max() < bound, (name, key)


def test_compiles_once_for_every_edge_count(make_model, systems, to_graph):
    model, counter = make_model(), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model.features, fullgraph=True, backend=counter)
    for name in ("molecule", "liquid", "small cell", "slab"):
        graph = to_graph(systems[name])
        kinds = torch.tensor([model.config["species"].index(z) for z in graph.numbers.tolist()])
        vectors = graph.edge_vectors().requires_grad_()
        by = []
        for call in (compiled, model.features):
            energy = call(graph, vectors, kinds)[0].sum()
            by.append(torch.autograd.grad(energy, vectors)[0])
        torch.testing.assert_close(*by, rtol=1e-10, atol=1e-10)
    assert counter.frame_count <= 3  # first static, then dynamic in atoms and edges


BAD = {
    "species": ({"species": []}, "species must be at least one atomic number, got none"),
    "species range": ({"species": [0, 1]}, r"species must be 1\.\.118, got 0"),
    "channels": ({"channels": 0}, "channels must be at least 1, got 0"),
    "layers": ({"layers": 0}, "layers must be at least 1, got 0"),
    "radial": ({"n_radial": 0}, "n_radial must be at least 1, got 0"),
    "cutoff": ({"cutoff": -1.0}, r"cutoff must be positive and finite \(Å\), got -1.0"),
    "heads": ({"heads": 3}, "heads must divide channels"),
    "layer": ({"layer": "other"}, 'layer must be "default" or "paper", got \'other\''),
    "lmax": ({"lmax": -1}, r"lmax must be 0\.\.8, got -1"),
    "high lmax": ({"lmax": 9}, r"lmax must be 0\.\.8, got 9"),
    "paper heads": ({"layer": "paper", "heads": 0}, "heads must be at least 1, got 0"),
    "paper keys": ({"layer": "paper", "key_channels": 0}, "key_channels must be at least 1, got 0"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_configurations_are_errors(make_model, bad):
    config, message = bad
    with pytest.raises(ValueError, match=message):
        make_model(**config)


def test_unknown_options_are_errors(make_model):
    with pytest.raises(TypeError, match="the paper layer has no options, got sink"):
        make_model(layer="paper", sink=False)
    with pytest.raises(TypeError, match="typo"):
        make_model(typo=True)


def test_graphs_that_do_not_fit_the_model_are_errors(make_model, systems, to_graph):
    model, atoms = make_model(), systems["molecule"]
    metal = atoms.copy()
    metal.numbers[0] = 29
    for graph, message in (
        (to_graph(metal), r"atomic numbers \[29\] are unknown to a model of \[1, 6, 8\]"),
        (to_graph(atoms, 5.0), "built with cutoff 5.0 Å, the model has 4.0 Å"),
        (to_graph(atoms, dtype=torch.float32), "the graph is torch.float32 on cpu, the model torch.float64 on cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            model(graph)
    with pytest.raises(ValueError, match="system 0 has no cell, so no stress"):
        model(to_graph(atoms), stress=True)
    with pytest.raises(ValueError, match="system 1 has no cell, so no stress"):
        model(NeighborGraph.batch([to_graph(systems["liquid"]), to_graph(atoms)]), stress=True)
    with pytest.raises(TypeError, match="wants a NeighborGraph, got Atoms"):
        model(atoms)


def test_species_order_does_not_matter(systems, to_graph):
    models = []
    for species in ([8, 1, 6], np.array([1, 6, 8, 8])):
        torch.manual_seed(1)
        models.append(SDAS(species, channels=4, heads=2, cutoff=4.0).to(F64).eval())
    assert models[0].config == models[1].config
    energies = [m(to_graph(systems["molecule"]), forces=False)["energy"] for m in models]
    assert torch.equal(*energies)


ARGUMENTS = {
    "species": [8, 1],
    "channels": 4,
    "heads": 2,
    "lmax": 1,
    "layers": 1,
    "cutoff": 4.0,
    "n_radial": 3,
    "key_channels": 2,
    "parity": True,
    "sink": False,
}


def as_numpy(value):
    if isinstance(value, list):
        return np.array(value)
    return {int: np.int64, float: np.float64, bool: np.bool_}[type(value)](value)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_numpy_arguments_become_those_of_python(name, tmp_path):
    """So that the configuration can be written to a file, and a twin be made of it."""
    model = SDAS(**ARGUMENTS | {name: as_numpy(ARGUMENTS[name])})
    assert model.config == SDAS(**ARGUMENTS).config
    assert type(model.config[name]) is type(ARGUMENTS[name])
    save_model(tmp_path / "model", model)
    assert load_model(tmp_path / "model").config == model.config


def test_species_may_be_symbols():
    model = SDAS(["O", "H", 1])
    assert model.config["species"] == [1, 8]
    model.set_energy_reference({"H": -13.6, 8: -2041.0}, 1.0)
    assert model.energy_shift.tolist() == [-13.6, -2041.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 2.0}, r"layers must be a whole number, got 2\.0"),
        ({"channels": True}, "channels must be a whole number, got True"),
        ({"lmax": "2"}, "lmax must be a whole number, got '2'"),
        ({"heads": None}, "heads must be a whole number, got None"),
        ({"cutoff": "five"}, r"cutoff must be a number \(Å\), got 'five'"),
        ({"parity": 1}, "parity must be True or False, got 1"),
        ({"sink": 0}, "sink must be True or False, got 0"),
        ({"node_update": 1}, "node_update must be True or False, got 1"),
        ({"species": "HO"}, "species must be a list of atomic numbers or symbols, got 'HO'"),
        ({"species": [1.5]}, r"species must be a whole number, got 1\.5"),
        ({"layer": "paper", "heads": 2.0, "sink": False}, r"heads must be a whole number, got 2\.0"),
    ],
)
def test_arguments_of_another_kind_are_errors(change, message):
    with pytest.raises(TypeError, match=message):
        SDAS(**ARGUMENTS | change)


def test_an_unknown_element_is_an_error():
    with pytest.raises(ValueError, match=r"species must be atomic numbers 1\.\.118 or symbols as 'H', got 'Xx'"):
        SDAS(["H", "Xx"])


@pytest.mark.parametrize(
    ("shifts", "scale", "reason"),
    [
        ([0.0], 1.0, "shifts must be energies by element, got list"),
        ({1: "a"}, 1.0, r"shifts of element 1 must be a number \(eV\), got 'a'"),
        ({1: 0.0}, None, r"scale must be a number \(eV\), got None"),
    ],
)
def test_an_energy_reference_that_is_no_number_is_named(shifts, scale, reason):
    with pytest.raises(TypeError, match=f"SDAS: {reason}"):
        SDAS([1], channels=2, heads=1, lmax=0, layers=1).set_energy_reference(shifts, scale)


def test_a_repulsion_that_is_no_word_is_named():
    with pytest.raises(ValueError, match=r"repulsion must be .* got \['zbl'\]"):
        SDAS([1], repulsion=["zbl"])
