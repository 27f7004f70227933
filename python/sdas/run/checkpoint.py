"""Models and training states on disk: a directory with tensors (safetensors) and a JSON that describes them.

Nothing is ever unpickled. A directory is written by :func:`sdas.files.new_folder`, so a reader finds all of it or
nothing, and a full disk leaves what was there. The JSON carries the SHA-256 of the tensor file, the versions that wrote
it, and a checksum of itself (:mod:`sdas.documents`): an edited model is not the one that was trained, and is refused.

    model/        model.safetensors, model.json            save_model, load_model
    checkpoints/  step-000000500/state.safetensors, .json  save_training_state, load_training_state
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from sdas.documents import check_seal, read_json, write_document
from sdas.errors import CheckpointError
from sdas.files import new_folder, recover
from sdas.version import __version__
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.clebsch_gordan import VERSION as CLEBSCH_GORDAN_VERSION

MODEL_FORMAT, TRAINING_FORMAT = "sdas model", "sdas training state"
FORMAT_VERSION = 2
KEPT = 2
"""Training states that are kept: the last, and one to fall back on."""

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def versions() -> dict[str, Any]:
    """What wrote a file: versions of this package, of torch, and of the Clebsch–Gordan tables."""
    return {"sdas": __version__, "torch": torch.__version__, "clebsch_gordan": CLEBSCH_GORDAN_VERSION}


def save_model(path: str | os.PathLike[str], model: nn.Module, extra: Mapping[str, Any] | None = None) -> None:
    """Write ``model`` to the directory ``path``, replacing a model there.

    ``model`` is an ``SDAS``: its ``config`` rebuilds it. ``extra`` is any JSON that describes it, given back by
    :func:`read_model_document`. Raises :class:`CheckpointError` if it cannot be written, or if ``path`` holds other
    files than those of a model.
    """
    dtype = next(model.parameters()).dtype
    document = {
        "model": type(model).__name__,
        "config": model.config,
        "dtype": str(dtype).removeprefix("torch."),
        "extra": dict(extra or {}),
    }
    _write(Path(path), "model", MODEL_FORMAT, model.state_dict(), document)


def read_model_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON of a saved model: config, dtype, versions and ``extra``; raises :class:`CheckpointError`."""
    return _read_document(Path(path), "model", MODEL_FORMAT)


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> nn.Module:
    """The ``SDAS`` that :func:`save_model` wrote to the directory ``path``, in eval mode.

    Raises :class:`CheckpointError` naming the file and what is wrong: missing, truncated, changed, of a format or of
    Clebsch–Gordan tables that this version cannot read, or not fitting the model.
    """
    import sdas_kernels.nn

    folder = Path(path)
    document = _read_document(folder, "model", MODEL_FORMAT)
    tensors = _read_tensors(folder, "model", document)
    if document.get("model") != "SDAS" or document.get("dtype") not in _DTYPES:
        raise CheckpointError(
            f"{folder / 'model.json'}: holds a {document.get('model')!r} of {document.get('dtype')!r}, "
            "this version loads 'SDAS' of float32 or float64"
        )
    try:
        _check_sizes(document["config"], tensors)
        model = sdas_kernels.nn.SDAS(**document["config"]).to(_DTYPES[document["dtype"]])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: the tensors do not fit the model: {' '.join(str(error).split())}") from None
    return model.to(device).eval()


