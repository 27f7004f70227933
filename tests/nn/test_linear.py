"""The equivariant linear map: its formula, equivariance, derivatives."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from sdas_kernels.irreps import mul_ir_from_rows
from sdas_kernels.nn import EquivariantLinear

F64 = torch.float64


def made(lmax=2, channels_in=3, channels_out=5, bias=False):
    module = EquivariantLinear(lmax, channels_in, channels_out, bias).to(F64)
    if bias:
        torch.nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_is_its_formula(lmax, bias):
    module = made(lmax, bias=bias)
    x = torch.randn(4, (lmax + 1) ** 2, 3, dtype=F64)
    wanted = torch.zeros(4, (lmax + 1) ** 2, 5, dtype=F64)
    for l in range(lmax + 1):
        for row in range(l * l, (l + 1) ** 2):
            wanted[:, row] = x[:, row] @ module.weight[l].detach()
    if bias:
        wanted[:, 0] += module.bias.detach()
    torch.testing.assert_close(module(x).detach(), wanted, rtol=1e-13, atol=1e-13)


def test_is_e3nns_linear():
    """e3nn divides by √channels_in at run time; here that factor is in the initial weight."""
    module = made()
    theirs = o3.Linear("3x0e+3x1o+3x2e", "5x0e+5x1o+5x2e").to(F64)
    with torch.no_grad():
        theirs.weight.copy_(module.weight.flatten() * 3**0.5)
    x = torch.randn(4, 9, 3, dtype=F64)
    wanted = theirs(mul_ir_from_rows(x, "3x0e+3x1o+3x2e"))
    torch.testing.assert_close(mul_ir_from_rows(module(x), "5x0e+5x1o+5x2e"), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64_by_default")
def test_rotating_the_input_rotates_the_output():
    d = o3.Irreps("0e+1o+2e").D_from_matrix(-o3.rand_matrix())
    module, x = made(bias=True), torch.randn(4, 9, 3, dtype=F64)
    rotated = torch.einsum("mn,bnc->bmc", d, module(x))
    torch.testing.assert_close(module(torch.einsum("mn,bnc->bmc", d, x)), rotated, rtol=1e-11, atol=1e-11)


def test_derivatives():
    module = made(1, 2, 3, bias=True)
    operands = [torch.randn(2, 4, 2, dtype=F64), module.weight.detach().clone(), module.bias.detach().clone()]

    def function(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    for moving in range(3):
        inputs = [t.requires_grad_(i == moving) for i, t in enumerate(operands)]
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)
    inputs = [t.requires_grad_() for t in operands]
    assert torch.autograd.gradgradcheck(function, inputs)


def test_initial_weight_keeps_the_variance():
    torch.manual_seed(0)
    module = EquivariantLinear(1, 256, 256, bias=True)
    assert not module.bias.any()
    assert module.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert module(torch.randn(50, 4, 256)).std().item() == pytest.approx(1, rel=0.05)


def test_leading_axes_strides_and_empty_batches():
    module = made()
    x = torch.randn(2, 4, 9, 3, dtype=F64)
    wanted = module(x)
    assert wanted.shape == (2, 4, 9, 5)
    assert wanted.is_contiguous()
    torch.testing.assert_close(module(x.movedim(-1, 0).contiguous().movedim(0, -1)), wanted, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(module(x[0, 1]), wanted[0, 1], rtol=1e-13, atol=1e-13)
    assert module(x[:0]).shape == (0, 4, 9, 5)


def test_state_dict_holds_the_parameters_only():
    assert set(made(bias=True).state_dict()) == {"weight", "bias"}
    assert set(made().state_dict()) == {"weight"}


def test_wrong_arguments_are_refused():
    for shape in [(4, 9, 2), (4, 8, 3), (3,)]:
        with pytest.raises(ValueError, match=r"x must be \[\.\., 9, 3\]"):
            made()(torch.ones(shape, dtype=F64))
    for sizes in [(-1, 3, 3), (1, 0, 3), (1, 3, 0)]:
        with pytest.raises(ValueError, match=r"(lmax|channels_in|channels_out) must be at least"):
            EquivariantLinear(*sizes)
