"""`sdas validate`: a line per check, a sealed document, a page, and an exit status."""

import json
import re

import pytest
from ase.io import write
from typer.testing import CliRunner

from sdas.cli import app
from sdas.documents import read_document
from sdas.interpret.bonds import atoms_of
from sdas.run.checkpoint import save_model


@pytest.fixture
def arguments(make_model, frames, tmp_path):
    save_model(tmp_path / "model", make_model(channels=4, heads=4, lmax=1, layers=1))
    write(tmp_path / "frames.extxyz", [atoms_of(frame) for frame in frames[:1]])
    paths = [str(tmp_path / "model"), "--data", str(tmp_path / "frames.extxyz"), "--json", str(tmp_path / "out.json")]
    return ["validate", *paths, "--md-steps", "20"]


def test_an_untrained_model_gives_status_one_numbers_and_a_page(arguments, tmp_path):
    result = CliRunner().invoke(app, arguments)
    document = read_document(tmp_path / "out.json")
    status = [check["status"] for check in document["checks"]]
    assert result.exit_code == (1 if "fail" in status else 0) == 1, result.output
    assert "FAIL" in result.output
    assert sum(result.output.count(word) for word in ("PASS  ", "FAIL  ", "SKIPPED")) == len(status)
    page = (tmp_path / "out.html").read_text()
    assert page.count("<svg") == len(document["curves"]) > 3
    assert not re.search(r"(?:src|href)=[\"']https?:", page)


def test_a_sound_model_gives_status_zero(arguments, monkeypatch, tmp_path, pair_potential):
    monkeypatch.setattr("sdas.run.model.load_run_model", lambda path: pair_potential())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.json").read_text())["passed"]


def test_a_reference_that_is_not_there_is_named(arguments):
    result = CliRunner().invoke(app, [*arguments, "--reference", "nowhere:Thing"])
    assert result.exit_code == 1
    assert "--reference nowhere:Thing" in result.output


def test_a_killed_suite_leaves_what_was_there_and_runs_again(arguments, tmp_path, killed_at_write):
    """Nothing before the first result; the former one until the next is whole."""
    command = [*arguments, "--frames", "1"]
    killed_at_write(1, lambda: CliRunner().invoke(app, command))
    assert not (tmp_path / "out.json").exists()
    CliRunner().invoke(app, command)
    whole = read_document(tmp_path / "out.json")
    killed_at_write(1, lambda: CliRunner().invoke(app, [*command, "--md-steps", "0"]))
    assert read_document(tmp_path / "out.json") == whole
    again = CliRunner().invoke(app, command)
    assert "written" in again.output, again.output
    assert read_document(tmp_path / "out.json")["checks"] == whole["checks"]
