"""`sdas diffusion` on files, folders of dynamics and a model."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.diffusion import read_paths
from sdas.documents import read_document
from sdas.md import Replicas
from sdas.md.faults import Limits
from sdas.md.lennard_jones import LennardJones
from sdas.md.replica_run import run_replicas
from sdas.md.trajectory import Trajectory
from sdas.run.checkpoint import save_model

pytest.importorskip("kinisi", reason="KINISI ABSENT: pip install .[md]; no diffusion constant is tested")


def run(*arguments):
    return CliRunner().invoke(app, ["diffusion", *(str(argument) for argument in arguments)])


def test_a_model_is_compared_with_its_reference(walk, write_walk, tmp_path):
    """Wrapped or not, .traj or .extxyz: the error is that of the constants that were drawn."""
    model = write_walk("model.extxyz", walk(d=0.36, seed=1) % 12.0)
    reference = write_walk("reference.traj", walk(d=0.30, seed=2), interval_fs=None)
    result = run(model, "--reference", reference, "--interval", 100, "--viscosity", 0.5, "--temperature", 300)
    assert result.exit_code == 0, result.output
    written = read_document(tmp_path / "diffusion" / "diffusion.json")
    low, high = written["errors"][0]["interval"]
    assert low < 0.2 < high
    assert written["finite_size_correction_ang2_per_ps"] > 0
    assert "off the reference" in result.output
    assert (tmp_path / "diffusion" / "diffusion.svg").read_text().count("reference") >= 1


def test_a_file_without_times_asks_for_them(walk, write_walk):
    result = run(write_walk("walk.extxyz", walk(frames=25, atoms=4), interval_fs=None))
    assert result.exit_code == 1
    assert "does not tell the time between frames: give it by --interval" in result.stderr


def test_options_of_dynamics_are_refused_where_none_are_run(walk, write_walk):
    path = write_walk("walk.extxyz", walk(frames=25, atoms=4))
    options = ["--steps", 10, "--timestep", 0.5, "--every", 2, "--replicas", 3, "--dtype", "float32", "--fresh"]
    message = run(path, *options, "--temperature", 300).stderr
    assert "--steps, --timestep, --every, --replicas, --dtype, --fresh, --temperature: nothing is run" in message
    assert "Give --structure" in message


def test_a_molecule_has_no_diffusion_constant(walk, write_walk, tmp_path):
    write(tmp_path / "molecule.xyz", Atoms("ArAr", [[0, 0, 0], [0, 0, 4.0]]))
    for arguments in (
        [write_walk("walk.extxyz", walk(frames=25, atoms=4), pbc=False)],
        [tmp_path, "--structure", tmp_path / "molecule.xyz", "--temperature", 300],
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "not periodic along all three axes: atoms of a molecule in vacuum have no" in result.stderr


def test_frames_too_far_apart_are_refused(walk, write_walk):
    result = run(write_walk("walk.extxyz", walk(d=300.0, frames=25, atoms=4)))
    assert result.exit_code == 1
    assert "which way is not known" in result.stderr


def test_replicas_are_read_as_they_were_written(tmp_path):
    """A Lennard-Jones liquid; a replica that ended early is left out, with a note."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    limits = Limits(closest_ang=2.85)
    liquid = Replicas(LennardJones(), [atoms] * 3, "bussi", [250, 250, 8000], timestep_fs=8.0, limits=limits)
    run_replicas(liquid, 240, tmp_path / "liquid", every=4)
    assert [verdict is None for verdict in liquid.verdicts] == [True, True, False]
    replicas, notes = read_paths(tmp_path / "liquid")
    assert [len(each.positions) for each in replicas] == [61, 61]
    assert replicas[0].interval_fs == pytest.approx(32.0)
    assert "replica 2 ended early and is left out" in notes[0]
    moved = liquid.atoms(0).positions - atoms.positions
    np.testing.assert_allclose(replicas[0].positions[-1], moved - moved.mean(axis=0), atol=1e-4)
    result = run(tmp_path / "liquid", "--start", 400, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_document(tmp_path / "out" / "diffusion.json")["constants"][0]["replicas"] == 2


def test_replicas_that_made_no_step_are_too_short(tmp_path):
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    run_replicas(Replicas(LennardJones(), [atoms]), 0, tmp_path / "start")
    for interval in ([], ["--interval", 10]):
        assert "one frame is no trajectory: run longer" in run(tmp_path / "start", *interval).stderr


def test_the_dynamics_of_a_model_are_run_and_lengthened(make_model, tmp_path):
    save_model(tmp_path / "run" / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[5, 5, 5], pbc=True)
    write(tmp_path / "box.extxyz", water)
    arguments = [tmp_path / "run", "--structure", tmp_path / "box.extxyz", "--temperature", 100, "--timestep", 0.1]
    options = ["--every", 1, "--start", 0.1, "--element", "O"]
    assert "11 frames are too few" in run(*arguments, "--steps", 10, *options).stderr
    result = run(*arguments, "--steps", 25, *options)
    assert result.exit_code == 0, result.output
    written = read_document(tmp_path / "run" / "diffusion" / "diffusion.json")
    assert written["constants"][0]["length_fs"] == pytest.approx(2.5)


def test_a_killed_command_goes_on_with_its_dynamics(make_model, tmp_path, killed_at_write):
    save_model(tmp_path / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[5, 5, 5], pbc=True)
    write(tmp_path / "box.extxyz", water)
    arguments = [tmp_path / "model", "--structure", tmp_path / "box.extxyz", "--temperature", 100, "--timestep", 0.1]
    arguments += ["--steps", 24, "--every", 1, "--start", 0.1, "--element", "O"]
    assert run(*arguments, "--out", tmp_path / "whole").exit_code == 0
    for moment in (2, 5, 8):
        killed_at_write(moment, lambda folder=tmp_path / str(moment): run(*arguments, "--out", folder))
        assert not (tmp_path / str(moment) / "diffusion.json").exists()
        result = run(*arguments, "--out", tmp_path / str(moment))
        assert result.exit_code == 0, result.output
        found, whole = (read_document(tmp_path / name / "diffusion.json") for name in (str(moment), "whole"))
        assert found["constants"] == whole["constants"]


def test_a_model_that_explodes_ends_with_a_verdict_and_keeps_its_trajectory(make_model, tmp_path):
    save_model(tmp_path / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    water = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[5, 5, 5], pbc=True)
    write(tmp_path / "box.extxyz", water)
    arguments = ["--structure", tmp_path / "box.extxyz", "--temperature", 15_000, "--timestep", 5, "--every", 1]
    result = run(tmp_path / "model", *arguments, "--steps", 200, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "all replicas exploded, the first at step" in result.stderr
    assert len(Trajectory(tmp_path / "out" / "dynamics" / "trajectory").frames(0)["positions"]) > 1
