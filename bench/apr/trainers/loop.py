"""The training of a peer: its own network, loss and optimizers, in a loop that is the same for all.

    energy = shift · N + scale · network's        shift: mean energy per atom, scale: RMS of the training forces

The rate falls to zero as a cosine over the steps that the budget pays for; averages start fast, as ours. A step is
forward, backward and optimizer, all counted; the averaged weights are tested. The number of atoms of a task is the same
in all frames, so the FLOPs of a step are affine in its edges: a few steps are counted for it, then one in a hundred.
"""

from __future__ import annotations

import copy
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from apr.trainers.frames import Arrays, Frames
from sdas_kernels.flops import FlopCounter

Augment = Callable[[Arrays, np.random.Generator], Arrays]
CHECKED_EVERY = 100


@dataclass
class Peer:
    """A built network and what its authors do with it.

    network: what is trained. load: arrays of a batch → its inputs. evaluate: network, inputs, and whether the result is
    differentiated again → energies `[B]` and forces `[N, 3]`, without scale and shift. loss: energies and forces
    predicted, energies and forces wanted, in units of the scale, and atoms per frame → one number. optimizer: name and
    rate → optimizer. ema_decay: of the average. clip_norm: of gradients, or None. settings: what was set, and why.
    """

    network: nn.Module
    load: Callable[[Arrays], Any]
    evaluate: Callable[[nn.Module, Any, bool], tuple[torch.Tensor, torch.Tensor]]
    loss: Callable[..., torch.Tensor]
    optimizer: Callable[[str, float], torch.optim.Optimizer]
    ema_decay: float
    clip_norm: float | None
    packages: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    augment: Augment | None = None


class Training:
    """One training run of a peer on the frames of a task."""

    def __init__(self, peer: Peer, train: Frames, optimizer: str, rate: float, batch: int, seed: int) -> None:
        self.peer, self.train, self.batch = peer, train, batch
        self.optimizer = peer.optimizer(optimizer, rate)
        for group in self.optimizer.param_groups:
            group["largest"] = group["lr"]
        self.averaged = copy.deepcopy(peer.network)
        self.random = np.random.default_rng(seed)
        self.counted: list[tuple[int, int]] = []
        self.worst, self.steps = 0.0, 0
        self._epoch: list[int] = []

    def step(self, fraction: float, count: bool) -> int:
        """One step at this fraction of the run; the edges of its batch."""
        arrays = self.train.batch(self._next())
        if self.peer.augment is not None:
            arrays = self.peer.augment(arrays, self.random)
        edges, counter = len(arrays["receivers"]), FlopCounter() if count else None
        inputs = self.peer.load(arrays)
        for group in self.optimizer.param_groups:
            group["lr"] = group["largest"] * 0.5 * (1 + math.cos(math.pi * fraction))
        if counter is not None:
            with counter:
                self._update(inputs, arrays)
            self._note(edges, counter)
        else:
            self._update(inputs, arrays)
        self.steps += 1
        decay = min(self.peer.ema_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.peer.network.parameters()), 1 - decay)
        return edges

    def _update(self, inputs: Any, arrays: Arrays) -> None:
        peer, scale, atoms = self.peer, self.train.force_rms, len(self.train.numbers)
        self.optimizer.zero_grad()
        energy, forces = peer.evaluate(peer.network, inputs, True)
        wanted = (arrays["energies"] - atoms * self.train.energy_mean) / scale, arrays["forces"] / scale
        wanted_energy, wanted_forces = (torch.as_tensor(array, dtype=energy.dtype) for array in wanted)
        loss = peer.loss(energy, forces, wanted_energy, wanted_forces, atoms)
        if not torch.isfinite(loss):
            raise FloatingPointError("the loss is not finite: the training diverged")
        loss.backward()
        if peer.clip_norm is not None:
            nn.utils.clip_grad_norm_(peer.network.parameters(), peer.clip_norm)
        self.optimizer.step()

    def _note(self, edges: int, counter: FlopCounter) -> None:
        if counter.unknown:
            raise RuntimeError(f"operators without a rule for their FLOPs: {dict(counter.unknown)}")
        if len({known for known, _ in self.counted}) > 1:
            expected = self.flops(edges)
            self.worst = max(self.worst, abs(expected - counter.total) / counter.total)
        self.counted.append((edges, counter.total))

    def flops(self, edges: float) -> float:
        """Of a step with so many edges."""
        x, y = np.array(self.counted, float).T
        if len(set(x.tolist())) == 1:
            return float(y.mean())
        slope, offset = np.polyfit(x - x.mean(), y, 1)
        return float(offset + slope * (edges - x.mean()))

    def _next(self) -> list[int]:
        if len(self._epoch) < self.batch:
            self._epoch = self.random.permutation(len(self.train)).tolist()
        taken, self._epoch = self._epoch[: self.batch], self._epoch[self.batch :]
        return taken


