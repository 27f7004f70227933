"""Weights are loaded only where they mean what they meant, however the state dict came here."""

from __future__ import annotations

import io

import pytest
import safetensors.torch
import torch
from e3nn import o3

import sdas_kernels as sk
from sdas_kernels.nn import (
    SDAS,
    FullyConnectedTensorProduct,
    NeighborAttention,
    PaperLayer,
    TensorProduct,
    TensorProductConv,
)

BASE = {"species": [1, 8], "channels": 4, "heads": 2, "lmax": 0, "layers": 2, "n_radial": 3, "key_channels": 2}
OTHERS = {  # models whose tensors have the same names and shapes
    "species": ({}, {"species": [1, 6]}, r"species \[1, 8\] there, \[1, 6\] here"),
    "cutoff": ({}, {"cutoff": 4.5}, r"cutoff 5\.0 there, 4\.5 here"),
    "parity": ({}, {"parity": False}, "parity True there, False here"),
    "n_radial and key_channels": (
        {"radial_gain": False, "n_radial": 4, "key_channels": 3},
        {"radial_gain": False, "n_radial": 2, "key_channels": 4},
        "n_radial 4 there, 2 here",
    ),
    "heads": (
        {"attention": False, "radial_gain": False, "heads": 2},
        {"attention": False, "radial_gain": False, "heads": 4},
        "heads 2 there, 4 here",
    ),
    "paper's cutoff": ({"layer": "paper"}, {"layer": "paper", "cutoff": 4.5}, "cutoff"),
    "paper's parity": ({"layer": "paper", "parity": False}, {"layer": "paper"}, "parity False there, True here"),
    "lmax and layer": ({}, {"lmax": 2, "layer": "paper"}, "lmax 0 there, 2 here.*layer default there, paper here"),
}


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS = {
    "as it is": lambda state: state,
    "torch.save": through_a_file,
    "safetensors": lambda state: safetensors.torch.load(safetensors.torch.save(dict(state))),
    "a plain dictionary": dict,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", OTHERS)
def test_a_potential_refuses_the_weights_of_another(other, way):
    theirs, ours, message = OTHERS[other]
    state = WAYS[way](SDAS(**(BASE | theirs)).state_dict())
    model = SDAS(**(BASE | ours))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=f"SDAS: the weights in this state dict mean something else.*{message}"):
            model.load_state_dict(state, strict=strict)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "it is as it was"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["default", "paper"])
def test_it_takes_those_of_its_like(way, layer):
    """Whichever way its arguments were written, and inside of another module."""
    theirs = SDAS(**BASE, layer=layer)
    options = {"sink": True, "path_mixing": "full"} if layer == "default" else {}
    ours = torch.nn.ModuleDict({"potential": SDAS(**BASE, layer=layer, parity=True, **options)})
    state = WAYS[way](torch.nn.ModuleDict({"potential": theirs}).state_dict())
    ours.load_state_dict(state, strict=True)
    for name, weight in theirs.named_parameters():
        assert torch.equal(ours["potential"].get_parameter(name), weight)
    with pytest.raises(RuntimeError, match="the weights of potential in this state dict"):
        torch.nn.ModuleDict({"potential": SDAS(**BASE | {"cutoff": 3.0, "layer": layer})}).load_state_dict(state)


