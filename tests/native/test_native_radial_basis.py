"""Native radial basis: every SIMD level against the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdas_kernels import native

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def test_every_simd_level(passes_at_level):
    passes_at_level(Path(__file__).parents[1] / "ops" / "test_radial_basis.py", "-k", "cpp")
