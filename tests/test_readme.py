"""What the README and the pages show works: Python is run, commands of `sdas` are run or at least understood.

In a page, ```bash marks commands that are run here, after the Python above them and in the same folder; ```shell
marks those that take too long or need files that are not there: their options are parsed.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [page for page in (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.is_file()]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODULES = {"e3nn": "e3nn", "ase": "ase", "sdas": "pydantic"}  # what a page needs besides the library


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """The words of every line, comments left out."""
    return [words for words in (shlex.split(line, comments=True) for line in text.splitlines()) if words]


def pages_with(*languages: str) -> list[Any]:
    """Parameters: the pages that have such blocks."""
    chosen = [page for page in PAGES if any(language in languages for language, _ in blocks(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in chosen]


@pytest.mark.parametrize("page", pages_with("python", "bash"))
def test_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8")
    for name, module in MODULES.items():
        if f"from {name}" in text:
            pytest.importorskip(module, reason=f"{module.upper()} ABSENT: the examples of {page.name} are not run")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for language, example in blocks(page):
        if language == "python":
            exec(compile(example, str(page), "exec"), names)
        for words in commands(example) if language == "bash" else ():
            assert words.pop(0) == "sdas", f"only sdas can be run here: {example}"
            run(words)
    if page == README:
        assert "torch.Size([5, 32])" in capsys.readouterr().out


def run(words: list[str]) -> None:
    """One command, whose output may go to a file."""
    from typer.testing import CliRunner

    from sdas.cli import app

    target = words[words.index(">") + 1] if ">" in words else None
    result = CliRunner().invoke(app, words[: words.index(">")] if target else words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"sdas {shlex.join(words)}: {result.output}"
    if target:
        Path(target).write_text(result.stdout, encoding="utf-8")


@pytest.mark.parametrize("page", pages_with("shell"))
def test_commands_are_understood(page: Path) -> None:
    """A command of `sdas` has the arguments and options shown; a target of make, a file of pytest or bash is there."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M) if (ROOT / "Makefile").is_file() else None
    for language, text in blocks(page):
        for words in commands(text) if language == "shell" else ():
            if "sdas.cli" in words:
                words = ["sdas", *words[words.index("sdas.cli") + 1 :]]
            if words[0] == "sdas":
                parse(words[1 : words.index(">")] if ">" in words else words[1:])
            elif words[0] == "make" and targets is not None:
                assert words[1] in targets, f"{page}: no target {words[1]}"
            for word in words[1:] if (ROOT / "bench").is_dir() else ():
                if word.startswith(("tests/", "bench/")):
                    assert (ROOT / word).exists(), f"{page}: no file {word}"


def parse(words: list[str]) -> None:
    """Raise where `sdas` would refuse the arguments."""
    import typer

    from sdas.cli import app

    name, command, parent = "sdas", typer.main.get_command(app), None
    while hasattr(command, "resolve_command"):  # a group of commands
        parent = command.make_context(name, [], parent=parent, resilient_parsing=True)
        found, subcommand, words = command.resolve_command(parent, words)
        assert found is not None, f"sdas: no command {words}"
        name, command = found, subcommand
    command.make_context(name, words, parent=parent)


def test_no_placeholder_is_left() -> None:
    for page in PAGES:
        assert not re.search(r"MEASURED|TODO|FIXME|XXX", page.read_text(encoding="utf-8")), page
