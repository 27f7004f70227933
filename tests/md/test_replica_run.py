"""A run of replicas on disk: what it writes, that it goes on to the bit, and that each ends by itself."""

from __future__ import annotations

import json
import os

import ase.io
import numpy as np
import pytest
import torch

from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.md import MDSettings, Replicas, SDASCalculator, simulate
from sdas.md.barostats import StochasticCellRescaling
from sdas.md.faults import Limits
from sdas.md.folder import LOG, STATE
from sdas.md.lennard_jones import LennardJones
from sdas.md.replica_run import SUMMARY, TRAJECTORY, read_log, run_replicas
from sdas.md.trajectory import Trajectory


class Crash(Exception):
    """Stands for a process that is killed."""


class Hills(torch.nn.Module):
    """A bias that grows with every call, so that a run goes on rightly only if it is restored."""

    invariant = True

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def __call__(self, systems, stress=False):
        self.calls += 1
        push = torch.zeros_like(systems.positions)
        push[0, 0], push[1, 0] = 0.1 * self.calls, -0.1 * self.calls
        return {"energy": torch.zeros(len(systems), dtype=torch.float64), "forces": push}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != STATE
    }


def arrays(folder):
    with np.load(folder / STATE) as stored:
        found = {name: stored[name] for name in stored.files if name != "facts"}
        found["generators"] = json.dumps(json.loads(stored["facts"].item())["generators"])
    return found


def assert_same_run(one, other):
    assert read_document(one / SUMMARY) == read_document(other / SUMMARY)
    assert (one / LOG).read_text() == (other / LOG).read_text()
    for replica in range(len(Trajectory(one / TRAJECTORY))):
        frames, wanted = (Trajectory(folder / TRAJECTORY).frames(replica) for folder in (one, other))
        for name in wanted:
            np.testing.assert_array_equal(frames[name], wanted[name])
    states, wanted = arrays(one), arrays(other)
    assert states.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(states[name], wanted[name], err_msg=name)


@pytest.fixture
def make(pair_potential, molecule, crystal):
    """Replicas of each kind, made alike whenever they are asked for."""
    close = molecule.copy()
    close.positions[1] = [0.6, 0, 0]

    def make(kind):
        if kind == "npt":
            barostat = StochasticCellRescaling(1.0, 100.0)
            return Replicas(pair_potential, [crystal] * 2, "bussi", barostat=barostat, timestep_fs=1.0)
        bias = Hills() if kind == "bias" else None
        atoms = [molecule, close, molecule] if kind == "explosion" else [molecule] * 3
        thermostat = kind if kind in ("langevin", "bussi", "nose-hoover") else "nve"
        return Replicas(pair_potential, atoms, thermostat, [300.0, 200.0, 100.0], bias=bias)

    return make


