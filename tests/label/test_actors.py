"""On a Ray cluster of two nodes frames get the labels that processes give them, and a dead actor costs a retry."""

from __future__ import annotations

from collections import Counter
from unittest.mock import MagicMock

import numpy as np
import pytest

from sdas.config.label import ResourcesConfig
from sdas.errors import LabelError
from sdas.label import Label, LabelStore, label_frames
from sdas.label.actors import ActorWorker
from sdas.label.pool import WorkerDiedError

pytestmark = pytest.mark.slow
H, HE, LI, BE, B, C = range(1, 7)


@pytest.fixture
def cluster(spring, monkeypatch):
    """Two nodes of one CPU each."""
    ray = pytest.importorskip("ray", reason="RAY ABSENT: pip install .[ray]; labels by a cluster are not tested")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "memory": 2**28, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()
    cluster.shutdown()


def test_a_cluster_gives_the_labels_of_the_local_engine(cluster, tmp_path, springs, spring, log):
    frames = springs(H, B, HE, BE, LI, C)
    resources = ResourcesConfig(engine="ray", workers=2, timeout_s=3.0, retries=1, memory_mib=200)
    with LabelStore.open(tmp_path / "labels") as store:
        done = label_frames(frames, spring, store, resources)
    kinds = ["label" if isinstance(outcome, Label) else outcome.kind for outcome in done.outcomes]
    assert kinds == ["label", "raised", "timeout", "label", "killed", "label"]
    assert done.outcomes[3].facts["workers_lost"] == 1
    assert [done.outcomes[index].energy for index in (0, 3, 5)] == [1.0, 16.0, 36.0]
    np.testing.assert_array_equal(done.outcomes[5].forces, [[-12.0, 0, 0]])
    assert Counter(line.split()[0] for line in log.read_text().splitlines())["Li"] == 2, "one retry"
    assert len({node["NodeID"] for node in cluster.nodes() if node["Alive"]}) == 2
    with (
        LabelStore.open(tmp_path / "labels") as store,
        pytest.raises(LabelError, match=r"no node .* has 3 CPUs"),
    ):
        label_frames(springs(C, C, C), spring, store, ResourcesConfig(engine="ray", threads=3, memory_mib=200))


def test_an_answer_that_is_lost_with_its_node_costs_a_retry():
    ray = pytest.importorskip("ray", reason="RAY ABSENT: pip install .[ray]; labels by a cluster are not tested")

    class Lossy:
        exceptions = ray.exceptions

        def get(self, answer):
            raise ray.exceptions.OwnerDiedError("ab", None, "call site")

    with pytest.raises(WorkerDiedError, match="in Ray"):
        ActorWorker(Lossy(), MagicMock()).collect()
