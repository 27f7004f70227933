"""What the tests of native kernels share: runs of tests by the kernels of each SIMD level."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(params=("baseline", "avx2", "avx512"))
def passes_at_level(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`passes_at_level(file, *options, timeout=300)`: its tests pass by the kernels of the SIMD level in turn."""
    if "SDAS_KERNELS_SIMD" in os.environ:
        pytest.skip("is itself a run at one level")
    environment = os.environ | {"SDAS_KERNELS_SIMD": request.param}
    probe = [sys.executable, "-P", "-c", "from sdas_kernels import native; print(native.simd())"]
    found = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False)
    if "supports no more than" in found.stderr:
        pytest.skip(f"this processor lacks {request.param}")
    assert found.stdout.strip() == request.param

    def run(file: str | Path, *options: str, timeout: int = 300) -> None:
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "--import-mode=importlib", *options, str(file)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        assert result.returncode == 0, result.stdout[-3000:]

    return run
