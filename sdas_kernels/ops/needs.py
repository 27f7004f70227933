"""Gradients that are made only where they are needed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def asked_for(gradients: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """The gradients that were needed, None for the others."""
    return [gradient if need else None for gradient, need in zip(gradients, needs, strict=True)]


def like(operands: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    """Gradients to be, of no elements where not needed: an operator returns the same number of tensors always."""
    return [t.new_empty(t.shape if need else 0) for t, need in zip(operands, needs, strict=True)]