def older(model):
    """The state dict of a version that did not write the meaning."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("_extra_state")}


@pytest.mark.parametrize("layer", ["default", "paper"])
def test_an_older_state_dict_loads_and_its_species_are_compared(layer):
    theirs, ours = SDAS(**BASE, layer=layer), SDAS(**BASE, layer=layer)
    state = older(theirs)
    if layer == "paper":  # the features of the last layer, which reached no energy
        state["layers.1.mixing.weight"] = torch.randn(1, 8, 4)
    ours.load_state_dict(state, strict=True)
    graph = sk.NeighborGraph.build(torch.rand(5, 3) * 4, [1, 8, 1, 8, 1], 5.0)
    assert torch.equal(ours.eval()(graph)["forces"], theirs.eval()(graph)["forces"])
    with pytest.raises(RuntimeError, match=r"species \[1, 8\] there, \[1, 6\] here"):
        SDAS(**BASE | {"species": [1, 6]}, layer=layer).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"species \[1, 8\] there, \[1, 6, 8\] here"):
        SDAS(**BASE | {"species": [1, 6, 8]}, layer=layer).load_state_dict(state)
    del state["embedding.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*embedding"):
        ours.load_state_dict(state)


def test_another_version_of_the_coefficients_is_refused(monkeypatch):
    state = SDAS(**BASE).state_dict()
    monkeypatch.setattr("sdas_kernels.nn.neighbor_attention.VERSION", 99)
    with pytest.raises(RuntimeError, match="clebsch_gordan 1 there, 99 here"):
        SDAS(**BASE).load_state_dict(state)


PATHS = [(0, 0, 0, "uuu", True)]
MODULES = {
    "attention": (
        lambda: NeighborAttention(4, 2, 1, attention=False, radial_gain=False),
        lambda: NeighborAttention(4, 4, 1, attention=False, radial_gain=False),
        "heads 2 there, 4 here",
    ),
    "paper layer": (lambda: PaperLayer(4, 2, 0), lambda: PaperLayer(4, 2, 0, parity=False), "parity True there"),
    "irreps": (
        lambda: TensorProduct("4x1o", "4x1o", "4x1e", PATHS),
        lambda: TensorProduct("4x1e", "4x1e", "4x1e", PATHS),
        "irreps_in1 4x1o there, 4x1e here",
    ),
    "paths": (
        lambda: TensorProduct("2x0e+2x1o", "1x0e", "2x0e+2x1o", [(0, 0, 0, "uvu", True), (1, 0, 1, "uvu", True)]),
        lambda: TensorProduct("2x0e+2x1o", "1x0e", "2x0e+2x1o", [(1, 0, 1, "uvu", True), (0, 0, 0, "uvu", True)]),
        "paths",
    ),
    "normalization": (
        lambda: FullyConnectedTensorProduct("2x1o", "1x1o", "2x0e", irrep_normalization="norm"),
        lambda: FullyConnectedTensorProduct("2x1o", "1x1o", "2x0e"),
        "paths",
    ),
    "convolution": (
        lambda: TensorProductConv("2x0e+2x1o", "1x1o", "2x1o", shared_weights=True),
        lambda: TensorProductConv("2x0o+2x1e", "1x1o", "2x1e", shared_weights=True),
        "irreps_in1",
    ),
}


@pytest.mark.parametrize("way", ["as it is", "torch.save"])
@pytest.mark.parametrize("kind", MODULES)
def test_a_module_refuses_the_weights_of_another(kind, way):
    theirs, ours, message = MODULES[kind]
    state = WAYS[way](theirs().state_dict())
    with pytest.raises(RuntimeError, match=f"mean something else.*{message}"):
        ours().load_state_dict(state)
    theirs().load_state_dict(state, strict=True)


def test_a_state_dict_of_e3nn_is_compared_as_far_as_it_tells():
    """It has an output mask, and names the degrees of its couplings."""
    paths = [(0, 0, 0, "uvu", True)]
    theirs = o3.TensorProduct("2x1o", "1x1o", "2x1e", paths)
    TensorProduct("2x1o", "1x1o", "2x1e", paths).load_state_dict(theirs.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match=r"TensorProduct: .*other couplings of degrees \[\(1, 1, 1\)\]"):
        TensorProduct("2x2e", "1x1o", "2x1o", paths).load_state_dict(theirs.state_dict())
    masked = o3.TensorProduct("2x0e", "1x0e", "2x0e+2x0e", paths)
    with pytest.raises(RuntimeError, match="other outputs that its paths reach"):
        TensorProduct("2x0e", "1x0e", "2x0e+2x0e", [(0, 0, 1, "uvu", True)]).load_state_dict(masked.state_dict())


def test_drop_in_modules_keep_the_keys_of_e3nn():
    ours = FullyConnectedTensorProduct("2x1o", "1x1o", "2x0e")
    theirs = o3.FullyConnectedTensorProduct("2x1o", "1x1o", "2x0e")
    assert set(ours.state_dict()) == {"weight", "output_mask"}
    theirs.load_state_dict(ours.state_dict(), strict=False)
