"""A fingerprint is the same for the same model or data, and another for any other."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from sdas.data import Frame, write_cache
from sdas.errors import SdasError
from sdas.run.checkpoint import load_model, save_model
from sdas.run.fingerprint import data_fingerprint, model_fingerprint


@pytest.fixture
def model(make_model):
    return make_model(channels=4, heads=4, lmax=1, layers=1)


def test_a_model_keeps_its_fingerprint_on_disk_and_in_training_mode(model, tmp_path):
    before = model_fingerprint(model)
    save_model(tmp_path / "model", model, {"training": {"steps": 3}})
    assert model_fingerprint(load_model(tmp_path / "model")) == before
    assert model_fingerprint(model.train()) == before


def test_any_number_of_a_model_counts(model):
    seen = {model_fingerprint(model)}
    tensors = [*model.parameters(), model.energy_shift]
    for tensor in tensors:
        with torch.no_grad():
            tensor.view(-1)[-1] += 1e-6
        seen.add(model_fingerprint(model))
    assert len(seen) == 1 + len(tensors)


def test_what_the_weights_mean_counts(make_model):
    shape = {"channels": 4, "heads": 4, "lmax": 1, "layers": 1}
    models = [make_model(**shape), make_model(**shape, cutoff=4.1), make_model(dtype=torch.float32, **shape)]
    assert len({model_fingerprint(model) for model in models}) == 3


def frames(energy=1.0):
    for k in range(3):
        positions = np.array([[0.0, 0, 0], [0, 0, 0.75 + 0.01 * k]])
        yield Frame(np.array([1, 1]), positions, None, np.zeros(3, bool), energy, np.zeros((2, 3)), None, "made")


def test_a_cache_is_what_it_holds(tmp_path):
    write_cache(frames(), tmp_path / "a")
    write_cache(frames(), tmp_path / "b")
    write_cache(frames(1.0 + 1e-12), tmp_path / "c")
    found = [data_fingerprint(tmp_path / name) for name in "abc"]
    assert found[0] == found[1] != found[2]


def test_files_and_folders_of_files(tmp_path):
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "deep" / "a.raw").write_bytes(b"1 2 3")
    (tmp_path / "set" / "b.raw").write_bytes(b"")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    before = data_fingerprint(tmp_path / "set")
    assert data_fingerprint(tmp_path / "copy") == before
    (tmp_path / "copy" / "b.raw").rename(tmp_path / "copy" / "c.raw")
    (tmp_path / "set" / "deep" / "a.raw").write_bytes(b"1 2 4")
    assert len({before, data_fingerprint(tmp_path / "set"), data_fingerprint(tmp_path / "copy")}) == 3
    assert data_fingerprint(tmp_path / "set" / "b.raw") == data_fingerprint(tmp_path / "copy" / "c.raw")


def test_data_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SdasError, match=r"absent: cannot be read: No such file"):
        data_fingerprint(tmp_path / "absent")
