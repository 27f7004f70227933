"""The pages are built without a warning, lead somewhere, and can be read: short sentences, few numbers in a cell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PROSE = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(DOCS.rglob("*.md"))
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PROSE]
MOST_WORDS, MOST_NUMBERS = 30, 3

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the tests stand alone, without the source tree")


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the navigation, every link and every name in the reference is found."""
    pytest.importorskip("mkdocstrings", reason="MKDOCS ABSENT: pip install .[docs]; the pages are not built")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    site = tmp_path / "site"
    assert "spherical_harmonics" in (site / "api" / "operators.html").read_text(encoding="utf-8")
    remote = re.compile(r"""<(?:link[^>]+href|script[^>]+src|img[^>]+src)=["']?https?:""")
    assert [str(page.relative_to(site)) for page in site.rglob("*.html") if remote.search(page.read_text())] == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"[\w/.]+\.md", text[text.index("\nnav:") :])
    assert sorted(listed) == sorted(set(listed))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= set(listed)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(page)):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: Path) -> None:
    long = [sentence for sentence in sentences(page) if len(sentence.split()) > MOST_WORDS]
    assert long == [], f"more than {MOST_WORDS} words"


@pytest.mark.parametrize("page", PAGES)
def test_a_cell_of_a_table_holds_few_numbers(page: Path) -> None:
    rows = [line for line in without_code(page).splitlines() if line.startswith("|")]
    cells = [re.sub(r"`[^`]*`", "", cell) for row in rows for cell in row.strip("|").split("|")]
    crowded = [cell for cell in cells if len(re.findall(r"(?<![\w.])\d[\d ]*(?:\.\d+)?", cell)) > MOST_NUMBERS]
    assert crowded == [], f"more than {MOST_NUMBERS} numbers"


def test_where_is_what_names_files_that_are_there() -> None:
    """Ten questions, each answered by at most two files."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in re.findall(r"^\| .*\? \|.*\|$", text, re.MULTILINE)]
    assert len(rows) >= 10
    for question, answer in rows:
        files = re.findall(r"`([^`]+)`", answer)
        assert 1 <= len(files) <= 2, question
        assert [file for file in files if not (ROOT / file).is_file()] == [], question


def test_the_picture_shows_the_recorded_results() -> None:
    picture = pytest.importorskip("picture", reason="there is no bench/")
    record = picture.json.loads(picture.RECORD.read_text(encoding="utf-8"))
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.picture(record), "run python bench/picture.py"


def test_lint_runs_every_hook_on_every_file() -> None:
    hooks = re.findall(r"- id: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {"ruff-check", "ruff-format", "clang-format", "mypy"} == set(hooks)
    (lint,) = re.findall(r"^lint:.*\n(?:\t.*\n)*", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert "pre-commit run --all-files" in lint
    assert "SKIP" not in lint


def without_code(page: Path) -> str:
    """The text without fenced and indented blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^(?: {4}|::: ).*$", "", text, flags=re.MULTILINE)


def sentences(page: Path) -> Iterator[str]:
    """Sentences of paragraphs and list items; code counts as one word, a link as its text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`\n]*`", "code", without_code(page)))
    for block in re.split(r"\n\s*\n|\n(?=[-*] )", text):
        if not block.lstrip().startswith(("|", "#", "!!!")):
            yield from re.split(r"(?<=[.!?])\s+", " ".join(block.split()))
