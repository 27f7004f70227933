"""Models under `torch.func`, forward derivatives, mapping and checkpointing: the derivatives of ordinary autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.checkpoint import checkpoint

from sdas_kernels.nn import CapturedPotential, CompiledPotential

F64 = torch.float64
KINDS = {"default": {}, "paper": {"layer": "paper"}, "lmax 3": {"lmax": 3, "channels": 4, "layers": 1}}


@pytest.fixture(params=KINDS)
def model(request, make_model):
    return make_model(**KINDS[request.param])


@pytest.fixture
def graph(systems, to_graph):
    """Two atoms and their images: few numbers, many edges."""
    return to_graph(systems["small cell"], cutoff=4.0)


@pytest.fixture
def wanted(model, graph):
    """Second derivatives of the energy `[6, 6]`, one gradient after the other."""
    return second_derivatives(model, graph)


def second_derivatives(model, graph):
    moving = graph.positions.clone().requires_grad_()
    forces = model(replace(graph, positions=moving))["forces"].flatten()
    return -torch.stack([torch.autograd.grad(force, moving, retain_graph=True)[0].flatten() for force in forces])


def at(model, graph, key, **options):
    """A result as a function of the positions."""
    return lambda positions: model(replace(graph, positions=positions), **options)[key]


def test_hessians_by_every_order_of_transforms(model, graph, wanted):
    energy, forces = at(model, graph, "energy", forces=False), at(model, graph, "forces")
    r = graph.positions
    for found in (hessian(energy), jacrev(jacrev(energy)), lambda r: -jacfwd(forces)(r), lambda r: -jacrev(forces)(r)):
        torch.testing.assert_close(found(r).reshape(6, 6), wanted, rtol=1e-9, atol=1e-9)


def test_batched_gradients_are_rows_of_the_hessian(model, graph, wanted):
    moving = graph.positions.clone().requires_grad_()
    forces = at(model, graph, "forces")(moving)
    unit = torch.eye(6, dtype=F64).view(6, 2, 3)
    (batched,) = torch.autograd.grad(forces, moving, unit, retain_graph=True, is_grads_batched=True)
    mapped = vmap(lambda v: torch.autograd.grad(forces, moving, v, retain_graph=True)[0])(unit)
    for found in (batched, mapped):
        torch.testing.assert_close(-found.reshape(6, 6), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wrap", [lambda model: model, CompiledPotential], ids=["model", "compiled"])
@pytest.mark.parametrize("training", [False, True])
def test_dual_positions_carry_tangents_to_energies_and_forces(model, graph, wanted, wrap, training):
    potential, step = wrap(model.train(training)), torch.randn_like(graph.positions)
    forces = model.eval()(graph)["forces"]
    model.train(training)
    for grads in (torch.enable_grad, torch.no_grad):
        with grads(), forward_ad.dual_level():
            found = potential(replace(graph, positions=forward_ad.make_dual(graph.positions, step)))
            along, turned = (forward_ad.unpack_dual(found[key]).tangent.detach() for key in ("energy", "forces"))
        torch.testing.assert_close(along, -(forces * step).sum()[None])
        torch.testing.assert_close(turned.flatten(), -wanted @ step.flatten(), rtol=1e-9, atol=1e-9)


def test_the_derivative_of_stress_is_its_finite_difference(model, graph):
    stress, r, step, h = at(model, graph, "stress", stress=True), graph.positions, torch.randn(2, 3, dtype=F64), 1e-5
    exact = (stress(r + h * step) - stress(r - h * step)) / (2 * h)
    torch.testing.assert_close(jvp(stress, (r,), (step,))[1], exact, rtol=1e-6, atol=1e-6 * exact.abs().max())


def test_structures_are_mapped(model, graph):
    several = graph.positions + 0.1 * torch.randn(3, 2, 3, dtype=F64)
    forces = at(model, graph, "forces")
    torch.testing.assert_close(vmap(forces)(several), torch.stack([forces(r) for r in several]))


def test_gradients_by_weights_of_a_loss_on_forces(model, graph):
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights):
        return functional_call(model, weights, (graph,))["forces"].square().sum()

    found = torch.func.grad(loss)(weights)
    model.train()(graph)["forces"].square().sum().backward()
    for name, weight in model.named_parameters():
        exact = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(found[name], exact, rtol=1e-9, atol=1e-9)


def test_activation_checkpointing(model, graph):
    kinds = torch.zeros(2, dtype=torch.int64)

    def gradients(call):
        moving = graph.positions.clone().requires_grad_()
        energy = call(graph, graph.edge_vectors(moving), kinds).sum()
        (slope,) = torch.autograd.grad(energy, moving, create_graph=True)
        weights = tuple(model.parameters())
        return slope, *torch.autograd.grad(energy + slope.square().sum(), weights, allow_unused=True)

    again = gradients(lambda *given: checkpoint(model.energies, *given, use_reentrant=False))
    torch.testing.assert_close(again, gradients(model.energies), rtol=0, atol=0)


def test_forces_of_a_checkpointed_model(model, graph):
    def gradients(call):
        moving = graph.positions.clone().requires_grad_()
        return torch.autograd.grad(call(replace(graph, positions=moving))["forces"].square().sum(), moving)

    again = gradients(lambda given: checkpoint(model, given, use_reentrant=False))
    torch.testing.assert_close(again, gradients(model), rtol=0, atol=0)


def test_a_captured_potential_refuses(model, graph):
    captured = CapturedPotential(model, graph.num_atoms, graph.num_edges)
    captured(graph)
    with pytest.raises(RuntimeError, match="CapturedPotential: a replay has no derivatives"):
        jvp(lambda r: captured.step(r)["forces"], (graph.positions,), (torch.ones(2, 3, dtype=F64),))
