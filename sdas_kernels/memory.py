"""Memory of CPU kernels, kept between calls.

PyTorch gives large arrays on a CPU back to the system, and pages that the system has just given are slow to touch:
clearing them takes longer than most of these kernels take to fill them. So each thread keeps what its kernels wrote
last, up to a bound, and a result may lie where an earlier one lay that nobody has any more. Scratch beyond the bound is
lent to the system while no kernel runs, which takes it back only when it is short of memory.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdas_kernels import native
from sdas_kernels.arguments import whole_number

# Bytes of an array that is worth keeping. Smaller ones the C library gives out well: what was freed last and is still
# in the caches, whoever had it. Between the two sizes it may give them back to the system in every step; so there what
# it gives out is taken if it has pages.
SMALLEST, LARGE = 1 << 20, 1 << 22
_keep = 1 << 29


class _Kept(threading.local):
    scratch: Tensor | None = None

    def __init__(self) -> None:
        self.storages: list[torch.UntypedStorage] = []  # the last used one at the end


_kept = _Kept()


def keep(size: int) -> None:
    """Let each thread keep so many bytes at most (512 MiB if this is not called), and as many again for scratch.

    Larger scratch stays too where the system can have it back whenever it needs memory, as Linux can.

    Raises:
        TypeError, ValueError: size is no whole number, or negative.
    """
    global _keep
    _keep = whole_number("memory.keep", "size", size, 0)
    release()


def release() -> None:
    """Give back what this thread keeps and nobody has."""
    _kept.scratch = None
    _kept.storages.clear()


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Contiguous, of the dtype and on the device of `like`, and uninitialized, as `torch.empty`."""
    size = math.prod(shape) * like.element_size()
    if size < SMALLEST or not like.is_cpu:
        return like.new_empty(shape)
    if size < LARGE and native.available()[0]:
        array = like.new_empty(shape)
        if native.extension().has_pages(array.data_ptr(), size):
            return array
        del array
    size = _rounded(size)
    if size > _keep:
        return like.new_empty(shape)
    storage = _free(size)
    _kept.storages.append(storage)
    return like.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]


def empty_like(like: Tensor) -> Tensor:
    """Of the shape, dtype and device of `like`, contiguous and uninitialized."""
    return empty(like.shape, like)


def scratch(size: int) -> Tensor:
    """So many bytes or more, whose content nobody needs when the call ends, with `end_scratch`."""
    kept = _kept.scratch
    if kept is None or kept.shape[0] < size:
        _kept.scratch = None  # before there is another
        kept = _kept.scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
    return kept


def end_scratch() -> None:
    """Lend this thread's scratch to the system if it is larger than what is kept, or give it back."""
    kept = _kept.scratch
    if kept is None or len(kept) <= _keep:
        return
    if not native.extension().lend_pages(kept.data_ptr(), len(kept)):
        _kept.scratch = None


def _rounded(size: int) -> int:
    """To a multiple of an eighth of the power of two below: numbers of edges vary from step to step."""
    step = 1 << (size.bit_length() - 4)
    return -(-size // step) * step


def _free(size: int) -> torch.UntypedStorage:
    """A kept array of this size that nobody has, no longer in the list, or a new one."""
    storages = _kept.storages
    for place in range(len(storages) - 1, -1, -1):
        if storages[place].nbytes() == size and _nobody_has(storages, place):
            return storages.pop(place)
    total = size + sum(storage.nbytes() for storage in storages)
    while total > _keep:
        total -= storages.pop(0).nbytes()
    return torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()


def _nobody_has(storages: list[torch.UntypedStorage], place: int) -> bool:
    """Neither a tensor, nor a variable, nor another process."""
    storage_id = storages[place]._cdata
    alone = torch._C._storage_Use_Count(storage_id) == 1 and _references(storages, place) == _ALONE
    return alone and not storages[place].is_shared()


def _references(objects: list[Any], place: int) -> int:
    return sys.getrefcount(objects[place])


_ALONE = _references([object()], 0)
