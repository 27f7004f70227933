"""Hooks of the site's build.

Pages outside of docs/ become pages of the site at the same path, seen from the repository's root, so a link that works
in the repository works in the site. Sphinx roles in docstrings become code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
RESULTS = Path("bench") / "results"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that lie elsewhere."""
    results = {path for path in (ROOT / RESULTS).iterdir() if path.is_file()}
    results |= {path for suffix in ("md", "png", "json") for path in (ROOT / RESULTS).glob(f"*/*.{suffix}")}
    paths = [*ROOT_PAGES, *sorted(str(path.relative_to(ROOT)) for path in results)]
    for path in paths:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between docs/ and the root, as seen from a site in which both are one folder."""
    path = page.file.src_uri
    if path in ROOT_PAGES:
        return markdown.replace("](docs/", "](")
    depth = path.count("/")

    def link(match: re.Match[str]) -> str:
        ups = match[1].count("../")
        return "](" + "../" * (ups - 1 if ups > depth else ups)

    return re.sub(r"\]\(((?:\.\./)+)", link, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """``:class:`X``` in a docstring is the code X."""
    return re.sub(r":(?:class|func|meth|mod|data|attr):(<code)", r"\1", html)
