"""What a result was made of: fingerprints of models and of data.

Every result carries those of the model and the data behind it (an evaluation, its predictions, the state of dynamics, a
report), so that what belongs to another model is told from what belongs to this one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from sdas.data import FrameCache
from sdas.data.cache_files import MANIFEST
from sdas.errors import SdasError
from sdas.files import file_sha256

StrPath = str | os.PathLike[str]
SHOWN = 12
"""Characters of a fingerprint that messages show."""


def model_fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of what a model computes: its class, its `config` if it has one, and its state dict.

    It is the same on every device, and before and after saving and loading.
    """
    digest = hashlib.sha256()
    head = {"class": type(model).__name__, "config": getattr(model, "config", None)}
    digest.update(json.dumps(head, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"\n{name} {json.dumps(value, sort_keys=True, default=str)}\n".encode())
    return digest.hexdigest()


def data_fingerprint(path: StrPath) -> str:
    """SHA-256 of a file, of the files in a folder, or the fingerprint that a frame cache states.

    Raises SdasError if it cannot be read.
    """
    place = Path(path)
    try:
        if not place.is_dir():
            return file_sha256(place)
        if (place / MANIFEST).is_file():
            return FrameCache.open(place).fingerprint
        files = sorted(file for file in place.rglob("*") if file.is_file())
        return joined({str(file.relative_to(place)): file_sha256(file) for file in files})
    except OSError as error:
        raise SdasError(f"{place}: cannot be read: {error.strerror}") from None


def data_fingerprints(paths: Iterable[StrPath]) -> dict[str, str]:
    """The fingerprint of each file or folder, by absolute path."""
    return {os.path.abspath(path): data_fingerprint(path) for path in paths}


def joined(parts: Mapping[str, str]) -> str:
    """One fingerprint of several, by name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
