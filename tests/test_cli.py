"""The root command: quick help, one-line errors, tracebacks on demand."""

from __future__ import annotations

import errno
import os
import sys
import types

import pytest
import typer
from typer.testing import CliRunner

from sdas import cli
from sdas.errors import SdasError

runner = CliRunner()


def test_help_names_every_command_and_imports_none(monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(cli.importlib, "import_module", refuse)
    result = runner.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in cli.COMMANDS)


@pytest.fixture
def failing_command(monkeypatch):
    module = types.ModuleType("failing_command")

    def fail(count: int = 1, kind: str = "ours") -> None:
        faults = {
            "ours": SdasError(f"count {count} is wrong"),
            "lines": SdasError("a name\nof two lines"),
            "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"),
            "nameless": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "bytes": PermissionError(errno.EACCES, os.strerror(errno.EACCES), b"/\xff"),
            "foreign": OSError("timed out"),
            "mistake": ZeroDivisionError("a mistake"),
        }
        raise faults[kind]

    module.fail = fail
    monkeypatch.setitem(sys.modules, "failing_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", ("failing_command", "fail", "Fails."))


@pytest.mark.usefixtures("failing_command")
def test_our_errors_are_one_line_and_exit_status_one():
    result = runner.invoke(cli.app, ["fail", "--count", "3"])
    assert result.exit_code == 1
    assert result.stderr == "error: count 3 is wrong\n"
    assert result.stdout == ""


@pytest.mark.usefixtures("failing_command")
@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("lines", "a name of two lines"),
        ("full", "/a/b: No space left on device"),
        ("nameless", "No space left on device"),
        ("bytes", f"{os.fsdecode(b'/%c' % 255)}: Permission denied"),
        ("foreign", "timed out"),
    ],
)
def test_errors_of_the_system_are_one_line_too(kind, line):
    result = runner.invoke(cli.app, ["fail", "--kind", kind])
    assert result.exit_code == 1
    assert result.stderr_bytes == os.fsencode(f"error: {line}\n")


@pytest.mark.usefixtures("failing_command")
def test_a_mistake_of_ours_keeps_its_traceback():
    assert isinstance(runner.invoke(cli.app, ["fail", "--kind", "mistake"]).exception, ZeroDivisionError)


@pytest.mark.usefixtures("failing_command")
def test_debug_shows_the_traceback():
    result = runner.invoke(cli.app, ["--debug", "fail"])
    assert isinstance(result.exception, SdasError)


def test_every_command_in_the_table_exists():
    for name, (module, attribute, summary) in cli.COMMANDS.items():
        found = getattr(cli.importlib.import_module(module), attribute)
        assert isinstance(found, typer.Typer) or callable(found), name
        assert summary.endswith(".")


def test_unknown_commands_and_bad_configurations(tmp_path):
    assert runner.invoke(cli.app, ["nonsense"]).exit_code == 2
    assert "Did you mean 'train'?" in runner.invoke(cli.app, ["trian"]).stderr
    result = runner.invoke(cli.app, ["train"])
    assert result.exit_code == 1
    assert "--print-config" in result.stderr
    path = tmp_path / "config.yaml"
    path.write_text("data: {path: x}\ntrain: {steps: 1, learnin_rate: 2}\n")
    result = runner.invoke(cli.app, ["train", str(path)])
    assert result.exit_code == 1
    assert "did you mean train.learning_rate?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_print_config_is_a_configuration(tmp_path):
    text = runner.invoke(cli.app, ["train", "--print-config"]).stdout
    path = tmp_path / "config.yaml"
    path.write_text(text)
    again = runner.invoke(cli.app, ["train", str(path), "--print-config", "--set", "train.steps=7"])
    assert again.exit_code == 0
    assert "  steps: 7\n" in again.stdout
