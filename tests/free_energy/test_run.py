"""Runs in a folder: killed and resumed, compared, refused; and the command."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.free_energy import Axis, Landscape, free_energy, parse_variable, sampling_error
from sdas.free_energy.run import Sampling
from sdas.md.forces import EnergyFunction
from sdas.md.trajectory import Trajectory
from sdas.run.checkpoint import save_model

SAMPLING = Sampling(steps=240, timestep_fs=4.0, replicas=8, walkers=4, every=4, save_every=60, friction_per_ps=20.0)


def test_a_killed_run_goes_on_to_the_bit(well, x_axis, particle, tmp_path, monkeypatch):
    whole = free_energy(well, particle, [x_axis], SAMPLING, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        replace, count = os.replace, [0]

        def killing(*names):
            replace(*names)
            count[0] += str(names[1]).endswith("state.npz")
            if count[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = killing
        try:
            free_energy(well, particle, [x_axis], SAMPLING, tmp_path / "killed")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "killed" / "free_energy.json").exists()
    resumed = free_energy(well, particle, [x_axis], SAMPLING, tmp_path / "killed")
    np.testing.assert_array_equal(resumed.landscape.groups, whole.landscape.groups)
    assert resumed.increments == whole.increments
    read = Landscape.read(tmp_path / "killed")
    np.testing.assert_allclose(read.mean, whole.landscape.mean)
    again = Axis(x_axis.variable, -1.5, 1.5, 20)
    with pytest.raises(SdasError, match="holds a run with bias"):
        free_energy(well, particle, [again], SAMPLING, tmp_path / "killed")


def test_a_variable_that_never_moves_is_named(well, particle, x_axis, tmp_path):
    particle.set_constraint(FixAtoms([0]))
    atoms = particle + Atoms("H", [[0.0, 0.0, 0.5]])
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(SdasError, match=r"x never moves: it stayed in 1 of 20 bins. Are its atoms fixed"):
        free_energy(well, atoms, [x_axis], SAMPLING, tmp_path / "out")
    with pytest.raises(SdasError, match="no visit within the range"):
        free_energy(well, atoms, [Axis(x_axis.variable, 3, 4, 8)], SAMPLING, tmp_path / "far")


def test_the_sampling_error_is_that_of_the_curves():
    """Shifts do not count; bins that one lacks do not; and of noise alone, the noise explains it."""
    centers = [np.linspace(-1, 1, 50)]
    generator = np.random.default_rng(0)
    curve = 3 * centers[0] ** 2

    def landscape(values, noise):
        groups = values + generator.normal(0, noise, (4, 50))
        return Landscape(["x"], ["Å"], centers, groups, 0.025)

    slope = np.where(np.arange(50) < 25, -0.5, 0.5)
    error = sampling_error(landscape(curve + slope + 7, 0), landscape(curve, 0))
    assert (error.mean_kt, error.largest_kt) == pytest.approx((0.5, 0.5))
    noisy = sampling_error(landscape(curve, 0.2), landscape(curve, 0.2))
    assert noisy.noise_kt is not None
    assert 0.5 < noisy.mean_kt / noisy.noise_kt < 1.5
    gap = landscape(curve, 0)
    gap.groups[0, :10] = np.nan
    assert sampling_error(gap, landscape(curve, 0)).bins == 40
    with pytest.raises(SdasError, match="two temperatures"):
        sampling_error(gap, Landscape(["x"], ["Å"], centers, gap.groups, 0.03))
    with pytest.raises(SdasError, match="other variables or bins"):
        sampling_error(gap, Landscape(["y"], ["Å"], centers, gap.groups, 0.025))


def test_the_command_samples_a_model_and_an_oracle(make_model, tmp_path):
    save_model(tmp_path / "run" / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    write(tmp_path / "water.xyz", water)
    options = ["--structure", tmp_path / "water.xyz", "--cv", "angle:1,0,2", "--timestep", "0.2"]
    options += ["--replicas", "2", "--every", "1", "--bins", "200", "--increment", "0.5"]

    def run(*words):
        return CliRunner().invoke(app, ["free-energy", *map(str, words), *map(str, options)])

    assert "angle:1,0,2 needs a range: --range LOW:HIGH, in °" in run(tmp_path / "run").stderr
    options += ["--range", "80:130"]
    result = run(tmp_path / "run", "--steps", 40)
    assert result.exit_code == 0, result.output
    written = read_document(tmp_path / "run" / "free_energy" / "free_energy.json")
    assert written["bins_not_visited"] > 0
    assert "bins are empty" in result.stderr
    assert "not converged" in result.stderr
    said = run(tmp_path / "nothing", "--steps", 4).stderr
    assert "nothing: there is no such run directory, and oracle" in said
    said = run(tmp_path / "run", "--reference", "gfn2").stderr
    assert "--reference gfn2: there are no such results, and oracle 'gfn2': must read" in said
    said = run(tmp_path / "run", "--reference", "tblite", "--labels", 0).stderr
    assert "labels of each bin must be 1 at least" in said, "tblite alone is an oracle too"
    for itself in ("free_energy", "free_energy/free_energy.json"):
        assert (
            "it would be compared with itself" in run(tmp_path / "run", "--reference", tmp_path / "run" / itself).stderr
        )
    effective = run(tmp_path / "run", "--steps", 400, "--reference", "ase:ase.calculators.emt:EMT", "--labels", 1)
    assert "overlap: too few frames" in effective.output
    assert "the reference is known in 0 of" in effective.stderr
    assert "run longer, for more frames" in effective.stderr
    pytest.importorskip("tblite", reason="TBLITE ABSENT: no oracle moves replicas")
    reference = ["--out", tmp_path / "xtb", "--reference", tmp_path / "run" / "free_energy"]
    result = run("tblite:GFN2-xTB", "--steps", 30, *reference)
    assert "sampling error" in result.output or "no bin in common" in result.stderr, result.output


def test_atoms_that_are_not_there_are_refused(well, particle, tmp_path):
    with pytest.raises(SdasError, match="there is no atom 3; the structure has 1"):
        free_energy(well, particle, [Axis(parse_variable("distance:0,3"), 1, 2, 8)], SAMPLING, tmp_path / "out")


def test_a_model_that_explodes_ends_with_a_verdict_and_keeps_its_trajectory(particle, x_axis, tmp_path):
    cliff = EnergyFunction(lambda systems: -systems.sum(1e3 * systems.positions[:, 0] ** 4), invariant=False)
    with pytest.raises(SdasError, match=r"all replicas exploded, the first at step \d+: the temperature is \d+ K"):
        free_energy(cliff, particle, [x_axis], SAMPLING, tmp_path / "out")
    assert len(Trajectory(tmp_path / "out" / "dynamics" / "trajectory").frames(0)["positions"]) > 1


def test_a_start_that_the_walls_tear_away_is_told(well, particle, x_axis, tmp_path):
    far = Axis(x_axis.variable, 40, 41, 20)
    with pytest.raises(SdasError, match="At the start x is -1, outside of its range 40:41, and the walls pull hard"):
        free_energy(well, particle, [far], SAMPLING, tmp_path / "out")


def test_empty_bins_are_counted_and_have_no_free_energy(well, particle, tmp_path, x_axis):
    """The walls of a well at 4 Å are out of reach."""
    wide = Axis(x_axis.variable, -4, 4, 20)
    found = free_energy(well, particle, [wide], SAMPLING, tmp_path / "out")
    written = read_document(tmp_path / "out" / "free_energy.json")
    empty = [value is None for value in written["free_energy_kt"]]
    assert empty[0]
    assert empty[-1]
    assert not all(empty)
    assert sum(empty) == written["bins_not_visited"]
    assert found.notes[0] == f"{sum(empty)} of 20 bins are empty: not every group of replicas has been there"
