"""The optimizers of a training run: Adam, AdamW, and Muon for matrices beside AdamW for all other weights.

Muon is Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon). The size of its steps is that of Liu et al. 2025, arXiv 2502.16982.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from sdas.config import TrainConfig
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention

MOMENTUM = 0.95
BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of AdamW, PyTorch's defaults."""
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of a·s + b·s³ + c·s⁵, which raises small singular values fastest and keeps others near 1."""
QUINTIC_STEPS = 3
"""Muon's authors take five. With three, ethanol and aspirin learn as much per step, for half the FLOPs of an update."""
SMALLEST_NORM = 1e-7
UPDATE_RMS = 0.2
"""Of an update over its rate, about that of Adam's, so that one rate suits both."""


def make_optimizer(settings: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every weight of an SDAS model; its groups carry `relative_rate`, their rate over the largest."""
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "muon":
        adam_rate = rate / 2 if settings.adam_learning_rate is None else settings.adam_learning_rate
        optimizer = Muon(
            *matrices_and_others(model),
            lr=rate,
            adam_lr=adam_rate,
            weight_decay=decay,
            logits=makers_of_logits(model),
            logit_decay=settings.logit_decay,
        )
    elif settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    for group in optimizer.param_groups:
        group["relative_rate"] = group["lr"] / rate
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of the largest rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["relative_rate"]


def matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of an SDAS model that map features to features, `[.., m, n]`, and all the others.

    Matrices of a default layer: attention.logits, .direction_query, .value, .mixing; product.mixing; update.mlp.0,
    .mlp.2, .gated.
    Others beside it: embedding, readouts, biases, attention.radial_gain and .path_weight.
    Matrices of a paper layer: query, key, direction_query, scalar_value, mixing.
    Others beside it: embedding, readouts, first_features.radial.

    So others are vectors, factors of single channels, functions of the distance, and what meets species or energies.
    """
    chosen: set[torch.Tensor] = set()
    for module in model.get_submodule("layers").modules():
        if isinstance(module, (nn.Linear, EquivariantLinear)):
            chosen.add(module.weight)
        elif isinstance(module, nn.ParameterList):  # a matrix per degree
            chosen.update(module)
    weights = list(model.parameters())
    return [weight for weight in weights if weight in chosen], [weight for weight in weights if weight not in chosen]


def makers_of_logits(model: nn.Module) -> list[nn.Parameter]:
    """Weights of a default layer by which features act on attention logits: attention.logits and .direction_query."""
    found: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, NeighborAttention):
            makers = (getattr(module, name, None) for name in ("logits", "direction_query"))
            found += [maker.weight for maker in makers if maker is not None]
    return found


def orthogonalized(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """About U Vᵀ of every slice U S Vᵀ of matrices `[.., m, n]`, by three Newton–Schulz steps a·X + b·XXᵀX + c·(XXᵀ)²X.

    Singular values of at least 1/50 of the slice's Frobenius norm come out between 0.68 and 1.21. Smaller ones come
    out smaller, as do all those of a slice of norm below 1e-7. Slices of one size, upright or lying, go together.
    """
    tall = [matrix.shape[-2] > matrix.shape[-1] for matrix in matrices]
    wide = [matrix.mT if turned else matrix for matrix, turned in zip(matrices, tall, strict=True)]
    of_size: dict[torch.Size, list[int]] = defaultdict(list)
    for index, matrix in enumerate(wide):
        of_size[matrix.shape[-2:]].append(index)
    for size, indices in of_size.items():
        slices = [wide[index].reshape(-1, *size) for index in indices]
        parts = _newton_schulz(torch.cat(slices)).split([len(part) for part in slices])
        for index, part in zip(indices, parts, strict=True):
            wide[index] = part.view(wide[index].shape)
    return [matrix.mT if turned else matrix for matrix, turned in zip(wide, tall, strict=True)]


def _newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """`[B, m, n]` with m ≤ n, so that X Xᵀ is the smaller product."""
    a, b, c = QUINTIC
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp_min(SMALLEST_NORM)
    for _ in range(QUINTIC_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for matrices, AdamW for other weights; one object, so one state dict.

        M ← β M + (1 − β) G                                     β = 0.95
        W ← (1 − η λ) W − 0.2 √max(m, n) η orthogonalized(β M + (1 − β) G)

    Args: matrices, weights `[.., m, n]`, taken slice by slice; others, of any shape; lr, the rate η of matrices;
    adam_lr, that of others; weight_decay, λ of both. A weight without a gradient stays.

    Steps of one size let logits grow without end: exp of them then holds on to a neighbor up to the cutoff, where the
    envelope must take it away within a thousandth of an Å. So `logits`, those of the matrices that make them, may have
    a decay `logit_decay` of their own, on top. (Kimi K2, arXiv 2507.20534, clips them for that reason.)

    Raises ValueError for matrices of less than two dimensions, and what PyTorch raises for a weight in both.
    """

    def __init__(
        self,
        matrices: Sequence[torch.Tensor],
        others: Sequence[torch.Tensor],
        lr: float,
        adam_lr: float,
        weight_decay: float = 0.0,
        logits: Sequence[torch.Tensor] = (),
        logit_decay: float = 0.0,
    ) -> None:
        for matrix in matrices:
            if matrix.ndim < 2:
                raise ValueError(f"Muon: matrices must be [.., m, n], got {list(matrix.shape)}")
        groups = [{"params": list(matrices), "lr": lr}, {"params": list(others), "lr": adam_lr, "fused": True}]
        super().__init__(groups, {"weight_decay": weight_decay})
        self._logits, self._logit_decay = list(logits) if logit_decay else [], logit_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change every weight that has a gradient; gives what `closure` gives, which is called before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, others = self.param_groups
        self._step_matrices(_with_gradient(matrices), matrices["lr"], matrices["weight_decay"])
        self._step_others(_with_gradient(others), others["lr"], others["weight_decay"])
        return loss

    def _step_matrices(self, weights: list[torch.Tensor], lr: float, weight_decay: float) -> None:
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        gradients = _gradients(weights)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        directions = orthogonalized(torch._foreach_lerp(gradients, momenta, MOMENTUM))
        if weight_decay:
            torch._foreach_mul_(weights, 1 - lr * weight_decay)
        logits = [weight for weight in self._logits if weight.grad is not None]
        if logits:
            torch._foreach_mul_(logits, 1 - lr * self._logit_decay)
        for weight, direction in zip(weights, directions, strict=True):
            weight.add_(direction, alpha=-lr * UPDATE_RMS * math.sqrt(max(weight.shape[-2:])))

    def _step_others(self, weights: list[torch.Tensor], lr: float, weight_decay: float) -> None:
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                step = torch.zeros((), dtype=torch.float32, device=weight.device)
                moments = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
                self.state[weight].update({"step": step, **moments})
        first, second, steps = (
            [self.state[weight][name] for weight in weights] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        adamw(
            weights, _gradients(weights), first, second, [], steps, fused=True, amsgrad=False, beta1=BETAS[0],
            beta2=BETAS[1], lr=lr, weight_decay=weight_decay, eps=EPSILON, maximize=False,
        )  # fmt: skip


def _with_gradient(group: dict[str, Any]) -> list[torch.Tensor]:
    return [weight for weight in group["params"] if weight.grad is not None]


def _gradients(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]
