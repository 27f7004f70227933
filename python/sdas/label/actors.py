"""Workers that are actors of a Ray cluster, anywhere in it: that of ``RAY_ADDRESS``, one that runs here, or a new one.

Labels come back to this process, which alone writes to the store. Every node must have the programs of the oracle, and
the files that it is made of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdas import version
from sdas.config.label import OracleConfig, ResourcesConfig
from sdas.data.frame import Frame
from sdas.errors import LabelError
from sdas.label.oracle import make_oracle, outcome_of
from sdas.label.pool import Outcome, Worker, WorkerDiedError
from sdas.label.processes import environment

MIB = 2**20


def connected() -> Any:
    """The module ``ray``, connected to a cluster; raises :class:`LabelError` where it is not installed.

    Ray puts the folder in which it is called first on the path of its workers. So it is called in that of this package:
    a checkout in the folder of the user must not take the place of what is installed.
    """
    try:
        import ray
    except ImportError:
        raise LabelError("the engine ray needs Ray: pip install 'sdas-kernels[ray]'") from None
    if not ray.is_initialized():
        before = os.getcwd()
        os.chdir(Path(version.__file__).parents[1])
        try:
            ray.init(log_to_driver=False, configure_logging=False)
        finally:
            os.chdir(before)
    return ray


class Actors:
    """Starts actors for one oracle. Raises :class:`LabelError` without Ray, and where no node has room for one."""

    def __init__(self, oracle: OracleConfig, resources: ResourcesConfig) -> None:
        ray = connected()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needed = {"CPU": resources.threads, "memory": resources.memory_mib * MIB}
        if not any(all(node.get(name, 0) >= amount for name, amount in needed.items()) for node in nodes):
            raise LabelError(
                f"no node of the Ray cluster has {resources.threads} CPUs and {resources.memory_mib} MiB of memory: "
                "ask for fewer --threads or less --memory"
            )
        self.ray = ray
        self.make = ray.remote(_Labeller).options(
            num_cpus=resources.threads,
            memory=needed["memory"],
            runtime_env={"env_vars": environment(resources.threads)},
        )
        self.arguments = (oracle, resources.memory_mib)

    def start(self) -> Worker:
        """A new actor, somewhere."""
        return ActorWorker(self.ray, self.make.remote(*self.arguments))

    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> Sequence[Worker]:
        """Those whose answer is there, or that died."""
        ours = [worker for worker in workers if isinstance(worker, ActorWorker)]
        answers = [worker.answer for worker in ours]
        self.ray.wait(answers, num_returns=1, timeout=timeout_s)
        there, _ = self.ray.wait(answers, num_returns=len(answers), timeout=0)
        return [worker for worker in ours if worker.answer in there]


class ActorWorker:
    """One actor and the answer that it owes."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self.answer = actor.begin.remote()

    def submit(self, frame: Frame) -> None:
        """Send a frame."""
        self.answer = self.actor.label.remote(frame)

    def collect(self) -> Outcome | None:
        """Take the answer, None of an actor that is ready."""
        try:
            outcome: Outcome | None = self.ray.get(self.answer)
        except self.ray.exceptions.RayError as error:  # of the actor, its node, or the answer that was on it
            raise WorkerDiedError(f"in Ray: {str(error).splitlines()[0]}") from None
        return outcome

    def kill(self) -> None:
        """End its process."""
        self.ray.kill(self.actor)


class _Labeller:
    """What runs in an actor."""

    def __init__(self, oracle: OracleConfig, memory_mib: int) -> None:
        self.oracle = make_oracle(oracle, memory_mib)

    def begin(self) -> None:
        """Say that the oracle is made."""

    def label(self, frame: Frame) -> Outcome:
        """The outcome of a frame."""
        return outcome_of(self.oracle, frame)
