"""``sdas train`` from the configuration file to what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from typer.testing import CliRunner

from sdas import cli
from sdas.config import CrossValidationConfig, load_config, render_config
from sdas.data import FrameCache
from sdas.run.start import new_run_folder

runner = CliRunner()


@pytest.fixture
def config_file(make_config, tmp_path):
    def write(config):
        path = tmp_path / "config.yaml"
        path.write_text(render_config(config))
        return str(path)

    return write


SMALL = [
    *("--set", "train.steps=2", "--set", "train.batch_size=4", "--set", "train.device=cpu", "--set", "train.threads=1"),
    *("--set", "model.channels=4", "--set", "model.heads=2", "--set", "model.lmax=1", "--set", "model.layers=1"),
]


@pytest.fixture
def files(cache_path, tmp_path, monkeypatch):
    """The working directory, with the frames of the cache in ethanol.extxyz and eight of them in test.extxyz."""
    monkeypatch.chdir(tmp_path)
    images = []
    for frame in FrameCache.open(cache_path):
        atoms = Atoms(frame.numbers, frame.positions, info={"REF_energy": frame.energy})
        atoms.set_array("REF_forces", frame.forces)
        images.append(atoms)
    ase.io.write("ethanol.extxyz", images)
    ase.io.write("test.extxyz", images[:8])
    return tmp_path


def run(*words: str) -> str:
    done = runner.invoke(cli.app, ["train", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_file_of_frames_is_enough(files):
    """The folder is said first, a new one every time; the defaults but for what --set says."""
    assert run("ethanol.extxyz", *SMALL).splitlines()[0] == "run directory: runs/ethanol"
    assert run("ethanol.extxyz", *SMALL).splitlines()[0] == "run directory: runs/ethanol-2"
    summary = json.loads(Path("runs/ethanol-2/summary.json").read_text())
    assert (summary["steps"], summary["n_train"], summary["n_val"]) == (2, 36, 4)
    assert load_config("runs/ethanol/config.yaml").data.path == str(files / "ethanol.extxyz")
    assert "runs/ethanol: 3 steps" in run("--resume", "runs/ethanol", "--set", "train.steps=3")


@pytest.mark.usefixtures("files")
def test_frames_may_be_named_by_set_and_beside_a_configuration():
    said = run("--set", "data.train=ethanol.extxyz", "--set", "data.test=test.extxyz", *SMALL)
    assert said.startswith("run directory: runs/ethanol\n")
    assert json.loads(Path("runs/ethanol/summary.json").read_text())["n_test"] == 8
    Path("mine.yaml").write_text("data: {path: elsewhere, test: test.extxyz}\nrun_dir: here\ntrain: {minutes: 9}\n")
    assert run("mine.yaml", "ethanol.extxyz", *SMALL).startswith("run directory: here\n")
    assert load_config("here/config.yaml").data.files()["train"] == [str(Path("ethanol.extxyz").absolute())]
    assert run("ethanol.extxyz", "test.extxyz", "--print-config").count("test.extxyz") == 1
    assert sorted(path.name for path in Path("runs").iterdir()) == ["ethanol"]


@pytest.mark.usefixtures("files")
def test_weights_are_chosen_on_a_file():
    few = ("--set", "cross_validation.folds=2", "--set", "cross_validation.steps=1", "--set", "run_dir=runs/cv")
    said = run("ethanol.extxyz", "--cross-validate", *SMALL, *few)
    assert said.splitlines()[-1] == "chosen configuration: runs/cv/chosen.yaml"
    assert "run directory: runs/cv-chosen\n" in run("runs/cv/chosen.yaml")


def test_a_resumed_run_keeps_its_frames_whatever_becomes_of_the_files(files):
    run("ethanol.extxyz", "--set", "data.test=test.extxyz", *SMALL)
    before = Path("runs/ethanol/split.json").read_text()
    Path("test.extxyz").unlink()
    ase.io.write("ethanol.extxyz", Atoms("H"))
    run("--resume", "runs/ethanol", "--set", "train.steps=3")
    assert Path("runs/ethanol/split.json").read_text() == before
    done = runner.invoke(cli.app, ["train", "--resume", "runs/ethanol", "--set", "data.test=ethanol.extxyz"])
    assert done.exit_code == 1
    assert "a resumed run cannot change data.test" in done.stderr


MISTAKES = {
    "": "name the frames, as in 'sdas train frames.extxyz'",
    "nowhere.xyz": "nowhere.xyz does not exist",
    "a.yaml b.yml": "a.yaml and b.yml: give one configuration",
    "notes.txt": "the name of a configuration ends in .yaml or .yml",
    "ethanol.extxyz --set data.path=test.extxyz": "--set data.path: the training frames are named already",
    "ethanol.extxyz --resume runs/x": "ethanol.extxyz: the run in runs/x has its frames",
    "ethanol.extxyz --energy-key dft_energy": "no frame has dft_energy, which --energy-key asks for",
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_said_and_leave_nothing(words):
    Path("notes.txt").write_text("These are notes.\n")
    done = runner.invoke(cli.app, ["train", *words.split()])
    assert done.exit_code == 1
    assert MISTAKES[words] in done.stderr
    assert not Path("runs").exists() or list(Path("runs").iterdir()) == []


@pytest.mark.usefixtures("files")
def test_processes_do_not_each_take_a_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = runner.invoke(cli.app, ["train", "ethanol.extxyz"])
    assert "name it by --set run_dir=runs/NAME" in done.stderr


@pytest.mark.parametrize("name", ["ethanol.extxyz", "some/ethanol.xyz.gz", "ethanol.cache/", "./ethanol"])
def test_a_run_is_named_from_its_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_run_folder([name, "other.xyz"]) == Path("runs/ethanol")
    Path("runs/ethanol").mkdir(parents=True)
    Path("runs/ethanol-2").symlink_to("nowhere")
    assert new_run_folder([name]) == Path("runs/ethanol-3")


def test_training_and_going_on_with_more_steps(make_config, config_file):
    config = make_config(steps=4, validate_every=2)
    done = runner.invoke(cli.app, ["train", config_file(config)])
    assert done.exit_code == 0, done.output
    assert f"{config.run_dir}: 4 steps" in done.stdout
    assert "validation MAE: forces" in done.stdout
    again = runner.invoke(cli.app, ["train", config_file(config)])
    assert again.exit_code == 1
    assert again.stderr == (
        f"error: {config.run_dir} is not empty; resume it with --resume {config.run_dir}, or choose another run_dir\n"
    )
    more = runner.invoke(cli.app, ["train", "--resume", config.run_dir, "--set", "train.steps=6"])
    assert more.exit_code == 0, more.output
    assert f"{config.run_dir}: 6 steps" in more.stdout


def test_cross_validation_prints_its_table_and_writes_a_configuration_that_trains(make_config, config_file):
    config = make_config(steps=2)
    config.cross_validation = CrossValidationConfig(folds=2, steps=2, energy_weight=[0.1, 1.0])
    done = runner.invoke(cli.app, ["train", config_file(config), "--cross-validate"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split()[:3] == ["energy_weight", "forces_weight", "stress_weight"]
    chosen = done.stdout.splitlines()[-1].removeprefix("chosen configuration: ")
    assert runner.invoke(cli.app, ["train", chosen]).exit_code == 0


@pytest.mark.usefixtures("without_native")
def test_missing_kernels_are_said_in_one_line(make_config, config_file):
    done = runner.invoke(cli.app, ["train", config_file(make_config(steps=1, validate_every=1))])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if "SLOW" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: SLOW: operators run by plain PyTorch")
    assert lines[0].endswith("there are no kernels. What helps: install them")


def test_data_that_are_not_there_are_named_in_one_line(make_config, config_file):
    done = runner.invoke(cli.app, ["train", config_file(make_config()), "--set", "data.path=/no/such/frames"])
    assert done.exit_code == 1
    assert done.stderr == "error: /no/such/frames does not exist\n"


@pytest.mark.parametrize(
    ("account", "command", "said"),
    [
        (
            "rounds.jsonl",
            "train",
            "a run of 'sdas active', of which 'sdas train' knows nothing: go on with",
        ),
        ("rounds.jsonl", "scale", "a run of 'sdas active', of which 'sdas scale' knows nothing"),
        ("ledger.jsonl", "active", "a run of 'sdas scale', of which 'sdas active' knows nothing"),
        ("checkpoints", "active", "a run of 'sdas train', of which 'sdas active' knows nothing"),
        (None, "train", "no run to resume there (config.yaml is missing)"),
        (None, "scale", "no run to resume there (config.yaml is missing)"),
        (None, "active", "no run to resume there (config.yaml is missing)"),
        (None, "report", "is no run directory (config.yaml is missing)"),
    ],
)
def test_a_run_of_another_command_or_none_is_told_and_left_alone(tmp_path, account, command, said):
    """A training in the folder of an ensemble would replace the model there, and its rounds would tell another."""
    if account is not None:
        (tmp_path / "config.yaml").write_text("data: {path: frames.extxyz}\n")
        (tmp_path / account).touch()
    before = sorted(tmp_path.iterdir())
    words = [command, str(tmp_path)] if command == "report" else [command, "--resume", str(tmp_path)]
    result = runner.invoke(cli.app, words)
    assert result.exit_code == 1
    assert said in result.stderr
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != ".sdas-lock"] == before
