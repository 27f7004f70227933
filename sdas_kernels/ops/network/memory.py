"""Memory that a thread keeps between calls: pages that the system has just given are slow to touch.

A molecule's training step would spend a tenth of its time on them. No more than `KEPT_BYTES` are kept of either kind.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

KEPT_BYTES = 1 << 28


class _Kept(threading.local):
    scratch: Tensor | None = None
    state: torch.UntypedStorage | None = None


_kept = _Kept()


def release() -> None:
    """Give back what this thread keeps."""
    _kept.scratch = _kept.state = None


def scratch(count: int, like: Tensor) -> Tensor:
    """Numbers that are forgotten when the call ends."""
    size = count * like.element_size()
    if size > KEPT_BYTES:
        return like.new_empty(count)
    if _kept.scratch is None or len(_kept.scratch) < size:
        _kept.scratch = torch.empty(size, dtype=torch.uint8)
    return _kept.scratch[:size].view(like.dtype)


def state(count: int, like: Tensor) -> Tensor:
    """Numbers that live as long as the tensor; the next one may lie where one lay that nobody has any more."""
    size = count * like.element_size()
    kept = _kept.state
    if kept is not None and torch._C._storage_Use_Count(kept._cdata) > 1:
        return like.new_empty(count)
    if kept is None or kept.nbytes() < size:
        found = like.new_empty(count)
        if size <= KEPT_BYTES:
            _kept.state = found.untyped_storage()
        return found
    return like.new_empty(0).set_(kept, 0, (count,), (1,))  # type: ignore[call-overload]
