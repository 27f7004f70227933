"""``sdas train`` from the configuration file to what it prints."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sdas import cli
from sdas.config import CrossValidationConfig, render_config

runner = CliRunner()


@pytest.fixture
def config_file(make_config, tmp_path):
    def write(config):
        path = tmp_path / "config.yaml"
        path.write_text(render_config(config))
        return str(path)

    return write


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
    config.cross_validation = CrossValidationConfig(folds=2, steps=2, lambda_energy=[0.1, 1.0])
    done = runner.invoke(cli.app, ["train", config_file(config), "--cross-validate"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split()[:3] == ["lambda_energy", "lambda_forces", "energy_mae_mev"]
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
