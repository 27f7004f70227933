"""Versions of what takes part, and the state of the compiled extension."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import sdas_kernels
from sdas_kernels import native

PACKAGES = ("triton", "numpy", "vesin", "ase", "e3nn")


def describe_versions() -> dict[str, str | None]:
    """Version by name; None for what is not installed."""
    found: dict[str, str | None] = {
        "sdas_kernels": sdas_kernels.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def describe_native() -> dict[str, Any]:
    """available, and with it version and simd of the extension, or else the reason why there is none, and the cure."""
    usable, reason = native.available()
    if not usable:
        return {"available": False, "reason": reason, "cure": native.cure()}
    return {"available": True, "version": native.version(), "simd": native.simd()}