def errors(peer: Peer, network: nn.Module, frames: Frames, train: Frames, batch: int) -> dict[str, float]:
    """Mean absolute errors, and root mean squares: energies meV, force components meV/Å."""
    scale, shift = train.force_rms, train.energy_mean * len(train.numbers)
    energy, forces = [], []
    network.eval()
    for first in range(0, len(frames), batch):
        arrays = frames.batch(list(range(first, min(first + batch, len(frames)))))
        found = peer.evaluate(network, peer.load(arrays), False)
        e, f = (tensor.detach().double().numpy() for tensor in found)
        energy.append(e * scale + shift - arrays["energies"])
        forces.append((f * scale - arrays["forces"]).ravel())
    return summarized(np.concatenate(energy), np.concatenate(forces))


def summarized(energy: np.ndarray, forces: np.ndarray) -> dict[str, float]:
    """Of errors in eV and eV/Å."""
    return {
        "energy_mae_mev": 1e3 * float(np.abs(energy).mean()),
        "energy_rmse_mev": 1e3 * float(np.sqrt(np.square(energy).mean())),
        "force_mae_mev_per_ang": 1e3 * float(np.abs(forces).mean()),
        "force_rmse_mev_per_ang": 1e3 * float(np.sqrt(np.square(forces).mean())),
    }


def train(build: Callable[..., Peer], cell: dict[str, Any], path: Any) -> dict[str, Any]:
    """Train and test one cell; `build` takes the training frames and the seed."""
    recipe, budget = cell["recipe"], cell["budget"]
    torch.manual_seed(cell["seed"])
    frames, validation = Frames.read(path, "train"), Frames.read(path, "validation")
    peer = build(frames, cell["seed"])
    peer.network.train()
    training = Training(peer, frames, recipe["optimizer"], recipe["rate"], recipe["batch"], cell["seed"])
    start, cpu, spent, steps, curve = time.monotonic(), time.process_time(), 0.0, 0, []
    edges = recipe["batch"] * frames.neighbors * len(frames.numbers)
    while spent < budget:
        count = steps < 4 or steps % CHECKED_EVERY == 0
        seen = training.step(spent / budget, count)
        if steps == 0:
            training.counted.clear()  # a first step may do work that is done once
        else:
            spent += training.flops(seen)
        steps += 1
        if steps % max(1, round(budget / training.flops(edges) / 20) if training.counted else 1) == 0 and steps > 4:
            found = errors(peer, training.averaged, validation, frames, 10)
            curve.append({"flops": spent, "step": steps, **found})
            print(f"{spent / budget:4.0%} step {steps}: {found['force_mae_mev_per_ang']:.1f} meV/Å", flush=True)
    wall_s, cpu_s = time.monotonic() - start, time.process_time() - cpu
    tested = Frames.read(path, "test")
    return {
        "validation": errors(peer, training.averaged, validation, frames, 10),
        "test": None if cell["search"] else errors(peer, training.averaged, tested, frames, 10),
        "train_flops": spent,
        "flops_residual": training.worst,
        "steps": steps,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "parameters": sum(p.numel() for p in peer.network.parameters() if p.requires_grad),
        "inference_flops_per_atom": inference_flops(peer, training.averaged, tested),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "curve": curve,
        "settings": peer.settings,
        "packages": peer.packages,
    }


def inference_flops(peer: Peer, network: nn.Module, frames: Frames) -> float:
    """Of energies and forces of one frame, per atom; the second evaluation, since a first may do more."""
    network.eval()
    for _ in range(2):
        inputs = peer.load(frames.batch([0]))
        with FlopCounter() as counter:
            peer.evaluate(network, inputs, False)
    return counter.total / len(frames.numbers)


def per_atom_loss(
    energy: torch.Tensor, forces: torch.Tensor, wanted_energy: torch.Tensor, wanted_forces: torch.Tensor, atoms: int
) -> torch.Tensor:
    """Mean squares of errors of energies per atom and of force components, 1 : 1."""
    return ((energy - wanted_energy) / atoms).square().mean() + (forces - wanted_forces).square().mean()
