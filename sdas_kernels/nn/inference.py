"""Derivatives inside of models in `torch.inference_mode`, where PyTorch records none, and of tensors made there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch

from sdas_kernels.graph import NeighborGraph


@contextmanager
def recording_allowed() -> Iterator[None]:
    """Inside, what asks for gradients can record them, in inference mode too."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def recordable(graph: NeighborGraph) -> NeighborGraph:
    """The graph; with copies of its floating parts if they were made in inference mode.

    Autograd keeps no such tensors. Indices and numbers are copied by the graph itself.
    """
    parts: dict[str, Any] = {field.name: getattr(graph, field.name) for field in fields(graph)}
    made = [name for name in ("positions", "cells", "cell_shifts", "charge", "spin") if _is_inference(parts[name])]
    if not made:
        return graph
    return NeighborGraph.of_checked(**parts | {name: parts[name].clone() for name in made})


def _is_inference(part: torch.Tensor | None) -> bool:
    return part is not None and part.is_inference()
