"""What whole models are measured with: the systems, the record of results, and the process that takes the steps."""

import json
import sys

import numpy as np
import pytest
import torch

record = pytest.importorskip("record", reason="the tests stand alone, without bench/")

from peers import systems  # noqa: E402
from peers.process import Process  # noqa: E402


def test_water_is_a_liquid_of_molecules():
    positions, numbers, _, cell, _ = systems.water(64, np.random.default_rng(0))
    arms = positions.reshape(64, 3, 3)
    assert np.allclose(np.linalg.norm(arms[:, 1:] - arms[:, :1], axis=2), 0.9572)
    assert numbers.tolist() == [8, 1, 1] * 64
    assert 64 * 18.015 / np.linalg.det(cell) / 0.60221 == pytest.approx(1.0, abs=0.01)  # g/cm³


@pytest.mark.parametrize(
    ("name", "atoms", "count"),
    [("aspirin", 21, 1), ("8 ethanol", 72, 8), ("999 water", 999, 1), ("2x 498 water", 996, 2)],
)
def test_systems(name, atoms, count):
    graph = systems.graph(name)
    assert (graph.num_atoms, graph.num_systems) == (atoms, count)
    assert graph.edge_vectors().norm(dim=1).min() > 0.7
    assert torch.equal(graph.positions, systems.graph(name).positions)


def test_unknown_system():
    with pytest.raises(ValueError, match="benzene"):
        systems.graph("8 benzene")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("SDAS_RESULTS", str(tmp_path))
    return lambda: record.Results("any", ("what",), "milliseconds")


def test_results_are_kept_case_by_case(results, tmp_path):
    first = results()
    first.append({"what": "a", "ms": 1})
    first.append({"what": "b", "ms": 2})
    second = results()
    second.append({"what": "a", "ms": 3})
    cases = json.loads(next(tmp_path.glob("*.json")).read_text())["cases"]
    assert [(case["what"], case["ms"]) for case in cases] == [("a", 3), ("b", 2)]
    assert all({"commit", "date", "load_average"} <= case.keys() for case in cases)


def test_results_of_other_versions_are_dropped(results, tmp_path):
    first = results()
    first.append({"what": "a", "ms": 1})
    path = next(tmp_path.glob("*.json"))
    old = json.loads(path.read_text())
    old["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(old))
    assert results().cases == []


def test_only_a_resumed_run_leaves_out_what_it_has(results, monkeypatch):
    results().append({"what": "a", "ms": 1})
    assert results().missing(what="a")
    monkeypatch.setenv("SDAS_RESUME", "1")
    assert not results().missing(what="a")
    assert results().missing(what="b")
    monkeypatch.setenv("SDAS_COMMIT", "another")
    assert results().missing(what="a")


@pytest.fixture
def start(monkeypatch):
    started = []

    def start(adapter="sdas", interpreter=sys.executable):
        # these tests may have been given the tree in whatever way; the process gets it like this
        monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
        started.append(Process(adapter, interpreter, 1, own_packages=True))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.mark.parametrize("step", ["forces", "training"])
def test_process_takes_steps(start, tmp_path, step):
    process = start()
    systems.save(tmp_path / "s.npz", systems.graph("2x 24 water"))
    built = process.ask("build", variant="eager", step=step, channels=4, lmax=1)
    assert built["parameters"] > 0
    assert "torch" in built["versions"]
    assert process.ask("load", path=str(tmp_path / "s.npz"))["atoms"] == 48
    assert process.ask("check")["seconds"] > 0
    assert process.ask("step")["seconds"] > 0
    assert process.ask("memory")["bytes"] >= 0


def test_process_tells_what_failed_and_goes_on(start):
    process = start()
    with pytest.raises(RuntimeError, match="heads must divide"):
        process.ask("build", variant="eager", step="forces", channels=33)
    assert process.ask("build", variant="eager", step="forces", channels=4)["parameters"] > 0


def test_process_that_dies_says_why(start):
    process = start("nobody")
    with pytest.raises(RuntimeError, match=r"No module named 'peers\.nobody'"):
        process.ask("build")


def test_process_that_takes_too_long(start):
    with pytest.raises(RuntimeError, match="no answer within"):
        start().ask("build", limit=0.05, variant="eager", step="forces", channels=4)
