"""What the README shows works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def test_python_examples_run(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, str(README), "exec"), {})
    assert "torch.Size([5, 32])" in capsys.readouterr().out


def test_commands_exist_with_the_options_shown(text: str) -> None:
    """Every `sdas ...` line names a command, and options that its help lists."""
    from typer.testing import CliRunner

    from sdas.cli import app

    lines = [line.split("#")[0].split(">")[0].strip() for line in text.splitlines() if line.startswith("    sdas ")]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)[1:]
        command = words[: 2 if words[0] == "data" else 1]
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", shown.output), f"{line}: no option {option}"


def test_no_placeholder_is_left(text: str) -> None:
    assert "MEASURED" not in text
