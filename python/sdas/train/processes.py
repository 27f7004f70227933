"""Several processes that train one model, as torchrun starts them.

Gradients are summed by one all-reduce of a flat buffer, not by `DistributedDataParallel`. Its hooks are made for one
backward pass that reaches every parameter: here the forces are a gradient taken inside the forward pass, some
parameters get none, and a mean over processes would weigh them equally though they hold different numbers of atoms.
Each process divides its sums by the sizes of the global batch, which it knows, so the sum over processes is exactly
the gradient that one process would have, and models this small have nothing to gain from overlapping communication.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import distributed as dist

from sdas.run.device import find_device


class Processes:
    """This process among ``size``, with index ``rank``; alone unless torchrun set WORLD_SIZE. A context manager."""

    def __init__(self, device: str) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = _device(device, int(os.environ.get("LOCAL_RANK", 0)) if self.size > 1 else None)
        self._started = False

    def __enter__(self) -> Processes:
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over processes, in float64."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return summed.tolist()

    def sum_gradients(self, parameters: Sequence[torch.Tensor], values: Sequence[float]) -> list[float]:
        """Replace every gradient by its sum over processes; also returns the sums of ``values``.

        The values travel in the same buffer, in the dtype of the gradients.
        """
        if self.size == 1:
            return list(values)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        extra = gradients[0].new_tensor(values)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), extra])
        dist.all_reduce(flat)
        parts = flat.split([*(g.numel() for g in gradients), len(values)])
        for gradient, part in zip(gradients, parts[:-1], strict=True):
            gradient.copy_(part.view_as(gradient))
        return parts[-1].tolist()


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = find_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if local_rank is not None else (device.index or 0))
        torch.cuda.set_device(device)
    return device
