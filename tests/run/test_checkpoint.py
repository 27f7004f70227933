"""What is on disk is whole or refused with a reason, and a failed write harms nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sdas_kernels as sk
from sdas import files
from sdas.documents import read_document, write_document
from sdas.errors import CheckpointError
from sdas.run import checkpoint
from sdas.run.checkpoint import TrainingState, load_model, load_training_state, save_model, save_training_state
from sdas.run.model import load_run_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = sk.nn.SDAS(species=[1, 8], channels=2, heads=1, lmax=1, layers=1, cutoff=3.0, n_radial=2)
    made.set_energy_reference({1: -13.6, 8: -2041.3}, 0.7)
    return made


def state(step: int) -> TrainingState:
    tensors = {"model.weight": torch.full((3, 2), float(step)), "rng.torch": torch.get_rng_state()}
    return TrainingState(step, tensors, {"position": step * 8, "python": [1, 2]})


def water() -> sk.NeighborGraph:
    return sk.NeighborGraph.build([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], [8, 1, 1], 3.0, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_comes_back_the_same(tmp_path, model, dtype):
    model.to(dtype).eval()
    save_model(tmp_path / "model", model, {"run": "x"})
    loaded = load_model(tmp_path / "model")
    assert not loaded.training
    graph = water().to(dtype=dtype)
    for name, value in model(graph).items():
        assert torch.equal(value, loaded(graph)[name])
    assert loaded.energy_shift.tolist() == [-13.6, -2041.3]
    document = checkpoint.read_model_document(tmp_path / "model")
    assert document["extra"] == {"run": "x"}
    assert set(document["versions"]) == {"sdas", "torch", "clebsch_gordan"}
    assert sorted(os.listdir(tmp_path)) == ["model"]


def test_saving_replaces_a_model(tmp_path, model):
    save_model(tmp_path / "model", model)
    with torch.no_grad():
        model.embedding.weight.fill_(3.0)
    save_model(tmp_path / "model", model)
    assert (load_model(tmp_path / "model").embedding.weight == 3).all()
    assert sorted(os.listdir(tmp_path)) == ["model"]


def damage_truncate(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def damage_flip(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def damage_json(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    path.write_text(path.read_text()[:40])


def damage_missing(folder: Path, stem: str) -> None:
    (folder / f"{stem}.safetensors").unlink()


def edit(**changes):
    """By hand: the checksum stays."""

    def change(folder: Path, stem: str) -> None:
        path = folder / f"{stem}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def replace(**changes):
    """As another version would have written it."""

    def change(folder: Path, stem: str) -> None:
        write_document(folder / f"{stem}.json", {**read_document(folder / f"{stem}.json"), **changes})

    return change


def damage_digit(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    text = path.read_text()
    edited = text.replace('"cutoff": 3.0', '"cutoff": 3.1').replace('"position": ', '"position": 1')
    assert edited != text
    path.write_text(edited)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, r"model.safetensors: truncated: \d+ bytes, model.json says \d+"),
        (damage_flip, "model.safetensors: damaged: its SHA-256"),
        (damage_json, "model.json: cannot be read"),
        (damage_missing, "model.safetensors: cannot be read: No such file"),
        (damage_digit, "model.json: damaged or edited: its checksum"),
        (edit(dtype="float64"), "model.json: damaged or edited"),
        (edit(extra={"training": 1}), "model.json: damaged or edited"),
        (edit(checksum=None), "model.json: damaged or edited"),
        (edit(format_version=1), "format version 1, this version reads 2"),
        (edit(format_version=99), "format version 99, this version reads 2"),
        (edit(format="other"), "is not a sdas model"),
        (replace(versions={"clebsch_gordan": "0"}), "Clebsch–Gordan tables of version 0"),
        (replace(config={"species": [1, 6, 8]}), "do not fit the model"),
        (replace(config={"specie": [1]}), "do not fit the model"),
        (replace(config={"species": [1], "channels": 2**22, "heads": 2}), "ask for 1759.* weights or more, "),
        (replace(config={"species": [1], "channels": 1, "heads": 1, "layers": 10**9}), "weights or more, .* are there"),
        (replace(config={"species": [1], "channels": 1, "heads": 1, "n_radial": 10**12}), "weights or more"),
        (replace(config={"species": [1], "channels": 1, "heads": 1, "key_channels": 10**12}), "weights or more"),
        (replace(config={"species": [1], "lmax": 10**9}), "lmax is 1000000000, this version knows degrees up to 8"),
        (replace(model="Other"), "this version loads 'SDAS'"),
    ],
)
def test_a_damaged_model_is_refused_with_the_file_and_the_reason(tmp_path, model, damage, message):
    save_model(tmp_path / "model", model)
    damage(tmp_path / "model", "model")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "model")
    assert str(tmp_path) in str(caught.value)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path)


def test_the_last_two_training_states_are_kept(tmp_path):
    assert load_training_state(tmp_path) is None
    for step in (0, 5, 10, 15):
        save_training_state(tmp_path, state(step))
    assert sorted(os.listdir(tmp_path)) == ["step-000000010", "step-000000015"]
    found = load_training_state(tmp_path)
    assert found.step == 15
    assert found.document == {"position": 120, "python": [1, 2]}
    assert (found.tensors["model.weight"] == 15).all()
    assert found.tensors["rng.torch"].dtype == torch.uint8


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_json, damage_missing, damage_digit])
def test_a_damaged_state_falls_back_loudly_on_the_one_before(tmp_path, damage):
    for step in (5, 10):
        save_training_state(tmp_path, state(step))
    damage(tmp_path / "step-000000010", "state")
    with pytest.warns(UserWarning, match=r"CHECKPOINT DAMAGED: .*step-000000010.*step-000000005"):
        assert load_training_state(tmp_path).step == 5
    damage(tmp_path / "step-000000005", "state")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used: .*step-000000010.*step-000000005"):
        load_training_state(tmp_path)


def test_a_full_disk_leaves_the_previous_state_valid(tmp_path, monkeypatch):
    save_training_state(tmp_path, state(5))
    written = []

    def full(descriptor):
        written.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"step-000000010: could not be written: No space left on device"):
            save_training_state(tmp_path, state(10))
    assert written
    assert os.listdir(tmp_path) == ["step-000000005"]
    assert load_training_state(tmp_path).step == 5


LIMITED = """
import resource, signal, sys, torch
from sdas.run.checkpoint import TrainingState, save_training_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_training_state(sys.argv[1], TrainingState(1, {"w": torch.ones(10)}, {}))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
save_training_state(sys.argv[1], TrainingState(2, {"w": torch.ones(100_000)}, {}))
"""


def test_a_write_that_the_system_cuts_short_leaves_the_previous_state_valid(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "step-000000002: could not be written: File too large" in done.stderr
    assert os.listdir(tmp_path) == ["step-000000001"]
    assert load_training_state(tmp_path).step == 1


def test_a_failed_replacement_leaves_the_old_model(tmp_path, model, monkeypatch):
    save_model(tmp_path / "model", model)

    def failing(one, other):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "_exchange", failing)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_model(tmp_path / "model", model)
    load_model(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


def test_a_model_that_a_killed_replacement_moved_aside_is_found(tmp_path, model):
    save_model(tmp_path / "model", model)
    os.rename(tmp_path / "model", tmp_path / ".model.replaced-0123abcd")
    load_run_model(tmp_path)
    os.rename(tmp_path / "model", tmp_path / ".model.replaced-0123abcd")
    load_model(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
