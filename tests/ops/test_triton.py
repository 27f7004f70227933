"""Triton kernels: right by the interpreter and on a GPU, absent until a GPU asks for them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdas_kernels import dispatch, triton_support

CASES = ["triton_cases.py", "triton_tensor_product_cases.py", "triton_tensor_product_conv_cases.py"]
HERE = Path(__file__).parent
HALF = ("tensor_product", "tensor_product_conv")  # those that take float16
OPS = (
    "edge_geometry",
    "edge_softmax",
    "neighbor_attention",
    "neighbor_tensor_product",
    "radial_basis",
    "spherical_harmonics",
    *HALF,
)
WITHOUT_TRITON = importlib.util.find_spec("triton") is None


def run_cases(file: str, **environment: str) -> None:
    """Every case passes, and none is skipped. Triton decides when it is imported whether it interprets."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / file)]
    run = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, cwd=HERE.parents[1])
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout


@pytest.mark.skipif(WITHOUT_TRITON, reason="TRITON ABSENT: its kernels are not tested")
@pytest.mark.parametrize("file", CASES)
def test_kernels_by_the_interpreter(file):
    run_cases(file, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(WITHOUT_TRITON, reason="TRITON ABSENT: its kernels are not tested")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: Triton kernels do not run here")
@pytest.mark.parametrize("file", CASES)
def test_kernels_on_a_gpu(file):
    run_cases(file)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: what runs on one is not tested")
@pytest.mark.parametrize("op", OPS)
def test_a_gpu_runs_triton_kernels(op):
    assert triton_support.available()[0], triton_support.available()[1]
    assert dispatch.backends(op, "cuda", torch.float32)[0] == "triton"


def test_importing_the_package_imports_no_triton():
    code = "import sys, sdas_kernels; sdas_kernels.explain(); print('triton' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False" or torch.cuda.is_available()


@pytest.fixture
def support(monkeypatch):
    triton_support.available.cache_clear()
    yield monkeypatch
    triton_support.available.cache_clear()


def test_says_why_triton_cannot_run(support):
    support.setattr(torch.cuda, "is_available", lambda: False)
    assert triton_support.available() == (False, "no CUDA device")
    triton_support.available.cache_clear()
    support.setattr(torch.cuda, "is_available", lambda: True)
    support.setitem(sys.modules, "triton", None)
    assert triton_support.available() == (False, "triton is not installed")
    triton_support.available.cache_clear()
    support.setitem(sys.modules, "triton", type(sys)("triton"))
    sys.modules["triton"].__version__ = "3.5.1"
    assert triton_support.available() == (False, "triton 3.5.1 is installed, 3.6 or newer is needed")


@pytest.mark.parametrize("op", OPS)
def test_offered_for_gpus_alone(op):
    backend = dispatch._registry[op]["triton"]
    assert backend.serves("cpu", torch.float32) == (False, "runs on cuda only")
    assert (torch.float16 in backend.dtypes) == (op in HALF)
