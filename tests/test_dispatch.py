"""Dispatch: the fastest backend that serves, a choice that can be forced and is undone, and words that explain it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

import sdas_kernels
from sdas_kernels import dispatch
from sdas_kernels.dispatch import Backend, backend_name, backends, explain, kernels, register, use_backend

OPS = ("edge_softmax", "neighbor_attention", "neighbor_tensor_product", "radial_basis", "spherical_harmonics")


@pytest.fixture
def toy(monkeypatch):
    """An operator "toy" with a reference and a C++ backend for float32 on the CPU, in a registry of its own."""
    for name in ("toy_reference", "toy_cpp"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(dispatch, "_registry", {})
    state = {"built": True}
    register(Backend("toy", "reference", "toy_reference"))
    register(
        Backend(
            "toy",
            "cpp",
            "toy_cpp",
            ("cpu",),
            (torch.float32,),
            lambda: (True, "built") if state["built"] else (False, "no compiler"),
        )
    )
    dispatch._choose.cache_clear()
    yield state
    dispatch._choose.cache_clear()


def test_the_fastest_backend_that_serves(toy):
    assert backend_name("toy", "cpu", torch.float32) == "cpp"
    assert backend_name("toy", "cpu", torch.float64) == "reference"
    assert backend_name("toy", "cuda", torch.float32) == "reference"
    assert kernels("toy", torch.zeros(1)).__name__ == "toy_cpp"
    assert kernels("toy", torch.zeros(1, dtype=torch.float64)).__name__ == "toy_reference"
    assert backends("toy", "cpu", torch.float32) == ["cpp", "reference"]
    assert backends("toy", "cpu", torch.float64) == ["reference"]


def test_an_unavailable_backend_is_passed_over_with_its_reason(toy):
    toy["built"] = False
    assert backend_name("toy", "cpu", torch.float32) == "reference"
    assert backends("toy", "cpu", torch.float32) == ["reference"]
    (row,) = explain("cpu")
    assert row["backend"] == "reference"
    assert "cpp: no compiler" in row["why"]


def test_reasons_are_about_backends_for_the_device(toy):
    """Whatever words they are made of: a CPU's compiler may lack what is called after CUDA."""
    register(Backend("toy", "triton", "toy_triton", ("cuda",), None, lambda: (False, "no driver")))
    register(Backend("other", "reference", "toy_reference"))
    register(Backend("toy", "cpp", "toy_cpp", ("cpu",), None, lambda: (False, "built for cuda and triton only")))
    assert explain("cpu")[1]["why"] == "plain PyTorch, always there; cpp: built for cuda and triton only"
    assert explain("cuda")[1]["why"] == "plain PyTorch, always there; triton: no driver"
    assert explain("cpu")[0]["why"].endswith("; no cpp kernel yet")
    assert explain("cuda")[0]["why"].endswith("; no triton kernel yet")


def test_use_backend_is_undone_after_errors_too(toy):
    with use_backend("reference", "toy"):
        assert backend_name("toy", "cpu", torch.float32) == "reference"
        assert explain("cpu")[0]["why"] == "forced by use_backend"
        with use_backend("cpp"):  # the inner choice for all wins over the outer for one
            assert backend_name("toy", "cpu", torch.float32) == "cpp"
        assert backend_name("toy", "cpu", torch.float32) == "reference"
    with pytest.raises(ZeroDivisionError), use_backend("reference"):
        raise ZeroDivisionError
    assert backend_name("toy", "cpu", torch.float32) == "cpp"


def test_a_forced_backend_that_cannot_run_is_an_error_not_a_fallback(toy):
    message = r"cannot run by backend 'cpp'.*no float64 kernel"
    with use_backend("cpp", "toy"), pytest.raises(RuntimeError, match=message):
        kernels("toy", torch.zeros(1, dtype=torch.float64))
    with use_backend("triton"), pytest.raises(RuntimeError, match="toy has no backend 'triton'"):
        kernels("toy", torch.zeros(1))


def test_unknown_names_are_errors(toy):
    with pytest.raises(ValueError, match="'fast': choose one of cuda, triton, cpp, reference"), use_backend("fast"):
        pass
    with pytest.raises(ValueError, match="operator 'typo': choose among toy"), use_backend("cpp", "typo"):
        pass
    with pytest.raises(ValueError, match="known backends are"):
        register(Backend("toy", "fast", "toy_fast"))


def test_the_choice_holds_for_backward_passes(monkeypatch):
    """The backend forced when a derivative runs is the one that computes it."""
    vectors = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    calls = []
    with use_backend("reference"):
        reference = kernels("radial_basis", vectors)
    monkeypatch.setattr(reference, "backward", lambda *a: calls.append("backward") or torch.zeros(4, dtype=a[1].dtype))
    with use_backend("reference"):
        sdas_kernels.radial_basis(vectors.norm(dim=1), 3, 5.0).sum().backward()
    assert calls == ["backward"]


def test_every_operator_has_a_reference_and_explains_itself():
    assert set(OPS) <= set(dispatch.ops())
    rows = explain("cpu")
    assert [row["op"] for row in rows] == dispatch.ops()
    for row in rows:
        by_choice = [name for name in backends(row["op"], "cpu", torch.float64) if name != "cuequivariance"]
        assert by_choice[-1] == "reference"
        assert row["backend"] in backends(row["op"], "cpu", torch.float32)
        assert row["why"]
    lines = str(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[0].split() == ["op", "device", "dtype", "backend", "why"]
    with use_backend("reference"):
        assert {row["backend"] for row in explain("cpu")} == {"reference"}


def test_cuequivariance_runs_only_where_it_is_asked_for():
    x = torch.randn(2, 3, dtype=torch.float64)
    spec = sdas_kernels.nn.FullTensorProduct("1o", "1o").spec
    assert backend_name("tensor_product", "cpu", torch.bfloat16) == "reference"
    wanted = sdas_kernels.tensor_product(x, x, None, spec)
    with use_backend("cuequivariance", "tensor_product"):
        pytest.importorskip("cuequivariance_torch", reason="cuequivariance-torch is absent: its backend is not tested")
        assert backend_name("tensor_product", "cpu", torch.float64) == "cuequivariance"
        torch.testing.assert_close(sdas_kernels.tensor_product(x, x, None, spec), wanted)
    with pytest.raises(RuntimeError, match="has no backend 'cuequivariance'"), use_backend("cuequivariance"):
        sdas_kernels.spherical_harmonics(x, 2)
