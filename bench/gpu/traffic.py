"""The fewest bytes that an operator must move through a GPU's memory, counted from the shapes of its arrays.

Each array is counted once, read or written. The arrays of nodes may fit in the cache, those of edges do not; where an
operator gathers rows of nodes over edges, a kernel without any cache would read them once per edge instead:
`gathered` counts the difference, so that both bounds can be reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

STEPS = ("forward", "backward", "double_backward")


def size(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes of all."""
    return sum(t.numel() * t.element_size() for t in tensors)


def ladder(operands: Sequence[torch.Tensor], result: torch.Tensor, index: Sequence[torch.Tensor]) -> dict[str, int]:
    """Bytes of each step of the derivative ladder of `result = op(operands)` on a graph with `EdgeIndex.tensors()`.

        forward            reads operands, senders and row_ptr; writes the result
        backward           reads operands, the index and the result's gradient; writes the operands' gradients
        double backward    reads what the backward does and the operands' tangents; writes gradients by all it reads
                           but these

    `index` is empty for an operator without a graph.
    """
    o, r = size(operands), size([result])
    return {
        "forward": o + r + size(index[1:3]),
        "backward": 2 * o + r + size(index),
        "double_backward": 3 * o + 2 * r + size(index),
    }


def gathered(
    sent: Sequence[torch.Tensor], received: Sequence[torch.Tensor], result: torch.Tensor, edges: int
) -> dict[str, int]:
    """Bytes that a ladder moves beyond `ladder` where every row of a node is read once per edge.

    sent: node arrays of which an edge needs the sender's row (value, key); received: those of which a sum over a
    sender's edges needs the receiver's row (query), as it does of the result's gradient.
    """
    nodes = len(result)
    of_sender, of_receiver = (size(tensors) * (edges - nodes) // max(1, nodes) for tensors in (sent, received))
    of_result = size([result]) * (edges - nodes) // max(1, nodes)
    return {
        "forward": of_sender,
        "backward": of_sender + of_receiver + of_result,
        "double_backward": 2 * (of_sender + of_receiver) + of_result,
    }


def shares(moved: int, milliseconds: float, roof: float) -> dict[str, float]:
    """What was moved, and its share of the copy rate `roof` in bytes per second."""
    return {"gb": round(moved / 1e9, 6), "share_of_roof": round(moved / (milliseconds / 1e3) / roof, 4)}
