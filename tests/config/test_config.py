"""A configuration is refused with a message that says where and how to put it right, and survives being written."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from sdas.config import ModelConfig, default_config, load_config, load_data_config, parse_config, render_config
from sdas.errors import ConfigError
from sdas.files import write_text
from sdas_kernels.nn import SDAS

MINIMAL = "data: {path: frames}\ntrain: {steps: 100}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rendered_default_is_valid_yaml_and_says_the_same(tmp_path):
    text = render_config(default_config())
    again = load_config(write(tmp_path, text))
    again.data.path = default_config().data.path
    assert again == default_config()
    assert "# Å. Atoms closer than this see each other." in text
    keys = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    comments = [line for line in text.splitlines() if line.strip().startswith("#")]
    assert len(comments) >= len(keys)


def test_overrides_are_applied_and_typed(tmp_path):
    overrides = ["train.learning_rate=1e-3", "model.species=[1, 8]", "train.deterministic=true"]
    config = load_config(write(tmp_path, MINIMAL), overrides)
    assert config.train.learning_rate == 1e-3
    assert config.model.species == [1, 8]
    assert config.train.deterministic is True
    assert load_config(None, ["data.path=x", "train.minutes=0.5"]).train.minutes == 0.5


def test_an_override_takes_the_place_of_the_other_key_in_the_file(tmp_path):
    path = write(tmp_path, MINIMAL)
    assert load_config(path, ["train.minutes=3"]).train.steps is None
    assert load_config(path, ["data.train=other"]).data.path == os.path.abspath("other")
    with pytest.raises(ConfigError, match="train: give one of steps and minutes, not both"):
        load_config(path, ["train.minutes=3", "train.steps=4"])
    with pytest.raises(ConfigError, match="data: path and train are two names of the same key"):
        load_config(path, ["data.path=a", "data.train=b"])


def test_a_run_that_is_told_no_end_takes_half_an_hour(tmp_path):
    assert load_config(None, ["data.path=x"]).train.minutes == 30
    assert load_config(None, ["data.path=x", "train.steps=5"]).train.minutes is None


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write(tmp_path, MINIMAL), ["data.validation=v", "data.test=[a, b]"])
    assert config.data.path == str(tmp_path / "frames")
    assert config.data.files() == {
        "train": [str(tmp_path / "frames")],
        "validation": [str(tmp_path / "v")],
        "test": [str(tmp_path / "a"), str(tmp_path / "b")],
    }


@pytest.mark.parametrize("override", ["data.train=[]", "data.test=''", "data.validation=[a, '']"])
def test_no_files_and_empty_names_are_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="empty"):
        load_config(write(tmp_path, MINIMAL), [override])


def test_indices_divide_one_set_of_frames(tmp_path):
    split = ["data.split.method=indices", "data.split.indices=x.json"]
    assert load_config(write(tmp_path, MINIMAL), split)
    with pytest.raises(ConfigError, match="leave out validation and test"):
        load_config(write(tmp_path, MINIMAL), [*split, "data.test=t"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learnin_rate=1", r"train.learnin_rate is not a key; did you mean train.learning_rate\?"),
        ("learning_rate=1", r"learning_rate is not a key; did you mean train.learning_rate\?"),
        ("data.split.fractions=[0.8,0.1,0.1]", r"fractions is not a key; the keys here are method, sizes"),
        ("data.split.size=[1,2,3]", r"did you mean data.split.sizes\?"),
        ("model.zzz=1", r"model.zzz is not a key; the keys here are species, channels"),
        ("train.learning_rate=-1", r"train.learning_rate: input should be greater than 0, got -1"),
        ("train.learning_rate=.nan", "train.learning_rate: .*finite"),
        ("train.optimizer=sgd", "train.optimizer: input should be 'adam', 'adamw' or 'muon', got 'sgd'"),
        ("model.heads=5", "model: heads must divide channels, got heads 5 and channels 32"),
        ("data.split.sizes=[0.9, 0.2, 0.1]", "fractions must sum to at most 1"),
        ("data.split.sizes=[900, 0.2, 0]", "whole numbers"),
        ("data.split.sizes=[.nan, 0.1, 0]", r"\.yaml: data.split.sizes.0: [a-z ]* finite number, got nan$"),
        ("data.split.method=indices", "go together"),
        ("train.energy_weight=-1", "greater than or equal to 0"),
        ("train", "must read section.key=value"),
        ("train.steps.x=1", "steps is not a section"),
        ("train.steps=[", "not valid YAML"),
    ],
)
def test_mistakes_are_explained(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, MINIMAL), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 1}", "data is missing"),
        ("- a", "must hold sections"),
        ("a: [", "not valid YAML"),
        ("", "data is missing"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_parsing_does_not_need_a_file():
    assert parse_config({"data": {"path": "/x"}, "train": {"steps": 3}}, "test").train.batch_size == 4


@pytest.mark.parametrize(
    ("given", "rate", "weight"),
    [
        ({}, 0.01, 0.4),
        ({"optimizer": "adam"}, 0.005, 0.4),
        ({"loss": "squared"}, 0.01, 4.0),
        ({"optimizer": "adamw", "learning_rate": 1e-3, "loss": "huber", "energy_weight": 2.0}, 1e-3, 2.0),
    ],
)
def test_the_rate_follows_the_optimizer_and_the_energy_weight_the_loss(given, rate, weight):
    settings = parse_config({"data": {"path": "/x"}, "train": {"steps": 3, **given}}, "test").train
    assert (settings.learning_rate, settings.energy_weight) == (rate, weight)


def test_one_of_three_says_how_large_a_batch_is():
    def parse(**train):
        return parse_config({"data": {"path": "/x"}, "train": {"steps": 3, **train}}, "test").train

    assert parse().batch_budget == parse(batch_atoms=None).batch_budget == ("size", 4)
    assert parse(batch_atoms=500).batch_budget == ("atoms", 500)
    assert parse(batch_size=None, batch_edges=9000).batch_budget == ("edges", 9000)
    with pytest.raises(ConfigError, match="give one of batch_size and batch_atoms, and null for the rest"):
        parse(batch_size=8, batch_atoms=500)


def test_the_section_model_has_the_arguments_of_the_model_and_its_defaults_but_for_two():
    chosen = {"n_radial": 5, "node_product": True}
    signature = inspect.signature(SDAS.__init__).parameters
    named = {name: p.default for name, p in signature.items() if p.kind is p.POSITIONAL_OR_KEYWORD and name != "self"}
    section = ModelConfig()
    assert set(ModelConfig.model_fields) - {"options"} == set(named)
    for name, default in named.items():
        if name != "species":
            assert getattr(section, name) == chosen.get(name, default)


def test_the_paper_layer_has_no_product_unless_asked_for():
    assert ModelConfig(layer="paper").node_product is False
    assert ModelConfig(layer="paper", node_product=True).node_product is True  # which the model refuses, by name


@pytest.mark.parametrize(
    "name",
    [
        "b #2",
        "a: b",
        "-x",
        "a\nb",
        "\x85 ",
        " 'q\" ",
        "[a]",
        "{a}",
        "*a",
        "null",
        "1",
        "~",
        "\t",
        "ü狮",
        os.fsdecode(b"\xff"),
    ],
)
def test_any_name_survives_the_file(tmp_path, name):
    config = parse_config({"run_dir": name, "data": {"path": [f"/{name}", "/b"]}, "train": {"steps": 1}}, "test")
    path = tmp_path / "c.yaml"
    write_text(path, render_config(config))
    assert load_config(path) == config
    assert load_config(path).run_dir == name


@pytest.mark.parametrize("section", ["train", "cross_validation"])
def test_weights_of_earlier_versions_are_not_taken_for_those_of_now(section):
    with pytest.raises(ConfigError, match=rf"{section}\.lambda_energy is gone: .*N² times the old number"):
        load_config(None, ["data.path=x", "train.steps=1", f"{section}.lambda_energy=0.1"])
    with pytest.raises(ConfigError, match=rf"{section}\.lambda_forces is gone: its name is forces_weight"):
        load_config(None, ["data.path=x", "train.steps=1", f"{section}.lambda_forces=1.0"])


def test_the_data_of_a_run_of_an_earlier_version_can_still_be_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data:\n  path: /frames\n  units: Ha\ntrain:\n  steps: 5\n  lambda_energy: 0.1\n")
    with pytest.raises(ConfigError, match=r"train\.lambda_energy is gone"):
        load_config(path)
    assert (load_data_config(path).path, load_data_config(path).units) == ("/frames", "Ha")


def test_another_limit_of_batches_takes_the_place_of_the_one_in_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {path: x}\ntrain: {batch_size: 8}\n")
    assert load_config(tmp_path / "run.yaml", ["train.batch_atoms=500"]).train.batch_budget == ("atoms", 500)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer=[adam]", "train.optimizer: input should be 'adam', 'adamw' or 'muon', got"),
        ("train.loss={norm: 1}", "train.loss: input should be 'squared', 'huber' or 'norm'"),
        (
            "train.energy_reference=-13.6",
            "train.energy_reference: must be auto, fit, isolated, a file, or a mapping",
        ),
        ("train.config_type_weights={Default: 0, bulk: 0}", "train: config_type_weights are all 0: nothing to learn"),
    ],
)
def test_settings_that_teach_nothing_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["data.path=x", override])
