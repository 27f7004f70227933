"""Which node receives from which: the index tensors that every operator on a graph takes.

Compiled kernels go where an index points, so an `EdgeIndex` is checked once, where it is made. What builds one in the
right order itself makes it by `EdgeIndex.of_checked`. Each use looks whether a tensor was written to since: that costs
less than a microsecond, and then, only then, all is checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from sdas_kernels.arguments import has_values, index_tensor, whole_number

_HOW_TO_SORT = (
    "sort all that has a row per edge: order = torch.argsort(receivers, stable=True), then receivers[order], "
    "senders[order], and the edge vectors, weights, .. by the same order"
)


def versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    """How often each was written to in place."""
    return [tensor._version for tensor in tensors]


def counted(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy if it was made in inference mode and does not count how often it is written to."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


@dataclass(frozen=True, eq=False)
class EdgeIndex:
    """Which node receives from which, in both orders. Made by `from_pairs`, or of the five tensors.

    receivers, senders [E]: sorted by receiver. row_ptr [N+1]: first edge of each receiver.
    sender_order [E]: the edges sorted by sender (stable). sender_ptr [N+1]: first place in `sender_order` of each.

    Any integers, of any strides, are copied to int64. Numbers written into a tensor later are checked when next used.

    Raises:
        TypeError, ValueError: a tensor is of the wrong kind, shape, device or order, or an index is out of range.
    """

    receivers: torch.Tensor
    senders: torch.Tensor
    row_ptr: torch.Tensor
    sender_order: torch.Tensor
    sender_ptr: torch.Tensor
    _versions: ClassVar[list[int] | None] = None  # of an instance: those of its tensors when they were checked

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # what is compiled has no numbers; they are checked where it comes out
            return
        for name in _NAMES:
            object.__setattr__(self, name, index_tensor("EdgeIndex", name, getattr(self, name)))
        self._check()

    @classmethod
    def from_pairs(cls, receivers: torch.Tensor, senders: torch.Tensor, num_nodes: int) -> EdgeIndex:
        """From pairs `[E]`, `[E]` already sorted by receiver, since what edges carry has their order.

        Raises:
            TypeError, ValueError: no integers `[E]`, not on one device, not sorted, or not 0..num_nodes-1.
        """
        if torch.compiler.is_compiling():
            return cls.of_sorted(receivers, senders, num_nodes)
        num_nodes = whole_number("EdgeIndex", "num_nodes", num_nodes, 0)
        receivers, senders = (
            index_tensor("EdgeIndex", name, t) for name, t in (("receivers", receivers), ("senders", senders))
        )
        _check_places({"receivers": receivers, "senders": senders})
        if not has_values(receivers):
            raise ValueError(f"EdgeIndex: receivers must have numbers, got a tensor on {receivers.device} without")
        _check_pairs(receivers, senders, num_nodes)
        return cls.of_sorted(receivers, senders, num_nodes)

    @classmethod
    def of_sorted(cls, receivers: torch.Tensor, senders: torch.Tensor, num_nodes: int) -> EdgeIndex:
        """From pairs that are known to be as `from_pairs` wants them; nothing is looked at."""
        order = torch.argsort(senders, stable=True)
        pointers = (_pointers(receivers, num_nodes), _pointers(senders, num_nodes))
        return cls.of_checked(receivers, senders, pointers[0], order, pointers[1])

    @classmethod
    def of_checked(cls, *tensors: torch.Tensor) -> EdgeIndex:
        """Of five tensors that are known to be as the class wants them; nothing is looked at."""
        edges = object.__new__(cls)
        for name, tensor in zip(_NAMES, tensors, strict=True):
            object.__setattr__(edges, name, counted(tensor))
        edges.accept()
        return edges

    def accept(self) -> None:
        """Take what was written into the tensors for right, where a writer knows that it is."""
        if not torch.compiler.is_compiling():
            object.__setattr__(self, "_versions", versions(self._tensors()))

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.row_ptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """E."""
        return self.receivers.shape[0]

    def tensors(self) -> list[torch.Tensor]:
        """The five index tensors in the order in which operators take them.

        Raises `ValueError` where one was written to and does not fit any more.
        """
        index = self._tensors()
        if not torch.compiler.is_compiling() and self._versions != [t._version for t in index]:
            self._check()
        return index

    def _tensors(self) -> list[torch.Tensor]:
        return [self.receivers, self.senders, self.row_ptr, self.sender_order, self.sender_ptr]

    def _check(self) -> None:
        index = dict(zip(_NAMES, self._tensors(), strict=True))
        receivers, senders, row_ptr, order, sender_ptr = index.values()
        _check_places(index)
        e, n = self.num_edges, self.num_nodes
        if n < 0:
            raise ValueError("EdgeIndex: row_ptr must be [N + 1] and starts with 0, got no numbers")
        sizes = (("senders", e, "receivers"), ("sender_order", e, "receivers"), ("sender_ptr", n + 1, "row_ptr"))
        for name, size, like in sizes:
            if len(index[name]) != size:
                raise ValueError(f"EdgeIndex: {name} must be [{size}] as {like} is, got {list(index[name].shape)}")
        if has_values(receivers):
            _check_pairs(receivers, senders, n)
            wanted = {
                "row_ptr": (row_ptr, _pointers(receivers, n), "say where the edges of each receiver begin"),
                "sender_ptr": (sender_ptr, _pointers(senders, n), "say where the edges of each sender begin"),
                "sender_order": (order, torch.argsort(senders, stable=True), "sort the edges by sender, stably"),
            }
            for name, (given, right, task) in wanted.items():
                if not torch.equal(given, right):
                    raise ValueError(
                        f"EdgeIndex: {name} does not {task}: make it by EdgeIndex.from_pairs(receivers, senders, N)"
                    )
        self.accept()


_NAMES = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")


def _check_places(index: dict[str, torch.Tensor]) -> None:
    """All tensors are on one device."""
    device = index["receivers"].device
    for name, tensor in index.items():
        if tensor.device != device:
            raise ValueError(f"EdgeIndex: {name} is on {tensor.device} but receivers is on {device}")


def _check_pairs(receivers: torch.Tensor, senders: torch.Tensor, num_nodes: int) -> None:
    """As many of both, within the nodes, sorted by receiver."""
    if len(receivers) != len(senders):
        raise ValueError(f"EdgeIndex: senders must be [{len(receivers)}] as receivers is, got {list(senders.shape)}")
    if not has_values(receivers) or not len(receivers):
        return
    for name, index in (("receivers", receivers), ("senders", senders)):
        low, high = torch.stack(index.aminmax()).tolist()
        if low < 0 or high >= num_nodes:
            wanted = f"0..{num_nodes - 1}" if num_nodes else "empty"
            raise ValueError(
                f"EdgeIndex: {name} must be {wanted} for {num_nodes} nodes, got {low if low < 0 else high}"
            )
    if bool((receivers[1:] < receivers[:-1]).any()):
        raise ValueError(f"EdgeIndex: receivers must be sorted in ascending order; {_HOW_TO_SORT}")


def _pointers(index: torch.Tensor, num_nodes: int) -> torch.Tensor:
    """First place of each node in a sorted copy of `index`: `[N+1]`."""
    counts = torch.bincount(index, minlength=num_nodes)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
