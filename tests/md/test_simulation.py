import json

import numpy as np
import pytest
from ase.io import read

from sdas.errors import SdasError
from sdas.md import MDSettings, SDASCalculator, UnstableRunError, simulate
from sdas.md.folder import LOG, STATE, SUMMARY, TRAJECTORY, read_log
from sdas.md.velocities import draw_velocities, stop_drift


class Crash(Exception):
    """Stands for a process that is killed."""


class CrashingCalculator(SDASCalculator):
    """Dies after a number of calculations."""

    left = 40

    def calculate(self, *args, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise Crash
        super().calculate(*args, **kwargs)


def run(potential, atoms, folder, **settings):
    settings = {"steps": 60, "sample_every": 3, "save_every": 10, "timestep_fs": 0.5, **settings}
    return simulate(atoms, SDASCalculator(potential), MDSettings(**settings), folder)


def fluctuation(potential, atoms, folder, timestep_fs):
    settings = {"steps": int(200 / timestep_fs), "sample_every": int(2 / timestep_fs), "save_every": 10_000}
    return run(potential, atoms, folder, timestep_fs=timestep_fs, **settings).drift.fluctuation_mev_per_atom


def test_energy_error_falls_with_the_square_of_the_time_step(pair_potential, molecule, tmp_path):
    coarse = fluctuation(pair_potential, molecule, tmp_path / "coarse", 1.0)
    fine = fluctuation(pair_potential, molecule, tmp_path / "fine", 0.5)
    assert fine > 0
    assert 3.2 < coarse / fine < 4.8


def test_velocities_have_the_temperature_and_neither_drift_nor_spin(pair_potential, molecule, tmp_path):
    kinetic = []
    for seed in range(600):
        draw_velocities(molecule, 400.0, np.random.Generator(np.random.PCG64(seed)))
        stop_drift(molecule)
        kinetic.append(molecule.get_kinetic_energy())
    # three atoms have three vibrations; half of k_B T each
    assert np.mean(kinetic) == pytest.approx(1.5 * 8.617e-5 * 400, rel=0.1)
    run(pair_potential, molecule, tmp_path, steps=0, temperature_k=400.0, seed=7)
    log, frame = read_log(tmp_path), read(tmp_path / TRAJECTORY)
    assert log["kinetic_ev"][0] == pytest.approx(kinetic[7], rel=1e-9)
    assert log["temperature_k"][0] == pytest.approx(kinetic[7] / (1.5 * 8.617333e-5), rel=1e-6)
    assert np.abs(frame.get_momenta()).max() > 0.1
    assert np.abs(frame.get_momenta().sum(axis=0)).max() < 1e-6
    assert np.abs(frame.get_angular_momentum()).max() < 1e-6


def test_log_and_trajectory_tell_the_same(pair_potential, crystal, tmp_path):
    result = run(pair_potential, crystal, tmp_path)
    log, frames = read_log(tmp_path), read(tmp_path / TRAJECTORY, index=":")
    assert result.steps == 60
    assert log["step"].tolist() == list(range(0, 61, 3)) == [frame.info["step"] for frame in frames]
    np.testing.assert_allclose(log["time_fs"], log["step"] * 0.5)
    np.testing.assert_allclose(log["total_ev"], log["potential_ev"] + log["kinetic_ev"], rtol=1e-9)
    np.testing.assert_allclose([f.get_potential_energy() for f in frames], log["potential_ev"], atol=1e-6)
    np.testing.assert_allclose([f.get_kinetic_energy() for f in frames], log["kinetic_ev"], atol=1e-6)
    assert frames[-1].pbc.all()


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(pair_potential, molecule, tmp_path, ensemble):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(pair_potential, molecule, whole, ensemble=ensemble)
    settings = MDSettings(steps=60, sample_every=3, save_every=10, ensemble=ensemble)
    with pytest.raises(Crash):
        simulate(molecule, CrashingCalculator(pair_potential), settings, broken)
    assert not (broken / SUMMARY).exists()
    run(pair_potential, molecule, broken, ensemble=ensemble)
    assert (broken / LOG).read_text() == (whole / LOG).read_text()
    assert (broken / TRAJECTORY).read_text() == (whole / TRAJECTORY).read_text()


def test_a_finished_run_can_be_lengthened(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path / "once")
    run(pair_potential, molecule, tmp_path / "twice", steps=25)
    run(pair_potential, molecule, tmp_path / "twice")
    assert (tmp_path / "twice" / LOG).read_text() == (tmp_path / "once" / LOG).read_text()


def test_the_seed_decides(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path / "a", steps=3)
    run(pair_potential, molecule, tmp_path / "b", steps=3, seed=1)
    assert (tmp_path / "a" / LOG).read_text() != (tmp_path / "b" / LOG).read_text()


@pytest.mark.parametrize("change", [{"timestep_fs": 0.25}, {"ensemble": "nvt"}, {"temperature_k": 10.0}, {"seed": 3}])
def test_a_run_is_not_continued_with_other_settings(pair_potential, molecule, tmp_path, change):
    run(pair_potential, molecule, tmp_path, steps=3)
    with pytest.raises(SdasError, match=next(iter(change))):
        run(pair_potential, molecule, tmp_path, **change)


def test_a_run_is_not_continued_from_another_structure(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path, steps=3)
    molecule.positions[0, 0] += 0.01
    with pytest.raises(SdasError, match="another structure"):
        run(pair_potential, molecule, tmp_path)
    calculator = SDASCalculator(pair_potential)
    result = simulate(molecule, calculator, MDSettings(steps=6, sample_every=3), tmp_path, fresh=True)
    assert result.steps == 6


def test_lost_output_is_noticed(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path, steps=10)
    (tmp_path / TRAJECTORY).write_text("")
    with pytest.raises(SdasError, match="shorter"):
        run(pair_potential, molecule, tmp_path)


def test_a_damaged_state_is_an_error(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path, steps=10)
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(SdasError, match="--fresh"):
        run(pair_potential, molecule, tmp_path)


@pytest.mark.parametrize("name", ["positions", "momenta", "facts"])
def test_a_state_that_declares_more_than_it_holds_is_an_error(
    pair_potential, molecule, tmp_path, declare_too_much, name
):
    run(pair_potential, molecule, tmp_path, steps=10)
    declare_too_much(tmp_path / STATE, name)
    with pytest.raises(SdasError, match=r"state.npz: .*is said to take \d+ bytes.*--fresh"):
        run(pair_potential, molecule, tmp_path)


def test_a_state_of_other_shapes_is_an_error(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path, steps=10)
    with np.load(tmp_path / STATE) as stored:
        arrays = dict(stored)
    np.savez(tmp_path / STATE, **{**arrays, "momenta": np.zeros(3)})
    with pytest.raises(SdasError, match=r"positions and momenta are not of .* atoms.*--fresh"):
        run(pair_potential, molecule, tmp_path)


def test_a_run_that_is_too_hot_ends_and_keeps_what_there_is(pair_potential, molecule, tmp_path):
    molecule.positions[1] = [0.6, 0, 0]
    with pytest.raises(UnstableRunError, match=r"exploded at step \d+ .* fs\): the temperature is \d+ K"):
        run(pair_potential, molecule, tmp_path, sample_every=1)
    frames = read(tmp_path / TRAJECTORY, index=":")
    assert len(frames) >= 2
    assert all(np.isfinite(frame.positions).all() for frame in frames)


def test_atoms_that_come_too_close_end_the_run(pair_potential, molecule, tmp_path):
    with pytest.raises(UnstableRunError, match=r"atoms \d and \d are 1.\d+ Å apart"):
        run(pair_potential, molecule, tmp_path, closest_ang=1.15, temperature_k=1000.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"closest_ang": 1.2}, "atoms 0 and 2 are 1.173 Å apart"),
        ({"temperature_k": 500_000.0}, r"the temperature is \d+ K"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused_before_anything_is_written(
    pair_potential, molecule, tmp_path, change, words
):
    with pytest.raises(SdasError, match=f"cannot start like this: {words}"):
        run(pair_potential, molecule, tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_an_energy_that_is_not_finite_ends_the_run(pair_potential, molecule, tmp_path):
    class Broken(SDASCalculator):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.left = getattr(self, "left", 10) - 1
            if self.left < 0:
                self.results["energy"] = float("nan")

    with pytest.raises(UnstableRunError, match="not finite"):
        simulate(molecule, Broken(pair_potential), MDSettings(steps=60, sample_every=2), tmp_path)
    assert np.isfinite(read_log(tmp_path)["total_ev"]).all()


def test_the_thermostat_holds_the_temperature(pair_potential, crystal, tmp_path):
    big = crystal.repeat((2, 2, 2))
    settings = {"steps": 500, "timestep_fs": 1.0, "temperature_k": 500.0, "friction_per_ps": 100.0, "ensemble": "nvt"}
    result = run(pair_potential, big, tmp_path, save_every=1000, **settings)
    assert read_log(tmp_path)["temperature_k"][-100:].mean() == pytest.approx(500, rel=0.2)
    assert result.drift is None


def test_the_summary_holds_settings_and_drift(pair_potential, molecule, tmp_path):
    result = run(pair_potential, molecule, tmp_path)
    facts = json.loads((tmp_path / SUMMARY).read_text())
    assert facts["drift_mev_per_atom_per_ps"] == result.drift.drift_mev_per_atom_per_ps
    assert (facts["steps"], facts["n_atoms"], facts["timestep_fs"], facts["ensemble"]) == (60, 3, 0.5, "nve")


@pytest.mark.parametrize("wrong", [{"ensemble": "npt"}, {"timestep_fs": 0}, {"steps": -1}, {"seed": -1}])
def test_settings_are_checked(wrong):
    with pytest.raises(SdasError, match=next(iter(wrong))):
        MDSettings(**wrong)


def test_the_start_is_not_changed(pair_potential, molecule, tmp_path):
    before = molecule.copy()
    run(pair_potential, molecule, tmp_path)
    assert molecule == before
    assert molecule.calc is None


def test_an_observer_sees_every_step_and_changes_nothing(pair_potential, molecule, tmp_path):
    run(pair_potential, molecule, tmp_path / "unseen", steps=30)
    seen = []

    def observe(step, atoms, results):
        seen.append((step, results["energy"], atoms.get_kinetic_energy(), results["forces"].copy()))

    def observed(steps):
        settings = MDSettings(steps=steps, sample_every=3, save_every=10, timestep_fs=0.5)
        simulate(molecule, SDASCalculator(pair_potential), settings, tmp_path / "seen", observe=observe)

    observed(12)
    observed(30)  # goes on from step 12, which it sees again
    assert [step for step, *_ in seen] == [*range(13), *range(12, 31)]
    assert seen[12][1:3] == pytest.approx(seen[13][1:3], rel=1e-12)
    log = read_log(tmp_path / "seen")
    by_step = {step: (potential, kinetic) for step, potential, kinetic, _ in seen}
    rows = zip(log["step"], log["potential_ev"], log["kinetic_ev"], strict=True)
    assert all(by_step[int(step)] == pytest.approx((u, k), abs=1e-8) for step, u, k in rows)
    assert (tmp_path / "seen" / LOG).read_text() == (tmp_path / "unseen" / LOG).read_text()


def test_a_run_that_its_observer_ended_goes_on(pair_potential, molecule, tmp_path):
    settings = MDSettings(steps=30, sample_every=3, save_every=10, timestep_fs=0.5)

    def observe(step, atoms, results):
        if step == 17:
            raise Crash

    with pytest.raises(Crash):
        simulate(molecule, SDASCalculator(pair_potential), settings, tmp_path / "ended", observe=observe)
    assert simulate(molecule, SDASCalculator(pair_potential), settings, tmp_path / "ended").steps == 30
