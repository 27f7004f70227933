"""Why the compiled extension cannot be imported or used, and what helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from sdas_kernels.native_sources import stamp

STEM = "_native"


class Missing(NamedTuple):
    """why: what is the matter. cure: what to do about it."""

    why: str
    cure: str


def missing_native(error: ImportError, package: Path) -> Missing:
    """Of the error that the import of the extension in the folder `package` ended in."""
    present = [path for path in sorted(package.glob(f"{STEM}.*")) if path.suffix in (".so", ".pyd")]
    ours = [path for path in present if _is_for_this_python(path)]
    root = package.parent
    anew = f"pip install {root}" if _is_source(root) else "pip install --force-reinstall --no-deps sdas-kernels"
    if ours:
        return Missing(f"the compiled kernels {ours[0]} cannot be loaded: {error}", f"install the package anew: {anew}")
    if present:
        wanted = f"{STEM}{EXTENSION_SUFFIXES[0]}"
        return Missing(
            f"the compiled kernels {present[0]} are for another Python; this one loads {wanted}",
            f"install the package for this Python: {anew}",
        )
    installed = next(_installed_elsewhere(package), None)
    if installed is not None:
        return Missing(
            f"the package was imported from {package}, which has no compiled kernels and hides the installed "
            f"package {installed}, which has them",
            f"start Python in a folder other than {root}, or as python -P, and keep that folder out of PYTHONPATH",
        )
    return Missing(f"the package {package} has no compiled kernels", f"build and install it: {anew}")


def check_made_of(module: ModuleType, package: Path, version: str) -> None:
    """The extension is of the package's version and, in a tree of sources, of these: kernels trust what they are given.

    Raises ImportError that says what to do.
    """
    root, made = package.parent, getattr(module, "version", "unknown")
    if made != version:
        anew = "make native" if _is_source(root) else "pip install --force-reinstall --no-deps sdas-kernels"
        raise ImportError(
            f"the compiled kernels {module.__file__} are of version {made}, the package {package} is of {version}: "
            f"install or build them anew: {anew}"
        )
    if _is_source(root) and getattr(module, "sources", None) != stamp(root / "csrc"):
        raise ImportError(
            f"the compiled kernels {module.__file__} are of other sources than {root / 'csrc'}: "
            f"build them anew, in {root}: make native"
        )


def _is_source(root: Path) -> bool:
    return (root / "CMakeLists.txt").is_file() and (root / "csrc").is_dir()


def _is_for_this_python(path: Path) -> bool:
    return any(path.name == f"{STEM}{suffix}" for suffix in EXTENSION_SUFFIXES)


def _installed_elsewhere(package: Path) -> Iterator[Path]:
    """Packages of the same name on the path that have an extension for this Python."""
    for entry in sys.path:
        other = Path(entry or ".").resolve() / package.name
        if other != package and any((other / f"{STEM}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            yield other
