"""The library neither needs nor imports the libraries that it is compared with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sdas_kernels

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import torch
import sdas_kernels as sk
import sdas_kernels.integrations.e3nn

x = torch.randn(4, 3)
module = sk.nn.FullyConnectedTensorProduct("1x1o", "0e+1o", "2x0e+1x1o")
y = sk.nn.SphericalHarmonics("0e+1o", True)(x)
module(x, y).sum().backward()
print("works", *sorted({{"e3nn", "cuequivariance", "sphericart", "opt_einsum"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("absent", [["e3nn", "cuequivariance", "cuequivariance_torch", "sphericart", "scipy"], []])
def test_works_and_imports_none_of_them(absent):
    root = Path(sdas_kernels.__file__).parents[1]
    program = PROGRAM.format(absent=set(absent) or "()")
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.split()) - {"works", "opt_einsum"}  # PyTorch itself may load opt_einsum
    assert "works" in result.stdout
    assert not imported
