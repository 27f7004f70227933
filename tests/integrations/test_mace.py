"""accelerate(model) on models of the package mace-torch itself, with random weights."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch

from sdas_kernels.integrations.e3nn import accelerate

mace_modules = pytest.importorskip(
    "mace.modules", reason="mace-torch is not installed, so nothing is tested against MACE itself"
)
data = pytest.importorskip("mace.data")
tools = pytest.importorskip("mace.tools")
o3 = pytest.importorskip("e3nn.o3")

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
BLOCKS = [
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
]


@pytest.fixture(params=TOLERANCE)
def dtype(request):
    """MACE and e3nn make their constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@cache
def potential(block, dtype):
    """A MACE of 16 channels and two layers, with seeded random weights."""
    torch.manual_seed(0)
    return mace_modules.ScaleShiftMACE(
        r_max=4.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=mace_modules.interaction_classes[block],
        interaction_cls_first=mace_modules.interaction_classes[block],
        num_interactions=2,
        num_elements=3,
        hidden_irreps=o3.Irreps("16x0e + 16x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(3),
        avg_num_neighbors=10.0,
        atomic_numbers=[1, 6, 8],
        correlation=3,
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def batch(atoms):
    """What MACE takes, of one system."""
    table = tools.AtomicNumberTable([1, 6, 8])
    graph = data.AtomicData.from_config(data.config_from_atoms(atoms), z_table=table, cutoff=4.0)
    return next(iter(tools.torch_geometric.dataloader.DataLoader([graph], batch_size=1))).to_dict()


def both(block, dtype):
    """MACE's model and an accelerated copy of it."""
    theirs = copy.deepcopy(potential(block, dtype))
    ours = copy.deepcopy(theirs)
    return theirs, ours, accelerate(ours)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["liquid", "molecule", "small cell", "one atom"])
def test_energies_forces_and_stress(systems, name, block, dtype):
    theirs, ours, _ = both(block, dtype)
    given = batch(systems[name])
    wanted, found = (model(given, compute_stress=bool(systems[name].pbc.any())) for model in (theirs, ours))
    for key in ("energy", "node_energy", "forces", "stress"):
        if wanted[key] is not None:
            largest = wanted[key].abs().max().clamp(min=1e-3)
            # Energies of nodes may cancel in their sum, which keeps the rounding of both, theirs and ours.
            rounding = 4 * torch.finfo(dtype).eps * wanted["node_energy"].abs().sum() if key == "energy" else 0.0
            assert (found[key] - wanted[key]).abs().max() <= TOLERANCE[dtype] * largest + rounding, key


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_of_the_parameters(systems, block, dtype):
    theirs, ours, _ = both(block, dtype)
    given = batch(systems["liquid"])
    for model in (theirs, ours):
        result = model(given, training=True)
        (result["energy"].sum() + result["forces"].pow(2).sum()).backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is None) == (wanted[name].grad is None), name
        if parameter.grad is not None:
            difference = (parameter.grad - wanted[name].grad).abs().max()
            assert difference <= 3 * TOLERANCE[dtype] * wanted[name].grad.abs().max(), name


def test_a_checkpoint_loads_both_ways(systems, dtype):
    theirs, ours, _ = both(BLOCKS[0], dtype)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.1)
    given = batch(systems["molecule"])
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs(given)["forces"], ours(given)["forces"])
    fresh = potential(BLOCKS[0], dtype)
    ours.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(fresh(given)["forces"], ours(given)["forces"])


def test_the_report_names_what_is_left(dtype):
    _, ours, report = both(BLOCKS[0], dtype)
    assert {change.kind for change in report.left} == {"SymmetricContraction"}
    assert {change.module for change in report.swapped} >= {"interactions.0", "interactions.1", "spherical_harmonics"}
    assert all(hasattr(block, "conv_fusion") for block in ours.interactions)
