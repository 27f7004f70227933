"""Accelerated models under forward derivatives, `torch.func`, mapping, checkpointing and inference mode: as e3nn's."""

from __future__ import annotations

import copy
import importlib.util
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint

from sdas_kernels.integrations.e3nn import accelerate

_spec = importlib.util.spec_from_file_location("e3nn_models", Path(__file__).with_name("e3nn_models.py"))
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)
F64 = torch.float64


pytestmark = pytest.mark.usefixtures("float64_by_default")


@cache
def built(name):
    torch.manual_seed(0)
    theirs = copy.deepcopy(models.MODELS[name]())
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    return theirs, ours


@pytest.fixture(params=models.MODELS)
def pair(request):
    """e3nn's model, the accelerated one, positions, and what else both take."""
    positions, *rest = models.inputs(atoms=4)
    theirs, ours = built(request.param)
    return theirs, ours, positions, rest


def by_loop(model, positions, rest):
    """The Hessian by one gradient after the other."""
    moving = positions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(moving, *rest), moving, create_graph=True)
    rows = [torch.autograd.grad(entry, moving, retain_graph=True)[0] for entry in slope.flatten()]
    return torch.stack(rows).reshape(*positions.shape, *positions.shape)


def test_hessians_by_transforms_and_by_batched_gradients(pair):
    theirs, ours, positions, rest = pair
    wanted = by_loop(theirs, positions, rest)
    torch.testing.assert_close(by_loop(ours, positions, rest), wanted)
    torch.testing.assert_close(hessian(lambda r: ours(r, *rest))(positions), wanted)
    moving = positions.clone().requires_grad_()
    (slope,) = torch.autograd.grad(ours(moving, *rest), moving, create_graph=True)
    flat, unit = slope.flatten(), torch.eye(positions.numel())

    def row(cotangent):  # as MACE makes its Hessians
        return torch.autograd.grad(flat, moving, cotangent, retain_graph=True)[0]

    torch.testing.assert_close(vmap(row, chunk_size=5)(unit).reshape(wanted.shape), wanted)
    (batched,) = torch.autograd.grad(flat, moving, unit, is_grads_batched=True)
    torch.testing.assert_close(batched.reshape(wanted.shape), wanted)


def test_forward_derivatives_of_energies_and_forces(pair):
    theirs, ours, positions, rest = pair
    step = torch.randn_like(positions)
    wanted = jvp(lambda r: theirs(r, *rest), (positions,), (step,))
    torch.testing.assert_close(jvp(lambda r: ours(r, *rest), (positions,), (step,)), wanted)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(positions.clone().requires_grad_(), step)
        energy = ours(dual, *rest)
        (slope,) = torch.autograd.grad(energy, dual, create_graph=True)  # PyTorch has no other of silu
        turned = forward_ad.unpack_dual(slope).tangent
        torch.testing.assert_close(forward_ad.unpack_dual(energy).tangent, wanted[1])
    torch.testing.assert_close(turned.detach(), torch.tensordot(by_loop(theirs, positions, rest), step, 2))
    torch.testing.assert_close(ours(positions, *rest), wanted[0])  # nothing of a transform is remembered


def test_structures_are_mapped(pair):
    theirs, ours, positions, rest = pair
    several = positions + 0.1 * torch.randn(3, *positions.shape)
    wanted = torch.stack([theirs(r, *rest) for r in several])
    torch.testing.assert_close(vmap(lambda r: ours(r, *rest))(several), wanted)


def test_activation_checkpointing(pair):
    _, ours, positions, rest = pair

    def gradients(call):
        moving = positions.clone().requires_grad_()
        energy = call(moving)
        (slope,) = torch.autograd.grad(energy, moving, create_graph=True)
        return [slope, *torch.autograd.grad(energy + slope.square().sum(), tuple(ours.parameters()))]

    kept = gradients(lambda r: ours(r, *rest))
    again = gradients(lambda r: checkpoint(ours, r, *rest, use_reentrant=False))
    torch.testing.assert_close(again, kept, rtol=0, atol=0)


def test_energies_in_inference_mode(pair):
    theirs, ours, positions, rest = pair
    wanted = theirs(positions, *rest).detach()
    with torch.inference_mode():
        torch.testing.assert_close(ours(positions, *rest).clone(), wanted)
        copies = [t.clone() for t in (positions, *rest)]
        torch.testing.assert_close(ours(*copies).clone(), wanted)
        copies[2][:, 0] = copies[2][:, 1]  # in place: what was remembered of these edges no longer holds
        torch.testing.assert_close(ours(*copies).clone(), theirs(*copies).clone())
