"""Energy, forces and Hessian are continuous while a neighbor, the last one included, crosses the cutoff."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from sdas_kernels.graph import NeighborGraph

STEPS = (1e-2, 1e-3, 1e-4, 1e-5)
CUTOFF = 4.0


def dimer(d):
    """The neighbor that leaves is the last one of both atoms."""
    return Atoms("OC", [[0, 0, 0], [0.6 * d, 0, 0.8 * d]])


def trimer(d):
    """A neighbor leaves atoms that keep another one; seen from atom 2, the last one leaves."""
    return Atoms("OCH", [[0, 0, 0], [1.1, 0.3, 0], [-0.48 * d, 0.6 * d, 0.64 * d]])


def chain(d):
    """Two neighbors of atom 0 cross at the same distance, from both sides."""
    return Atoms("OCHH", [[0, 0, 0], [0.9, 0.5, -0.4], [d, 0, 0], [-0.6 * d, 0.8 * d, 0]])


def quantities(physics, model, atoms):
    found = physics.evaluate(model, atoms)
    return [found["energy"], found["forces"], physics.hessian(model, atoms)]


def jumps(physics, model, system):
    """|Q(cutoff + s) - Q(cutoff - s)| at each step: `[step, (E, F, H)]`."""
    rows = []
    for s in STEPS:
        inside, outside = (quantities(physics, model, system(CUTOFF + side)) for side in (-s, s))
        rows.append([np.abs(a - b).max() for a, b in zip(inside, outside, strict=True)])
    return np.array(rows)


OPTIONS = {
    "default": {},
    "SE(3)": {"parity": False},
    "channel mixing": {"path_mixing": "channel"},
    "product": {"node_product": True},
    "degree 3": {"lmax": 3},
    "no attention": {"attention": False},
    "no queries": {"direction_query": False, "radial_query": False},
}


@pytest.mark.parametrize("system", [dimer, trimer, chain])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_nothing_jumps_at_the_cutoff(physics, make_model, system, options):
    """The change across the cutoff vanishes at least linearly with the step, down to rounding."""
    model = make_model(cutoff=CUTOFF, **options)
    assert np.abs(physics.evaluate(model, system(0.7 * CUTOFF))["forces"]).max() > 1e-3
    changes = jumps(physics, model, system)
    for step, change in zip(STEPS[1:], changes[1:], strict=True):
        bound = 3 * changes[0] * step / STEPS[0]
        floor = np.array([1e-13, 1e-12, 1e-10])
        assert (change <= bound + floor).all(), f"step {step}: changes {change}, bounds {bound}"


def largest_changes(physics, model, system, step):
    """Largest change of energy and of forces between neighboring points of a grid around the cutoff."""
    distances = CUTOFF + step * (np.arange(round(-0.05 / step), round(0.05 / step) + 1) + 0.5)
    batch = NeighborGraph.batch([physics.graph_of(model, system(d)) for d in distances])
    found = model(batch)
    return [
        np.abs(np.diff(found[name].reshape(len(distances), -1).numpy(), axis=0)).max() for name in ("energy", "forces")
    ]


@pytest.mark.parametrize("system", [dimer, trimer, chain])
@pytest.mark.parametrize("layer", ["default", "paper"])
def test_a_scan_through_the_cutoff_has_no_step(physics, make_model, system, layer):
    """On a grid ten times finer the largest change is ten times smaller; a step, as the paper layer has, would stay."""
    model = make_model(cutoff=CUTOFF, layer=layer)
    coarse, fine = (largest_changes(physics, model, system, step) for step in (5e-3, 5e-4))
    if layer == "default":
        assert all(f < 0.3 * c for f, c in zip(fine, coarse, strict=True))
    else:
        assert fine[0] > 0.9 * coarse[0]


@pytest.mark.parametrize("system", [dimer, trimer])
def test_the_paper_layer_does_jump(physics, make_model, system):
    """So the tests above can fail: a plain softmax with one neighbor left is 1 until it leaves."""
    changes = jumps(physics, make_model(layer="paper", cutoff=CUTOFF), system)
    assert changes[-1, 0] > 1e-3
    assert changes[-1, 0] > 0.9 * changes[0, 0]
