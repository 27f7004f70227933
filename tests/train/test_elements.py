"""A model knows the elements that trained it. One that only other frames hold is an error before any training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

from sdas.cli import app
from sdas.data import Frame, write_cache
from sdas.errors import SdasError, TrainingError
from sdas.evaluate import evaluate
from sdas.md import SDASCalculator
from sdas.run.checkpoint import read_model_document
from sdas.run.model import load_run_model
from sdas.train import train
from sdas.train.cross_validation import cross_validate


def frame(numbers: list[int], name: str) -> Frame:
    rng = np.random.default_rng(len(name))
    positions = 0.5 * np.arange(3.0 * len(numbers)).reshape(-1, 3) + 0.1 * rng.normal(size=(len(numbers), 3))
    forces = rng.normal(size=(len(numbers), 3))
    return Frame(np.array(numbers), positions, None, np.zeros(3, bool), -1.0, forces, None, name)


@pytest.fixture
def mixed(tmp_path):
    """Ten frames of hydrogen and oxygen, and two with nitrogen among them: 5 and 9."""
    made = [frame([8, 1, 7 if k in (5, 9) else 1], f"mixed.xyz: frame {k}") for k in range(12)]
    write_cache(made, tmp_path / "mixed")
    return tmp_path / "mixed"


@pytest.fixture
def divided(mixed, make_config, tmp_path):
    """A function of the indices of each part and overrides, giving a configuration of one step."""

    def divide(parts: dict[str, list[int]], **train_settings):
        (tmp_path / "parts.json").write_text(json.dumps(parts))
        split = {"method": "indices", "indices": str(tmp_path / "parts.json")}
        settings = {"steps": 1, "validate_every": 1, "checkpoint_every": 1, **train_settings}
        return make_config(data={"path": str(mixed), "split": split}, **settings)

    return divide


CLEAN = [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": CLEAN, "validation": [7, 9]}, "1 of the validation frames hold N, .*first mixed.xyz: frame 9"),
        ({"train": CLEAN, "test": [5, 9, 10]}, "2 of the test frames hold N, .*first mixed.xyz: frame 5"),
        ({"train": CLEAN, "validation": [5], "test": [9]}, "validation frames hold N.*; 1 of the test frames hold N"),
    ],
)
def test_an_element_without_training_frames_is_refused_before_training(divided, tmp_path, parts, message):
    with pytest.raises(TrainingError, match=message + r".*data\.split\.seed, method or indices"):
        train(divided(parts))
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_the_species_are_those_of_the_training_frames(divided):
    result = train(divided({"train": CLEAN, "validation": [7]}))
    assert read_model_document(result.run_dir / "model")["config"]["species"] == [1, 8]


def test_frames_outside_the_split_change_nothing(divided):
    with_nitrogen = train(divided({"train": [*CLEAN, 5], "validation": [9]}))
    assert read_model_document(with_nitrogen.run_dir / "model")["config"]["species"] == [1, 7, 8]


def test_named_species_do_not_hide_it(divided, capsys):
    config = divided({"train": CLEAN, "validation": [9]})
    config.model.species = [1, 7, 8]
    with pytest.raises(TrainingError, match="validation frames hold N"):
        train(config)
    config = divided({"train": CLEAN, "validation": [7]})
    config.model.species = [1, 7, 8]
    train(config)
    assert "note: model.species names N, which no training frame holds" in capsys.readouterr().err


def test_cross_validation_refuses_a_fold_that_alone_holds_an_element(divided):
    config = divided({"train": [*CLEAN, 5], "validation": [7]})
    with pytest.raises(TrainingError, match=r"1 of the fold \d's frames hold N"):
        cross_validate(config)


@pytest.mark.parametrize("by", ["composition", "indices"])
def test_a_split_that_leaves_such_a_case_says_so(mixed, tmp_path, by):
    (tmp_path / "parts.json").write_text(json.dumps({"train": CLEAN, "validation": [5, 7]}))
    how = {"composition": ["--sizes", "10,2,0", "--seed", "1"], "indices": ["--indices", str(tmp_path / "parts.json")]}
    arguments = ["data", "split", str(mixed), "--by", by, *how[by], "--to", str(tmp_path / "s.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "of the validation frames hold N, which no training frame holds" in result.stderr


def test_evaluation_and_dynamics_name_the_element_and_what_to_do(divided):
    model = load_run_model(train(divided({"train": CLEAN, "validation": [7]})).run_dir)
    with pytest.raises(SdasError, match=r"a\.xyz: frame 0: the model does not know N; .*Train on frames with N"):
        evaluate(model, [frame([8, 7], "a.xyz: frame 0")])
    atoms = Atoms("ON", [[0.0, 0, 0], [1.1, 0, 0]])
    atoms.calc = SDASCalculator(model)
    with pytest.raises(SdasError, match="the model does not know N; it was trained on H, O; train with N"):
        atoms.get_potential_energy()
