import errno
import json
import os

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.md.replica_run import read_log
from sdas.md.trajectory import Trajectory
from sdas.run.checkpoint import save_model


@pytest.fixture
def run_dir(make_model, tmp_path):
    save_model(tmp_path / "run" / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    write(tmp_path / "water.xyz", Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    return tmp_path / "run"


def run(*arguments):
    return CliRunner().invoke(app, ["--debug", "md", *(str(argument) for argument in arguments)])


def test_a_run_can_be_made_and_lengthened(run_dir, tmp_path):
    arguments = [run_dir, "--structure", tmp_path / "water.xyz", "--every", 2, "--timestep", 0.1]
    for steps in (6, 10):
        result = run(*arguments, "--steps", steps)
        assert result.exit_code == 0, result.output
    assert [frame.info["step"] for frame in read(run_dir / "md" / "trajectory.extxyz", index=":")] == [
        0,
        2,
        4,
        6,
        8,
        10,
    ]
    assert json.loads((run_dir / "md" / "md.json").read_text())["steps"] == 10
    assert "10 steps of 3 atoms" in result.output


def test_a_run_may_be_compiled_and_resumed_so(run_dir, tmp_path, monkeypatch):
    import sdas.md.calculator as module

    backends, compiled = [], module.CompiledPotential

    def traced_only(model, backend):
        backends.append(backend)
        return compiled(model, "eager")

    monkeypatch.setattr(module, "CompiledPotential", traced_only)
    arguments = [run_dir, "--structure", tmp_path / "water.xyz", "--timestep", 0.1]
    for steps, flags in ((3, ["--compile"]), (6, ["--compile"]), (9, [])):
        result = run(*arguments, "--steps", steps, *flags)
        assert result.exit_code == 0, result.output
    assert backends == ["inductor", "inductor"]
    assert "9 steps of 3 atoms" in result.output


def test_what_cannot_be_read_is_named(run_dir, tmp_path):
    (tmp_path / "broken.xyz").write_text("not a structure\n")
    for name, words in (("absent.xyz", "no such file"), ("broken.xyz", "cannot be read")):
        result = run(run_dir, "--structure", tmp_path / name)
        assert isinstance(result.exception, SdasError)
        assert words in str(result.exception)
    result = run(tmp_path, "--structure", tmp_path / "water.xyz")
    assert "neither a run directory" in str(result.exception)
    result = run(run_dir, "--structure", tmp_path / "water.xyz", "--frame", 3)
    assert "frame 3" in str(result.exception)


def test_replicas_run_at_once_and_are_lengthened(run_dir, tmp_path):
    arguments = [run_dir, "--structure", tmp_path / "water.xyz", "--every", 2, "--timestep", 0.1, "--replicas", 3]
    arguments += ["--thermostat", "bussi", "--relaxation", 50, "--seed", 4, "--write", "extxyz", "--write", "traj"]
    for steps in (6, 10):
        result = run(*arguments, "--steps", steps)
        assert result.exit_code == 0, result.output
    assert "10 steps of 3 replicas of 3 atoms" in result.output
    assert "ns/day" in result.output
    out = run_dir / "replicas"
    facts = read_document(out / "replicas.json")
    assert (facts["steps"], facts["seed"], facts["thermostat"]) == (10, 4, "Bussi(time_fs=50.0)")
    log = read_log(out)
    assert log["step"][log["replica"] == 2].tolist() == [0, 2, 4, 6, 8, 10]
    wanted = Trajectory(out / "trajectory").frames(2)["positions"]
    for kind in ("extxyz", "traj"):
        frames = read(out / "trajectory" / f"replica-002.{kind}", ":")
        np.testing.assert_allclose([frame.positions for frame in frames], wanted, atol=1e-6)
    assert run(*arguments, "--steps", 4, "--fresh").exit_code == 0


def test_replicas_keep_a_pressure(run_dir, tmp_path):
    box = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cell=[4, 4, 4], pbc=True)
    write(tmp_path / "box.xyz", box)
    arguments = [run_dir, "--structure", tmp_path / "box.xyz", "--timestep", 0.1, "--steps", 4, "--every", 1]
    arguments += ["--pressure", 100, "--skin", 0.3]
    result = run(*arguments, "--ensemble", "nvt", "--friction", 5, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    facts = read_document(tmp_path / "out" / "replicas.json")
    assert facts["barostat"].startswith("StochasticCellRescaling(pressure_bar=100.0")
    assert "compressibility_per_bar=4.57e-05" in facts["barostat"]
    assert facts["thermostat"] == "Langevin(friction_per_ps=5.0)"
    volumes = read_log(tmp_path / "out")["volume_ang3"]
    assert volumes[0] == pytest.approx(64)
    assert len(set(volumes)) == 5
    result = run(*arguments, "--thermostat", "bussi", "--compressibility", 1e-6, "--out", tmp_path / "stiff")
    assert result.exit_code == 0, result.output
    facts = read_document(tmp_path / "stiff" / "replicas.json")
    assert "compressibility_per_bar=1e-06" in facts["barostat"]
    assert facts["thermostat"] == "Bussi(time_fs=100.0)"
    stiff = read_log(tmp_path / "stiff")["volume_ang3"]
    assert abs(stiff - 64).max() < abs(volumes - 64).max()


def test_replicas_that_all_explode_end_with_a_verdict_and_an_error(run_dir, tmp_path):
    arguments = [run_dir, "--structure", tmp_path / "water.xyz", "--replicas", 2, "--timestep", 0.5, "--stretch", 0.02]
    result = run(*arguments, "--steps", 500)
    assert isinstance(result.exception, SdasError)
    assert "all replicas exploded" in str(result.exception)
    assert "replica 1 ended at step" in result.output
    assert "from its first length" in result.output
    assert read_document(run_dir / "replicas" / "replicas.json")["ended"] == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--replicas", 0], "--replicas must be at least 1, got 0"),
        (["--thermostat", "andersen"], "thermostat must be one of"),
        (["--thermostat", "bussi", "--ensemble", "nvt"], "--ensemble nvt and --thermostat bussi differ"),
        (["--replicas", 2, "--compile"], "--compile is not for replicas"),
        (["--replicas", 2, "--write", "dcd"], "extxyz or traj, got 'dcd'"),
        (["--write", "traj"], "--stretch and --write are for replicas"),
        (["--pressure", 1, "--ensemble", "nvt"], "a barostat needs cells"),
        (["--pressure", 1, "--ensemble", "nvt", "--barostat", "mtk"], "barostat must be one of"),
        (["--pressure", 1], "--pressure needs a thermostat"),
        (["--pressure", 1, "--thermostat", "nve"], "--pressure needs a thermostat"),
        (["--compressibility", 1e-6], "--compressibility is of a barostat: give --pressure too"),
        (
            ["--pressure", 1, "--thermostat", "bussi", "--compressibility", -1],
            "compressibility_per_bar must be positive, got -1",
        ),
        (["--friction", 2], "--friction is Langevin's, but the thermostat is nve"),
        (["--friction", 2, "--thermostat", "bussi"], "--friction is Langevin's, but the thermostat is bussi"),
        (["--relaxation", 100], "--relaxation is of bussi and nose-hoover, but the thermostat is nve"),
        (["--relaxation", 100, "--ensemble", "nvt"], "but the thermostat is langevin"),
        (["--barostat", "berendsen"], "--barostat berendsen needs the pressure that it holds: give --pressure too"),
        (["--replicas", 2, "--skin", -1], "skin must be a length"),
    ],
)
def test_options_of_replicas_are_checked(run_dir, tmp_path, flags, words):
    result = run(run_dir, "--structure", tmp_path / "water.xyz", *flags)
    assert isinstance(result.exception, SdasError)
    assert words in str(result.exception)
    assert not (run_dir / "replicas").exists()


