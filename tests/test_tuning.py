"""The table of launches: the fastest candidate of a measurement, kept for the GPU of that name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from sdas_kernels import tuning
from sdas_kernels.tuning import CANDIDATES, Launch

GPU = torch.device("cuda", 0)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Where the table is, in a process that believes in a GPU of the name "A"."""
    file = tmp_path / "new folder" / "tuning.json"
    monkeypatch.setenv("SDAS_KERNELS_TUNING", str(file))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A")
    tuning._table.cache_clear()
    yield file
    tuning._table.cache_clear()


def test_without_a_table_the_first_candidates_run(table):
    for op, choices in CANDIDATES.items():
        assert tuning.launch(op, GPU) == tuning.launch(op, torch.device("cpu")) == choices[0]


def test_the_fastest_is_kept_for_its_gpu(table):
    wanted = {op: choices[-1] for op, choices in CANDIDATES.items()}
    asked = []

    def measure(op, choice):
        asked.append((op, choice))
        return float("inf") if choice == CANDIDATES[op][0] else 1.0 - (choice == wanted[op])

    assert tuning.tune(lambda op, choice: 1.0, "B") == {op: choices[0] for op, choices in CANDIDATES.items()}
    assert tuning.tune(measure, "A") == wanted
    assert asked == [(op, choice) for op, choices in CANDIDATES.items() for choice in choices]
    assert set(json.loads(table.read_text())) == {"A", "B"}
    for op, choice in wanted.items():
        assert tuning.launch(op, GPU) == choice
        assert tuning.launch(op, torch.device("cpu")) == CANDIDATES[op][0]
        with tuning.use(op, Launch(1, 1)):
            assert tuning.launch(op, GPU) == Launch(1, 1)
        assert tuning.launch(op, GPU) == choice


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_broken_table_is_named_and_not_used(table, text):
    table.parent.mkdir()
    table.write_text(text)
    with pytest.warns(UserWarning, match=r"tuning\.json is not used"):
        assert tuning.launch("edge_softmax", GPU) == CANDIDATES["edge_softmax"][0]


def test_a_choice_that_is_no_candidate_any_more_is_not_used(table):
    table.parent.mkdir()
    table.write_text(json.dumps({"A": {"edge_softmax": {"size": 7, "num_warps": 1}}}))
    assert tuning.launch("edge_softmax", GPU) == CANDIDATES["edge_softmax"][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: there is something to tune")
def test_the_command_says_where_there_is_no_gpu(table):
    command = [sys.executable, "-m", "sdas_kernels.tuning"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "no CUDA device: nothing to tune\n"
    assert not table.exists()
