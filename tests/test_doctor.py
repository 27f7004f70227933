import json

import pytest
import torch
import typer
from typer.testing import CliRunner

import sdas.doctor.timing
import sdas.doctor.timing_cases
from sdas.doctor import CASES, describe_machine, describe_native, describe_versions, is_busy, time_ops
from sdas.doctor.cli import doctor
from sdas.doctor.text import timing_table
from sdas.errors import SdasError
from sdas_kernels import dispatch
from sdas_kernels.ops.tensor_product import tensor_product  # noqa: F401 (registers an operator)


def run(*arguments):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def tiny(monkeypatch):
    """Smaller than what the doctor times, so that the tests are quick."""
    monkeypatch.setattr(sdas.doctor.timing_cases, "SIDE", 2)
    monkeypatch.setattr(sdas.doctor.timing_cases, "PRODUCTS", 20)


def test_every_operator_has_a_timing_case():
    assert sorted(CASES) == dispatch.ops()


@pytest.mark.parametrize("op", sorted(CASES))
def test_each_case_is_differentiable_in_every_operand_twice_if_it_says_so(op, tiny):
    call = CASES[op](torch.device("cpu"), torch.float64)
    operands = [tensor.detach().requires_grad_() for tensor in call.tensors]
    out = call.function(*operands)
    assert out.dtype == torch.float64
    first = torch.autograd.grad(out, operands, torch.cos(out.detach()), create_graph=True)
    assert all(gradient.abs().max() > 0 for gradient in first)
    if not call.twice:
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            torch.autograd.grad(first, operands, [torch.ones_like(g) for g in first], allow_unused=True)
        return
    second = torch.autograd.grad(first, operands, [torch.ones_like(g) for g in first], allow_unused=True)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in second)


def test_every_backend_of_an_operator_is_timed_and_one_is_chosen():
    rows = list(time_ops(ops=["spherical_harmonics"], repeats=1))
    assert sum(row.chosen for row in rows) == 1
    by_backend = {row.backend: row for row in rows}
    assert by_backend["reference"].problem is None
    assert min(by_backend["reference"].row()[k] for k in ("forward_ms", "backward_ms", "double_backward_ms")) > 0
    assert "cpp" in by_backend
    assert "backward" in timing_table(rows)


def test_a_sick_backend_is_reported(monkeypatch):
    def broken(device, dtype):
        call = CASES["radial_basis"](device, dtype)

        def fail(*tensors):
            raise RuntimeError("kernel fell over")

        return type(call)(fail, call.tensors, call.sizes)

    monkeypatch.setattr(sdas.doctor.timing, "CASES", {"spherical_harmonics": broken})
    rows = list(time_ops(ops=["spherical_harmonics"], repeats=1))
    assert "kernel fell over" in rows[-1].problem
    assert "kernel fell over" in timing_table(rows)


def test_descriptions_say_what_is_here():
    machine, versions, native = describe_machine(), describe_versions(), describe_native()
    assert machine["cores_usable"] >= 1
    assert machine["memory_gib"] > 0.5
    assert versions["torch"] == torch.__version__
    assert native.get("simd") in ("baseline", "avx2", "avx512") if native["available"] else native["reason"]


@pytest.mark.usefixtures("without_native")
def test_missing_kernels_are_shown_with_their_cure():
    result = run("--no-timings", "--device", "cpu")
    assert "there are no kernels" in result.output
    assert "install them" in result.output


def test_a_busy_machine_is_said_to_be():
    assert is_busy({"load": 3.0, "cores_usable": 2})
    assert not is_busy({"load": 0.2, "cores_usable": 2})
    assert not is_busy({"load": None, "cores_usable": 2})


def test_json_lists_backends_of_all_operators():
    result = run("--json", "--no-timings")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert {row["op"] for row in found["backends"]} == set(dispatch.ops())
    assert "timings" not in found


def test_tables_time_all_operators(monkeypatch, tiny):
    monkeypatch.setattr(sdas.doctor.timing, "ENOUGH_S", 0)
    result = run("--device", "cpu")
    assert result.exit_code == 0, result.output
    for op in dispatch.ops():
        assert f"*  {op} " in result.output
    assert "machine" in result.output
    assert "no timing case" not in result.output


def test_unknown_options_are_errors():
    assert isinstance(run("--dtype", "float16").exception, SdasError)
    assert isinstance(run("--device", "tpu").exception, SdasError)
