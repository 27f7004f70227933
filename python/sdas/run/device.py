"""Find the device that a user names."""

from __future__ import annotations

import torch

from sdas.errors import SdasError


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name: cpu, cuda or cuda:1; raises SdasError if there is no such device here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SdasError(f"device {name}: cannot be used here: {reason}") from None
    if device.type not in ("cpu", "cuda"):
        raise SdasError(f"device {name}: models run on cpu or cuda")
    return device
