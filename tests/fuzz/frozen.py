"""Drawn models evaluated at drawn systems, by native code at listed pairs where there is any; they check themselves.

What is right is what operators of plain PyTorch give for the same weights in float64, at a graph that is made anew.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from targets import Call, Draw

from sdas_kernels import NeighborGraph, dispatch
from sdas_kernels.nn import SDAS, FrozenPotential, InnerCutoffError, ListedPairs

CUTOFF, SKIN = 3.0, 0.5
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
PERIODIC = ((False, False, False), (True, True, True), (True, False, True))
Tensor = torch.Tensor


@cache
def model_of(dtype: torch.dtype, **config: Any) -> tuple[SDAS, SDAS]:
    """A model with seeded weights, and the same in float64."""
    torch.manual_seed(0)
    model = SDAS([1, 6, 8], heads=2, cutoff=CUTOFF, n_radial=3, key_channels=2, **config)
    model.set_energy_reference({1: -13.6, 6: 0.5, 8: 2.5}, 1.7)
    if model.electronic is not None:
        torch.nn.init.normal_(model.electronic.weight)
    model = model.to(dtype).eval()
    return model, copy.deepcopy(model).double()


def config_of(d: Draw) -> dict[str, Any]:
    """Options that a model may have, all of those that the kernel knows and some that it leaves to others."""
    return {
        "channels": d.pick([4, 6]),
        "lmax": d.pick(range(4)),
        "layers": d.pick([1, 2, 3, 4]),
        "parity": d.pick([True, False]),
        "node_product": d.pick([False, True]),
        "members": d.pick([1, 2]),
        "repulsion": d.pick([None, None, "inner-cutoff", "zbl"]),
        "charge_spin": d.pick([False, False, False, True]),
    }


def system_of(d: Draw, states: bool) -> dict[str, Any]:
    """Arguments of `NeighborGraph.build`: atoms near a lattice, in any of their images, of a cell of any shape."""
    side, spacing = d.pick([1, 2, 3]), d.pick([1.7, 1.7, 7.0])  # those at 7 Å are isolated
    count = d.pick([1, 2, side**3])
    places = torch.cartesian_prod(*[torch.arange(float(side))] * 3).double()[:count]
    pbc = d.pick(PERIODIC)
    cell = torch.eye(3).double() + 0.15 * torch.rand(3, 3, generator=d.random).double()
    if d.pick([False, True]):
        cell[[0, 1]] = cell[[1, 0]]  # a negative determinant
    noise = 0.1 * (torch.rand(len(places), 3, generator=d.random).double() - 0.5)
    positions = (spacing * places + noise) @ cell
    images = torch.randint(-2, 3, places.shape, generator=d.random) * torch.tensor(pbc)
    found = {
        "positions": positions + side * spacing * images.double() @ cell,
        "numbers": torch.tensor([1, 6, 8])[torch.randint(0, 3, (len(places),), generator=d.random)],
        "cell": side * spacing * cell if any(pbc) else None,
        "pbc": pbc,
    }
    return found | ({"charge": d.pick([None, -1, 2]), "spin": d.pick([None, 1, 3])} if states else {})


def graph_of(systems: list[dict[str, Any]], cutoff: float) -> NeighborGraph:
    """Of all of them, float64."""
    return NeighborGraph.batch([NeighborGraph.build(cutoff=cutoff, dtype=torch.float64, **each) for each in systems])


def frozen(d: Draw) -> Call:
    """A step of dynamics: pairs of systems as they were, evaluated where atoms have moved since."""
    config = config_of(d)
    before = [system_of(d, config["charge_spin"]) for _ in range(d.pick([1, 2, 3]))]
    steps = [0.2 * (torch.rand(each["positions"].shape, generator=d.random).double() - 0.5) for each in before]
    after = [each | {"positions": each["positions"] + step.double()} for each, step in zip(before, steps, strict=True)]
    threads, trust = d.pick([1, 2, 5]), d.pick([False, True])
    stress = all(each["cell"] is not None for each in before)

    def call() -> None:
        model, exact = model_of(d.dtype, **config)
        graph = graph_of(after, CUTOFF)
        with dispatch.use_backend("reference"):
            wanted = exact(graph, stress=stress)
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = evaluated(model, graph, before, stress, trust)
        finally:
            torch.set_num_threads(usual)
        for name, right in wanted.items():
            bound = TOLERANCE[d.dtype] * max(1.0, float(right.abs().max()))
            worst = float((found[name].double() - right).abs().max())
            assert worst <= bound, f"{name} off by {worst:.3g} with {config} at {after}"

    return Call(call, {}, {})


def evaluated(
    model: SDAS, graph: NeighborGraph, before: list[dict[str, Any]], stress: bool, trust: bool
) -> dict[str, Tensor]:
    """By the frozen model where it has what can be frozen; else, and within inner cutoffs, by the model itself."""
    potential = FrozenPotential.of(model)
    left = model.electronic is not None or model.config.get("repulsion") == "zbl"
    assert (potential is None) == left, "frozen, or not, against what the docstring says"
    if potential is not None:
        pairs = ListedPairs(graph_of(before, CUTOFF + SKIN), CUTOFF, SKIN)
        try:
            found = potential(pairs, graph.numbers, graph.positions, graph.cells, stress, trust)
            assert found is not None, "atoms have moved by less than the skin"
            assert_closest(found["closest"], graph)
            return found
        except InnerCutoffError:
            pass
    return model(graph.to(dtype=model.embedding.weight.dtype), stress=stress)


def assert_closest(closest: Tensor, graph: NeighborGraph) -> None:
    """The distance of each system's closest atoms, where they are within the cutoff."""
    lengths, system = graph.edge_vectors().norm(dim=1), graph.system[graph.receivers]
    for row, length in enumerate(closest.tolist()):
        within = lengths[system == row]
        if len(within):
            assert abs(length - float(within.min())) < 1e-12, "another closest distance"
        else:
            assert length > CUTOFF, "close atoms where there are none"