def test_a_full_disk_is_told_with_the_folder_and_the_run_goes_on_after_it(run_dir, tmp_path, monkeypatch):
    arguments = ["md", run_dir, "--structure", tmp_path / "water.xyz", "--every", 1, "--timestep", 0.1, "--steps", 4]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert run(*arguments[1:-1], 2).exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr("sdas.md.simulation.write_frame", full)
        result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.stderr == f"error: {run_dir / 'md'}: No space left on device\n"
    assert run(*arguments[1:]).exit_code == 0
    assert [frame.info["step"] for frame in read(run_dir / "md" / "trajectory.extxyz", index=":")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--frame", "7"], "water.xyz: there is no frame 7"),
        (["--temperature", "inf"], "temperature_k must be a finite number, not negative, got inf"),
        (["--timestep", "inf"], "timestep_fs must be positive and finite, got inf"),
        (["--temperature", "inf", "--replicas", "2"], "temperature_k must be a"),
        (["--stretch", "0", "--replicas", "2"], "stretch_ang must be positive, as every bond vibrates, got 0.0"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(run_dir, tmp_path, arguments, words):
    command = ["md", run_dir, "--structure", tmp_path / "water.xyz", *arguments]
    result = CliRunner().invoke(app, [str(word) for word in command], env={"COLUMNS": "200"})
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (run_dir / "md").exists()
    assert not (run_dir / "replicas").exists()
