"""The kernels of the network at every SIMD level: what `tests/ops/test_fused_sdas.py` asks, in a process for each."""

from pathlib import Path

import pytest

from sdas_kernels import native

pytestmark = pytest.mark.skipif(not native.available()[0], reason=native.available()[1])


def test_every_level(passes_at_level):
    passes_at_level(Path(__file__).parents[1] / "ops" / "test_fused_sdas.py", "-k", "cpp or threads")
