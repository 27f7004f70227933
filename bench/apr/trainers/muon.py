"""Muon for networks that have none of their own: matrices, and the matrices within e3nn's flat linear weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

MOMENTUM, STEPS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)
UPDATE_RMS = 0.2


class SlicedMuon(torch.optim.Optimizer):
    """Orthogonalized momentum for matrices, Adam for all other weights of a network.

    Matrices are the weights `[m, n]` of modules other than embeddings, and the instructions of e3nn's `Linear`, which
    keeps them one after another in a flat weight. Its tensor products have no matrices.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; size of steps: arXiv 2502.16982.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.slices: dict[torch.Tensor, list[tuple[int, tuple[int, int]]]] = {}
        for module in network.modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, nn.Parameter) or isinstance(module, nn.Embedding):
                continue
            if weight.ndim == 2 and min(weight.shape) > 1:
                self.slices[weight] = [(0, (weight.shape[0], weight.shape[1]))]
            elif weight.ndim == 1 and hasattr(module, "instructions") and hasattr(module, "weight_numel"):
                slices = _instructions(module)
                if sum(m * n for _, (m, n) in slices) == weight.numel():
                    self.slices[weight] = slices
        others = [w for w in network.parameters() if w.requires_grad and w not in self.slices]
        self.adam = torch.optim.Adam([{"params": others, "lr": rate}])
        super().__init__([{"params": list(self.slices), "lr": rate}], {})
        self.param_groups += self.adam.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of all weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Change every weight that has a gradient."""
        rate = self.param_groups[0]["lr"]
        for weight in self.param_groups[0]["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            direction = torch.lerp(weight.grad, state["momentum"], MOMENTUM).flatten()
            for offset, (m, n) in self.slices[weight]:
                part = direction[offset : offset + m * n].view(m, n)
                size = rate * UPDATE_RMS * math.sqrt(max(m, n))
                weight.view(-1)[offset : offset + m * n].add_(_orthogonalized(part).flatten(), alpha=-size)
        self.adam.step()


def _instructions(module: Any) -> list[tuple[int, tuple[int, int]]]:
    found, offset = [], 0
    for instruction in module.instructions:
        shape = tuple(instruction.path_shape)
        if len(shape) == 2:
            found.append((offset, (int(shape[0]), int(shape[1]))))
        offset += math.prod(shape)
    return found


def _orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    a, b, c = COEFFICIENTS
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x
