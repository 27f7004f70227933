"""What the weights of a module mean: kept with its state dict, and compared before the weights of another are taken.

Weights of the same shapes may mean something else: rows of an embedding other elements, radial functions another
cutoff, columns of a matrix other paths. PyTorch keeps a dictionary beside the tensors of a state dict, which
`torch.save` writes too. There the meaning stands, so a state dict has no further keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_KEY = "sdas_kernels"


def as_tensor(meaning: Mapping[str, Any]) -> torch.Tensor:
    """As bytes of JSON, for files that hold tensors and nothing beside them."""
    return torch.tensor(list(json.dumps(meaning).encode()), dtype=torch.uint8, device="cpu")


def from_tensor(written: torch.Tensor) -> dict[str, Any]:
    """What `as_tensor` was given."""
    meaning: dict[str, Any] = json.loads(bytes(written.tolist()))
    return meaning


class WithMeaning(nn.Module):
    """A module whose weights can be loaded only where they mean the same.

    `load_state_dict` raises `RuntimeError` and leaves the module as it was if what is known of the weights' meaning is
    another. A state dict without it, as one of an older version or of e3nn, is taken as it is.
    """

    def meaning(self) -> dict[str, Any]:
        """By name, in plain Python: everything that weights of the same shapes depend on."""
        raise NotImplementedError

    def meaning_of(self, state_dict: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known of the meaning of weights that are about to be loaded."""
        known: Mapping[str, Any] = metadata.get(_KEY, {})
        return known

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        beside = getattr(destination, "_metadata", {}).get(prefix[:-1])
        if beside is not None:
            beside[_KEY] = self.meaning()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
    ) -> None:
        given, own = self.meaning_of(state_dict, prefix, local_metadata), self.meaning()
        others = [
            f"{name} {_short(given[name])} there, {_short(own[name])} here"
            for name in own
            if given.get(name, own[name]) != own[name]
        ]
        if others:
            where = f" of {prefix[:-1]}" if prefix else ""
            raise RuntimeError(
                f"{type(self).__name__}: the weights{where} in this state dict mean something else: {'; '.join(others)}"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
