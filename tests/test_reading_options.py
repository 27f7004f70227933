"""One set of options says how raw files are read, wherever that happens, and advice about it can be followed there."""

from __future__ import annotations

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import molecule
from typer.main import get_command
from typer.testing import CliRunner

import sdas.data
from sdas.cli import app
from sdas.config import DataConfig, default_config, load_config, render_config
from sdas.config.reading import ReadingOptions, advice, flag_of, make_reading_options
from sdas.data import FrameCache, read_frames
from sdas.errors import ConfigError

COMMANDS = (("data", "convert"), ("data", "info"), ("train",), ("evaluate",), ("md",))
EXAMPLES = {
    "format": "ase:extxyz",
    "units": "kcal/mol",
    "energy_key": "ccsd_energy",
    "forces_key": "ccsd_forces",
    "stress_key": "ccsd_stress",
    "weight_key": "weight",
    "type_map": ["O", "H"],
    "cell": [9.5, 10.0, 11.25],
    "skip": "incomplete",
    "check_units": False,
    "allow_zeroed_forces": True,
}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flags_of(command):
    found = get_command(app)
    for name in command:
        found = found.get_command(found.make_context("sdas", [], resilient_parsing=True), name)
    return {flag for parameter in found.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def two_labelled(path, count=6):
    """Frames with two sets of labels that disagree."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        atoms.info.update(REF_energy=float(rng.normal()), ccsd_energy=float(rng.normal()) - 10.0)
        atoms.set_array("REF_forces", rng.normal(size=(3, 3)))
        atoms.set_array("ccsd_forces", 5 * rng.normal(size=(3, 3)))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def test_there_is_an_example_of_every_option():
    assert set(EXAMPLES) == set(ReadingOptions.model_fields)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_that_reads_files_has_a_flag_for_every_option(command, name):
    assert {flag_of(name, True), flag_of(name, False)} <= flags_of(command)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_option_is_an_explained_key_of_a_configuration(tmp_path, name):
    config = load_config(None, ["data.path=x", "train.steps=1"], {f"data.{name}": EXAMPLES[name]})
    assert getattr(config.data.reading(), name) == EXAMPLES[name]
    (tmp_path / "a.yaml").write_text(render_config(config))
    assert load_config(tmp_path / "a.yaml") == config
    lines = render_config(default_config()).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith(f"  {name}:"))
    assert lines[place - 1].startswith("  # ")


@pytest.mark.parametrize("name", EXAMPLES)
def test_advice_is_followed_in_all_three_places(name):
    value = EXAMPLES[name]
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    said = re.fullmatch(r"(\w+)=(.*) \((--\S+)(?: (\S+))?; (data\.\w+: .*) in a configuration\)", advice(name, text))
    assert said is not None
    assert make_reading_options({said[1]: yaml.safe_load(said[2])}).model_dump()[name] == value
    given = {flag_of(name, value): value if isinstance(value, bool) else text}
    assert said[3] in given
    key, _, words = said[5].partition(": ")
    assert getattr(load_config(None, ["data.path=x", "train.steps=1", f"{key}={words}"]).data, name) == value


def test_every_flag_in_a_message_about_data_exists_wherever_it_is_printed():
    folder = Path(sdas.data.__file__).parent
    everywhere = set.intersection(*map(flags_of, COMMANDS))
    of_one_command = {"--overwrite", "--to"}  # printed by the one that has it: convert, or split
    named = 0
    for path in sorted(folder.rglob("*.py")):
        if path.name == "cli.py":
            continue
        text = path.read_text(encoding="utf-8")
        for flag in re.findall(r"--[a-z][a-z-]+", text):
            assert flag in everywhere | of_one_command, f"{path.name}: {flag}"
        for name, value in re.findall(r"advice\(f?[\"']([\w{}]+)[\"'], ([^)]+)\)", text):
            named += 1
            for filled in (name.replace("{label}", label) for label in ("energy", "forces", "stress")):
                assert filled in ReadingOptions.model_fields, f"{path.name}: {filled}"
            assert value
    assert named > 8


def test_mistakes_name_the_option_and_its_flag(tmp_path):
    with pytest.raises(ConfigError, match=r"skip \(--skip\): input should be 'nothing' or 'incomplete', got 'all'"):
        make_reading_options({"skip": "all"})
    with pytest.raises(ConfigError, match=r"^cell \(--cell\): a cell is three lengths or nine numbers in Å, not 2"):
        make_reading_options({"cell": [9.8, 9.8]})
    with pytest.raises(ConfigError, match="energy is no option of reading; there are: format, units, energy_key"):
        read_frames(two_labelled(tmp_path / "a.xyz"), energy="ccsd_energy")
    result = run("data", "info", tmp_path / "a.xyz", "--skip", "all")
    assert result.exit_code == 1
    assert "skip (--skip): input should be" in result.stderr


def test_a_configuration_and_a_command_read_alike(tmp_path):
    source = two_labelled(tmp_path / "a.xyz")
    keys = ["--energy-key", "ccsd_energy", "--forces-key", "ccsd_forces"]
    result = run("data", "convert", source, "--to", tmp_path / "c", *keys)
    assert result.exit_code == 0, result.output
    assert "labels: energy from ccsd_energy; forces from ccsd_forces" in result.output
    assert "labels: energy from ccsd_energy; forces from ccsd_forces" in run("data", "info", tmp_path / "c").output
    shown = run("train", "--print-config", "--set", f"data.path={source}", "--set", "train.steps=1", *keys)
    content = yaml.safe_load(shown.stdout)["data"]
    assert (content["energy_key"], content["forces_key"]) == ("ccsd_energy", "ccsd_forces")
    data = DataConfig(**{key: value for key, value in content.items() if key != "split"})
    frames = list(read_frames(source, **data.reading().model_dump()))
    assert [frame.energy for frame in FrameCache.open(tmp_path / "c")] == [frame.energy for frame in frames]


def test_a_resumed_run_does_not_take_them(tmp_path):
    result = run("train", "--resume", tmp_path, "--energy-key", "x")
    assert isinstance(result.exception, SystemExit)
    assert "--energy-key: the run in" in result.stderr
