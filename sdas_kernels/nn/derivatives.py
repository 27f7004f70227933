"""Routes from an `SDAS` model to energies, forces and stress.

    evaluated    one call that PyTorch does not see; what it gives cannot be differentiated
    at once      the operator `network`: the gradient by the edge vectors comes along with the energies
    by layers    PyTorch differentiates the energies that the layers give

The first that serves is taken. `network` runs default models on a CPU (`sdas_kernels.nn.fused`), layers run anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.fused_sdas import LayerWeights, flat, network
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn.fused import layer_weights
from sdas_kernels.nn.inference import recordable, recording_allowed
from sdas_kernels.nn.inner_cutoff import inner_cutoffs
from sdas_kernels.segment import Segments, gather, of_receivers, segment_sum, sum_to_receivers, sum_to_senders
from sdas_kernels.transforms import transformed, value_and_gradients

if TYPE_CHECKING:
    from sdas_kernels.nn.sdas import SDAS

Found = dict[str, torch.Tensor]
"""What `SDAS.forward` returns: "energy" `[B]`, and "forces" `[N, 3]` and "stress" `[B, 3, 3]` where asked for."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, weights require no gradient: kernels leave out what only gradients by weights need."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def find(model: SDAS, batch: NeighborGraph, forces: bool, stress: bool) -> Found:
    """What `SDAS.forward` returns of a graph that fits the model; forces along with a stress, asked for or not.

    Raises what that raises.
    """
    again = model.training or batch.positions.requires_grad or transformed()
    again = again and not torch.is_inference_mode_enabled()
    layers = layer_weights(model) if forces or stress else None
    if layers is not None and not again:
        found = evaluate(model, batch, flat(model.embedding.weight, layers), stress)
        if found is not None:
            return found
    with recording_allowed():
        found = _by_operators(model, recordable(batch), layers, forces or stress, stress, again)
    if not again and (forces or stress):
        found["energy"] = found["energy"].detach()
    return found


def evaluate(model: SDAS, batch: NeighborGraph, weights: list[torch.Tensor], stress: bool) -> Found | None:
    """By one call that PyTorch does not see; None where there is none, with unknown species, or within inner cutoffs.

    `weights` are the model's, flat. None too for systems of several charges or spins: the kernel tells species apart.
    """
    if model.electronic is not None and (batch.charge is not None or batch.spin is not None):
        with torch.no_grad():
            states = model.electronic(batch)
            if not torch.equal(states, states[:1].expand_as(states)):
                return None
            weights = [weights[0] + states[:1], *weights[1:]]
    volumes = volumes_of(batch.cells) if stress else None
    buffers: dict[str, Any] = model._buffers
    constants = buffers["_species_of_number"], buffers["energy_shift"], buffers["energy_scale"]
    inner = inner_cutoffs(model.repulsion)
    found = model.evaluator(batch, weights, *constants, stress, inner)
    if found is None:
        return None
    energy, forces, by_strain = found
    if model.repulsion is not None and inner is None:
        energy, forces, by_strain = _with_repulsion(model, batch, energy, forces, by_strain)
    if by_strain is None or volumes is None:
        return {"energy": energy, "forces": forces}
    return {"energy": energy, "forces": forces, "stress": symmetric(by_strain) / volumes[:, None, None]}


@in_operand_dtype
def differentiate(
    model: SDAS,
    batch: NeighborGraph,
    positions: torch.Tensor,
    kinds: torch.Tensor,
    volumes: torch.Tensor | None,
    create_graph: bool,
) -> Found:
    """By calls that PyTorch sees and traces, of arguments already checked; stress if `volumes` `[B]` Å³ are given.

    `positions` are `[N, 3]`, species indices `kinds` `[N]`.
    """
    # A trace for every number of systems cannot hold the operator's sizes, which with states depend on that number.
    layers = layer_weights(model) if model.electronic is None else None
    if layers is None:
        return _by_layers(model, batch, positions, kinds, volumes, create_graph)
    with torch.set_grad_enabled(create_graph):
        return _at_once(model, batch, positions, kinds, volumes, layers)


def volumes_of(cells: torch.Tensor) -> torch.Tensor:
    """Of cells `[B, 3, 3]`, `[B]` Å³; raises `ValueError` if a system has none."""
    volume = torch.linalg.det(cells.double()).abs().to(cells.dtype)
    if bool((volume < 1e-12).any()):
        raise ValueError(f"SDAS: system {int(volume.argmin())} has no cell, so no stress")
    return volume


