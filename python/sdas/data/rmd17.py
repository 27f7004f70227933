"""Where the revised MD17 data set is published as .npz files, and how to get them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdas.data.download import Progress, RemoteFile, download
from sdas.data.errors import DataError

BASE_URL = "https://raw.githubusercontent.com/andersx/rmd17-npz/4f6bb0a186822c90d47cd98b7a27991fe0b3173b/rmd17-npz"
"""Folder of the files, at the commit to which the checksums in rmd17_files.json belong."""
MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
SPLITS = (1, 2, 3, 4, 5)


def known_files() -> dict[str, dict[str, Any]]:
    """File name → ``bytes`` and ``sha256`` of all 100 published files."""
    table = Path(__file__).with_name("rmd17_files.json")
    return dict(json.loads(table.read_text(encoding="utf-8")))


def remote_files(molecule: str, split: int, base_url: str = BASE_URL) -> list[RemoteFile]:
    """The training and test files of ``molecule``, or of all ten for ``all``, for one of the five splits.

    Raises :class:`DataError` for an unknown molecule or split.
    """
    if molecule != "all" and molecule not in MOLECULES:
        raise DataError(f"no molecule {molecule!r} in rMD17; it has {', '.join(MOLECULES)}, or say all")
    if split not in SPLITS:
        raise DataError(f"rMD17 has the splits 1 to 5, got {split}")
    names = [
        f"rmd17_{name}_{part}_{split:02d}.npz"
        for name in (MOLECULES if molecule == "all" else (molecule,))
        for part in ("train", "test")
    ]
    table = known_files()
    return [RemoteFile(f"{base_url.rstrip('/')}/{name}", **table[name]) for name in names]


def fetch_rmd17(
    molecule: str,
    folder: Path,
    *,
    split: int = 1,
    base_url: str = BASE_URL,
    progress: Callable[[str], Progress] | None = None,
) -> list[Path]:
    """Download the files of ``molecule`` into ``folder``, verified; files already there are kept. Returns their paths.

    ``progress`` is called with each file name and gives what :func:`sdas.data.download.download` reports to.
    """
    paths = []
    for remote in remote_files(molecule, split, base_url):
        name = remote.url.rpartition("/")[2]
        download(remote, folder / name, progress(name) if progress else None)
        paths.append(folder / name)
    return paths