def _check_sizes(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError, before room is made for them, if a model of ``config`` has more weights than there are.

    Each layer maps channels to channels, and to queries of every head; each head weighs the radial functions.
    """
    names = ("channels", "heads", "layers", "n_radial", "key_channels")
    channels, heads, layers, n_radial, key_channels = (int(config.get(name, 1)) for name in names)
    needed = max(layers * channels * (channels + heads * key_channels), heads * n_radial)
    if config.get("lmax", 0) > LMAX:
        raise ValueError(f"lmax is {config['lmax']}, this version knows degrees up to {LMAX}")
    there = sum(tensor.numel() for tensor in tensors.values())
    if needed > there:
        raise ValueError(f"the sizes in model.json ask for {needed} weights or more, {there} are there")


@dataclass(frozen=True)
class TrainingState:
    """All that a run needs to go on: named tensors, and JSON for the rest. ``step`` is that of the next step."""

    step: int
    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]


def save_training_state(folder: str | os.PathLike[str], state: TrainingState) -> Path:
    """Write ``state`` to ``folder/step-…`` and remove all but the last two; returns the directory.

    Raises :class:`CheckpointError` if it cannot be written; those already there stay valid.
    """
    root = Path(folder)
    target = root / f"step-{state.step:09d}"
    _write(target, "state", TRAINING_FORMAT, state.tensors, {"step": state.step, "state": state.document})
    for old in _training_folders(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_training_state(folder: str | os.PathLike[str]) -> TrainingState | None:
    """The newest valid state in ``folder``, or None if there is none at all.

    A damaged newest state is warned about and the one before it is taken. Raises :class:`CheckpointError` if there
    are states and none is valid.
    """
    faults = []
    for candidate in reversed(_training_folders(Path(folder))):
        try:
            document = _read_document(candidate, "state", TRAINING_FORMAT)
            tensors = _read_tensors(candidate, "state", document)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            warnings.warn(
                f"CHECKPOINT DAMAGED: {'; '.join(faults)}. Going on from the one before it, {candidate}", stacklevel=2
            )
        return TrainingState(int(document["step"]), tensors, document["state"])
    if faults:
        raise CheckpointError(f"no checkpoint can be used: {'; '.join(faults)}")
    return None


def _training_folders(root: Path) -> list[Path]:
    """Folders of training states by step."""
    found = {int(path.name[5:]): path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdecimal()}
    return [found[step] for step in sorted(found)]


def check_place(path: str | os.PathLike[str], stem: str = "model") -> None:
    """Raise :class:`CheckpointError` if a model saved to ``path`` would replace a directory with other files."""
    names = set(os.listdir(path)) if os.path.isdir(path) else set()
    foreign = sorted(names - {f"{stem}.safetensors", f"{stem}.json"})
    if foreign:
        raise CheckpointError(f"{path}: holds {foreign[0]}, which saving would remove: move it elsewhere")


def _write(
    target: Path, stem: str, kind: str, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Write both files to a folder that becomes ``target`` once it is complete and on disk."""
    content = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    head = {"format": kind, "format_version": FORMAT_VERSION, "versions": versions()}
    head |= {"tensors": f"{stem}.safetensors", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    check_place(target, stem)
    try:
        with new_folder(target) as partial:
            (partial / f"{stem}.safetensors").write_bytes(content)
            write_document(partial / f"{stem}.json", {**head, **document})
    except OSError as error:
        raise CheckpointError(
            f"{target}: could not be written: {error.strerror or error}; what was saved before it is unchanged"
        ) from None


def _read_document(folder: Path, stem: str, kind: str) -> dict[str, Any]:
    path = folder / f"{stem}.json"
    recover(folder)
    document = read_json(path, CheckpointError)
    if document.get("format") != kind:
        raise CheckpointError(f"{path}: is not a {kind}")
    if document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {document.get('format_version')}, this version reads {FORMAT_VERSION}"
        )
    check_seal(document, path, CheckpointError)
    tables = document["versions"]["clebsch_gordan"]
    if tables != CLEBSCH_GORDAN_VERSION:
        raise CheckpointError(
            f"{path}: made with Clebsch–Gordan tables of version {tables}, these are {CLEBSCH_GORDAN_VERSION}: "
            "the weights would mean something else"
        )
    return document


def _read_tensors(folder: Path, stem: str, document: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    path = folder / f"{stem}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) != document.get("bytes"):
        raise CheckpointError(f"{path}: truncated: {len(content)} bytes, {stem}.json says {document.get('bytes')}")
    if hashlib.sha256(content).hexdigest() != document.get("sha256"):
        raise CheckpointError(f"{path}: damaged: its SHA-256 is not the one in {stem}.json")
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from None