def _by_operators(
    model: SDAS, batch: NeighborGraph, layers: list[LayerWeights] | None, forces: bool, stress: bool, again: bool
) -> Found:
    """By calls that PyTorch sees; `again` if derivatives are to be differentiable."""
    kinds = model.kinds(batch)
    if model.embedding.weight.is_inference():
        raise RuntimeError(
            "SDAS: the weights were made in inference mode, so PyTorch cannot differentiate what they are part of: "
            "make, load and move the model outside of torch.inference_mode()"
        )
    if not forces:
        return {"energy": model.energies(batch, batch.edge_vectors(), kinds)}
    volumes = volumes_of(batch.cells) if stress else None
    if layers is not None:
        with torch.set_grad_enabled(again):
            return _at_once(model, batch, batch.positions, kinds, volumes, layers)
    with torch.enable_grad(), nullcontext() if again else frozen(model):
        return _by_layers(model, batch, batch.positions, kinds, volumes, create_graph=again)


def _by_layers(
    model: SDAS,
    batch: NeighborGraph,
    positions: torch.Tensor,
    kinds: torch.Tensor,
    volumes: torch.Tensor | None,
    create_graph: bool,
) -> Found:
    if volumes is None:
        energy, (by_positions,) = value_and_gradients(
            lambda r: model.energies(batch, batch.edge_vectors(r), kinds), (positions,), create_graph
        )
        return {"energy": energy, "forces": -by_positions}

    def strained(positions: torch.Tensor, strain: torch.Tensor) -> torch.Tensor:
        stretch = torch.eye(3, dtype=batch.dtype, device=batch.device) + (strain + strain.mT) / 2
        moved = (positions[:, None, :] @ gather(stretch, Segments(batch.system))).squeeze(1)
        return model.energies(batch, batch.edge_vectors(moved, batch.cells @ stretch), kinds)

    points = (positions, positions.new_zeros(batch.num_systems, 3, 3))
    energy, (by_positions, by_strain) = value_and_gradients(strained, points, create_graph)
    return {"energy": energy, "forces": -by_positions, "stress": by_strain / volumes[:, None, None]}


def _at_once(
    model: SDAS,
    batch: NeighborGraph,
    positions: torch.Tensor,
    kinds: torch.Tensor,
    volumes: torch.Tensor | None,
    layers: list[LayerWeights],
) -> Found:
    vectors, parity = batch.edge_vectors(positions), model.config["parity"]
    table, rows = model.scalars(batch, kinds)
    pressed = None if model.repulsion is None else model.repulsion.pressed(vectors, batch, kinds)
    seen = vectors if pressed is None else pressed.seen
    atomic, gradient = network(seen, rows, table, layers, batch, model.cutoff, parity)
    gradient = gradient * model.energy_scale
    energy = model.sum_over_systems(batch, atomic, kinds)
    if pressed is not None:
        energy, gradient = energy + pressed.energy, pressed.gradient(gradient)
    found = {"energy": energy, "forces": _forces(batch, gradient)}
    if volumes is not None:
        found["stress"] = symmetric(_by_strain(batch, vectors, gradient)) / volumes[:, None, None]
    return found


@torch.no_grad()
def _with_repulsion(
    model: SDAS, batch: NeighborGraph, energy: torch.Tensor, forces: torch.Tensor, by_strain: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What a kernel found for the network, with the repulsion added."""
    assert model.repulsion is not None
    vectors = batch.edge_vectors()
    repulsion, gradient = model.repulsion.with_gradient(vectors, batch, model.kinds(batch))
    if by_strain is not None:
        by_strain = by_strain + _by_strain(batch, vectors, gradient)
    return energy + repulsion, forces + _forces(batch, gradient), by_strain


def _forces(batch: NeighborGraph, gradient: torch.Tensor) -> torch.Tensor:
    """On the atoms `[N, 3]`, of the gradient by the vectors `[E, 3]`."""
    index = batch.edges.tensors()
    return sum_to_receivers(gradient, index) - sum_to_senders(gradient, index)


def _by_strain(batch: NeighborGraph, vectors: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Derivative of the energies by strain `[B, 3, 3]`."""
    system = Segments(of_receivers(batch.system, batch.edges.tensors()))
    return segment_sum(vectors[:, :, None] * gradient[:, None, :], system, batch.num_systems)


def symmetric(matrices: torch.Tensor) -> torch.Tensor:
    """Their symmetric parts `[B, 3, 3]`."""
    return (matrices + matrices.mT) / 2
