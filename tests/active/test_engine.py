"""Members come out alike wherever they are trained, and what goes wrong with one is said."""

from __future__ import annotations

import shutil
import signal

import pytest

from sdas.active import engine
from sdas.active.engine import Interrupted, LocalProcesses
from sdas.active.folder import member_folder
from sdas.active.rounds import learn
from sdas.documents import read_document
from sdas.errors import ActiveError
from sdas.run.ledger import read_lines


@pytest.fixture
def untrained(finished, tmp_path):
    """A member of the second round of a copy of the run, with nothing but what it has to do."""
    run = shutil.copytree(finished, tmp_path / "copy")
    folder = member_folder(run, 1, 1)
    for path in [path for path in folder.iterdir() if path.name not in ("config.yaml", "task.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def test_a_process_trains_what_this_one_does(untrained, finished):
    told = []
    LocalProcesses(1, threads=1).train([untrained], told.append)
    assert told == [untrained]
    wanted = read_document(member_folder(finished, 1, 1) / "summary.json")["model_fingerprint"]
    assert read_document(untrained / "summary.json")["model_fingerprint"] == wanted


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (-9, ActiveError, "its process was killed by SIGKILL; resume the run"),
        (128 + signal.SIGTERM, Interrupted, "15"),
        (1, ActiveError, "members/1: the loss is nan"),
    ],
)
def test_how_a_process_ended_is_said(status, error, message, untrained):
    (untrained / "log.txt").write_text("energies of Cu\nerror: the loss is nan\n")
    with pytest.raises(error, match=message):
        engine._check(status, untrained)


@pytest.mark.slow
def test_a_ray_cluster_selects_and_labels_as_this_machine_does(make_config, places, tmp_path, monkeypatch):
    """Ensembles and labels on two nodes: the same models, selections and labels."""
    ray = pytest.importorskip("ray", reason="RAY ABSENT: pip install .[ray]; rounds on a cluster are not tested")
    from ray.cluster_utils import Cluster

    settings = {"pool": str(places / "unlabeled"), "oracle": "ase:ase.calculators.emt:EMT", "rounds": 1}
    learn(make_config(tmp_path / "here", **settings))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "memory": 2**28, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        learn(make_config(tmp_path / "ray", **settings, resources={"engine": "ray", "workers": 2, "memory_mib": 200}))
    finally:
        ray.shutdown()
        cluster.shutdown()
    here, there = (read_lines(tmp_path / name / "rounds.jsonl") for name in ("here", "ray"))
    timed = {"seconds", "oracle_s"}
    assert there[-1]["kind"] == "assessed"
    for line, wanted in zip(there, here, strict=True):
        assert {**line, **dict.fromkeys(timed)} == {**wanted, **dict.fromkeys(timed)}