KINDS = ["nve", "langevin", "bussi", "nose-hoover", "bias", "npt", "explosion"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_to_the_bit(make, tmp_path, kind):
    run_replicas(make(kind), 40, tmp_path / "whole", every=3, save_every=8)

    def observe(now):
        if now.step == 29:
            raise Crash

    with pytest.raises(Crash):
        run_replicas(make(kind), 40, tmp_path / "broken", every=3, save_every=8, observe=observe)
    assert not (tmp_path / "broken" / SUMMARY).exists()
    run_replicas(make(kind), 40, tmp_path / "broken", every=3, save_every=8)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


def test_a_run_that_is_killed_at_any_write_goes_on_to_the_bit(make, tmp_path, killed_at_write):
    run_replicas(make("explosion"), 30, tmp_path / "whole", every=3, save_every=6)
    for moment in (7, 12, 13, 16):
        folder = tmp_path / f"killed-{moment}"
        killed_at_write(
            moment, lambda folder=folder: run_replicas(make("explosion"), 30, folder, every=3, save_every=6)
        )
        run_replicas(make("explosion"), 30, folder, every=3, save_every=6)
        assert_same_run(folder, tmp_path / "whole")
        assert sorted(os.listdir(folder)) == sorted([LOG, SUMMARY, STATE, TRAJECTORY])


def test_log_trajectory_and_summary_tell_the_same(make, tmp_path):
    result = run_replicas(make("langevin"), 30, tmp_path, every=5, save_every=10)
    log, trajectory = read_log(tmp_path), Trajectory(tmp_path / TRAJECTORY)
    assert len(trajectory) == 3
    for replica in range(3):
        rows = log["replica"] == replica
        frames, structures = trajectory.frames(replica), list(trajectory.atoms(replica))
        assert frames["steps"].tolist() == log["step"][rows].tolist() == list(range(0, 31, 5))
        np.testing.assert_allclose(frames["energies"], log["potential_ev"][rows], atol=1e-9)
        kinetic = [each.get_kinetic_energy() for each in structures]
        np.testing.assert_allclose(kinetic, log["kinetic_ev"][rows], rtol=1e-5)
        np.testing.assert_allclose(2 * log["kinetic_ev"] / (9 * 8.617333e-5), log["temperature_k"], rtol=1e-5)
        assert result.replicas[replica].verdict is None
    assert result.stable_fs == 15.0
    facts = read_document(tmp_path / SUMMARY)
    assert (facts["steps"], facts["ended"], facts["thermostat"]) == (30, 0, "Langevin(friction_per_ps=2.0)")
    assert result.ns_per_day > 0


@pytest.mark.parametrize("name", ["two.extxyz", "two.traj"])
def test_a_trajectory_is_written_for_others_to_read(make, tmp_path, name):
    replicas = make("npt")
    replicas.motion.systems.states[1]["charge"] = 2.0
    run_replicas(replicas, 10, tmp_path / "run", every=5)
    trajectory = Trajectory(tmp_path / "run" / TRAJECTORY)
    trajectory.write(1, tmp_path / name)
    frames = ase.io.read(tmp_path / name, ":")
    assert [frame.info["step"] for frame in frames] == [0, 5, 10]
    assert {frame.info["charge"] for frame in frames} == {2.0} or name.endswith(".traj")
    for frame, wanted in zip(frames, trajectory.atoms(1), strict=True):
        np.testing.assert_allclose(frame.positions, wanted.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell.array, wanted.cell.array, atol=1e-7)
        assert frame.get_potential_energy() == pytest.approx(wanted.get_potential_energy())
        assert frame.get_kinetic_energy() == pytest.approx(wanted.get_kinetic_energy(), rel=1e-5)


def test_a_replica_that_explodes_keeps_its_trajectory_to_the_end(make, tmp_path):
    result = run_replicas(make("explosion"), 40, tmp_path, every=10, save_every=100)
    verdict = result.replicas[1].verdict
    assert verdict is not None
    assert "temperature" in verdict.reason
    frames = Trajectory(tmp_path / TRAJECTORY).frames(1)
    assert frames["steps"].tolist() == [*range(0, verdict.step, 10), verdict.step]
    assert Trajectory(tmp_path / TRAJECTORY).frames(2)["steps"].tolist() == [0, 10, 20, 30, 40]
    assert result.stable_fs == pytest.approx((40 + 40 + verdict.step) * 0.5 / 3)
    facts = read_document(tmp_path / SUMMARY)
    assert [each["verdict"] for each in facts["replicas"]] == [None, verdict.reason, None]
    assert facts["ended"] == 1
    again = make("explosion")
    run_replicas(again, 40, tmp_path, every=10)
    np.testing.assert_allclose(again.atoms(1).positions, frames["positions"][-1], atol=1e-5)


def test_the_drift_is_that_of_the_conserved_energy(make, tmp_path):
    result = run_replicas(make("bussi"), 60, tmp_path, every=2)
    log = read_log(tmp_path)
    rows = log["replica"] == 0
    time, energy = log["time_fs"][rows] / 1000, log["conserved_ev"][rows] * 1000 / 3
    later = time >= 0.003
    slope = np.polyfit(time[later], energy[later], 1)[0]
    assert result.replicas[0].drift_mev_per_atom_per_ps == pytest.approx(slope)
    assert np.ptp(energy) < 0.1 * np.ptp(log["total_ev"][rows] * 1000 / 3)


def test_a_run_goes_on_only_as_what_it_was(make, pair_potential, molecule, crystal, tmp_path):
    run_replicas(make("nve"), 6, tmp_path, every=3)
    before = content(tmp_path)
    for other, words in (
        (make("langevin"), r"thermostat NVE\(\), not Langevin"),
        (Replicas(pair_potential, [molecule] * 2, "nve"), "of 3 replicas, not 2"),
        (Replicas(pair_potential, [molecule] * 3, "nve"), "temperature_k 200.0, not 300.0"),
        (Replicas(pair_potential, [molecule] * 3, temperature_k=[300, 200, 100], seed=1), "seed 0, not 1"),
        (Replicas(LennardJones(), [molecule] * 3), "another model"),
        (Replicas(pair_potential, [crystal, molecule, molecule]), "another structure"),
        (Replicas(pair_potential, [molecule] * 3, timestep_fs=0.1), "timestep_fs 0.5, not 0.1"),
    ):
        with pytest.raises(SdasError, match=words):
            run_replicas(other, 12, tmp_path, every=3)
    with pytest.raises(SdasError, match="sample_every 3, not 4"):
        run_replicas(make("nve"), 12, tmp_path, every=4)
    assert content(tmp_path) == before
    run_replicas(make("langevin"), 6, tmp_path, every=4, fresh=True)
    assert read_document(tmp_path / SUMMARY)["thermostat"].startswith("Langevin")


def test_folders_and_files_of_others_are_refused(make, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SdasError, match=r"holds notes.txt, which no run of dynamics wrote"):
        run_replicas(make("nve"), 3, tmp_path)
    run_replicas(make("nve"), 6, tmp_path / "run", every=3, save_every=3)
    (tmp_path / "run" / TRAJECTORY / "00001.npz").unlink()
    with pytest.raises(SdasError, match="1 of 3 chunks of the trajectory are not there"):
        run_replicas(make("nve"), 9, tmp_path / "run", every=3)
    moved = make("nve")
    moved.run(1)
    with pytest.raises(SdasError, match="wants replicas that have made no step yet, got them at step 1"):
        run_replicas(moved, 3, tmp_path / "other")
    with pytest.raises(SdasError, match="no trajectory of replicas"):
        Trajectory(tmp_path)
    with pytest.raises(SdasError, match="there is no replica 3; there are 3"):
        Trajectory(tmp_path / "run" / TRAJECTORY).frames(3)


def test_replicas_and_one_system_do_not_go_on_with_each_others_run(make, pair_potential, molecule, tmp_path):
    def simulate_one(fresh):
        simulate(molecule, SDASCalculator(pair_potential), MDSettings(steps=2), tmp_path / "run", fresh=fresh)

    run_replicas(make("nve"), 2, tmp_path / "run")
    with pytest.raises(SdasError, match=r"is a state of replicas, not of one system: choose another folder$"):
        simulate_one(fresh=False)
    with pytest.raises(SdasError, match=rf"holds {SUMMARY}, .*: choose another folder$"):
        simulate_one(fresh=True)
    simulate(molecule, SDASCalculator(pair_potential), MDSettings(steps=2), tmp_path / "one")
    with pytest.raises(SdasError, match=r"is no state of replicas: choose another folder$"):
        run_replicas(make("nve"), 2, tmp_path / "one")


def test_a_run_does_not_go_on_with_another_bias(pair_potential, molecule, tmp_path):
    def run(depth):
        bias = LennardJones(depth, 1.0, 4.0)
        run_replicas(Replicas(pair_potential, [molecule], bias=bias), 2, tmp_path / "run")

    run(0.01)
    run(0.01)
    with pytest.raises(SdasError, match=r"holds a run with bias 0\.01 eV.*, not 0\.02 eV"):
        run(0.02)


def test_a_run_says_what_ended_replicas_and_does_not_go_on_by_another_measure(pair_potential, molecule, tmp_path):
    def run(stretch):
        limits = Limits(stretch_ang=stretch)
        run_replicas(Replicas(pair_potential, [molecule], limits=limits), 2, tmp_path / "run")

    run(0.5)
    assert "stretch_ang=0.5" in read_document(tmp_path / "run" / SUMMARY)["limits"]
    with pytest.raises(SdasError, match=r"holds a run with limits .*stretch_ang=0\.5.*, not .*stretch_ang=None"):
        run(None)
