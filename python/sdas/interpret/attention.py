"""The attention weights of every layer, by the reference formula, from the weights of the modules themselves.

A layer's module is called as ever, and what it is given is kept. From that its own `weights` makes α: of the default
layer f_c exp(e) / (exp(s) + Σ f_c exp(e)), of the paper's layer the plain softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdas.data import Frame
from sdas.data.graphs import graph_of, knows_states
from sdas.errors import SdasError
from sdas_kernels import use_backend
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS, NeighborAttention
from sdas_kernels.nn.paper import PaperAttention

FloatArray = NDArray[np.float64]


def attention_modules(model: torch.nn.Module) -> list[Any]:
    """The modules that attend, one per layer; raises SdasError for a model that has none."""
    found = [each for each in model.modules() if isinstance(each, NeighborAttention | PaperAttention)]
    if not isinstance(model, SDAS) or not found:
        raise SdasError(f"{type(model).__name__} has no attention that could be looked at: wanted is an SDAS model")
    return found


def attention_weights(model: Any, graph: NeighborGraph) -> list[torch.Tensor]:
    """α of every layer, each `[E, K]` in the order of the graph's edges, receiver i of edge i ← j first.

    The sum over the edges of a receiver is at most 1: the default layer's sink takes the rest.
    """
    with _calls_of(attention_modules(model)) as calls, torch.no_grad(), use_backend("reference"):
        model.features(graph, graph.edge_vectors(), model.kinds(graph))
        return [module.weights(*given) for module, given in calls]


def pair_attention(model: Any, frame: Frame) -> FloatArray:
    """How much atom i attends to atom j: `[layers, K, n, n]`, periodic images of j added up; zero beyond the cutoff.

    Raises SdasError for an element that the model does not know.
    """
    dtype = next(model.parameters()).dtype
    graph = graph_of(frame, float(model.cutoff), dtype, knows_states(model))
    alpha = torch.stack(attention_weights(model, graph)).double().permute(0, 2, 1)
    pair = graph.edges.receivers * len(frame) + graph.edges.senders
    summed = alpha.new_zeros(*alpha.shape[:2], len(frame) ** 2).index_add(2, pair, alpha)
    return summed.view(*alpha.shape[:2], len(frame), len(frame)).numpy()


def mean_attention(model: Any, frames: Sequence[Frame]) -> FloatArray:
    """The mean of :func:`pair_attention` over frames of the same atoms in the same order."""
    total = pair_attention(model, frames[0])
    for frame in frames[1:]:
        total += pair_attention(model, frame)
    return total / len(frames)


@contextmanager
def _calls_of(modules: Sequence[torch.nn.Module]) -> Iterator[list[tuple[Any, tuple[Any, ...]]]]:
    """The list of calls of the modules inside the block: the module, and the arguments that it was given."""
    calls: list[tuple[Any, tuple[Any, ...]]] = []
    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_pre_hook(lambda called, given: calls.append((called, given)))
            hooks.callback(hook.remove)
        yield calls
