import json

import pytest
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.errors import SdasError
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
