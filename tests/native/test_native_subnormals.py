"""Kernels take subnormal numbers for zeros: every entry of the extension, on every thread, and for nobody else."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels import native, subnormals

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
TINY = {torch.float32: 1e-40, torch.float64: 1e-310}
NODES, NEIGHBORS = 600, 20
PARTLY = ("edge_geometry", "neighbor_tensor_product", "tensor_product_conv, basis")
"""Their second derivatives are in part PyTorch's own products."""

pytestmark = [
    pytest.mark.skipif(not native.available()[0], reason=native.available()[1]),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no such control on this processor"),
]


@pytest.fixture(params=TINY, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.skipif(not CSRC.is_dir(), reason="no C++ sources beside the tests")
def test_every_thread_of_the_pool_and_nobody_else(tmp_path):
    driver = tmp_path / "driver"
    source = [f"-I{CSRC}", str(HERE / "subnormals_driver.cpp"), "-o", str(driver), "-ldl"]
    subprocess.run(["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *source], check=True)
    found = subprocess.run([str(driver)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def flushing(threads):
    """Which threads have them as zeros: of their controls, whose other bits note exceptions, the flags for that."""
    flags = native.extension().subnormals_are_zeros
    return [control & flags for control in native.extension().controls(threads)]


def edges():
    receivers = torch.arange(NODES).repeat_interleave(NEIGHBORS)
    senders = (receivers + torch.arange(1, NEIGHBORS + 1).repeat(NODES)) % NODES
    return sk.EdgeIndex.from_pairs(receivers, senders, NODES)


def calls(dtype):
    """(operator, operands, the rest, index of an operand in which it is linear) of everything with kernels."""

    def drawn(*shape):
        return torch.randn(*shape, dtype=dtype)

    index, e = edges(), NODES * NEIGHBORS
    k, d, c, m, r = 4, 3, 8, 4, 4
    logits = [drawn(NODES, k, d + m + r), drawn(NODES, k, d), drawn(NODES, k)]
    geometry = [drawn(e, m), drawn(e, r)]
    channelwise = sk.nn.TensorProductConv("8x0e+8x1o", "1x0e+1x1o", "8x0e+8x1o")
    conv = [drawn(NODES, 32), drawn(e, 4), drawn(e, channelwise.weight_numel)]
    basis = [*conv[:2], drawn(e, 3), drawn(3, channelwise.weight_numel)]
    dense = sk.nn.FullyConnectedTensorProduct("8x0e+8x1o", "1x0e+1x1o", "8x0e+8x1o")
    return {
        "spherical_harmonics": (lambda v: sk.spherical_harmonics(v, 1, False)[:, 1:], [drawn(e, 3)], 0),
        "radial_basis": (lambda x: sk.radial_basis(x, 8, 5.0), [1 + 3 * torch.rand(e, dtype=dtype)], None),
        "edge_geometry": (lambda v: torch.cat(sk.edge_geometry(v, 2, 4, 5.0)[:2], 1), [drawn(e, 3)], None),
        "edge_softmax": (
            lambda *given: sk.edge_softmax(*given, index),
            [*logits, *geometry, torch.rand(e, dtype=dtype)],
            None,
        ),
        "neighbor_attention": (
            lambda *given: sk.neighbor_attention(*given, index, 1),
            [*logits, drawn(NODES, m, c), drawn(k, 2, r), *geometry, torch.rand(e, dtype=dtype)],
            3,
        ),
        "neighbor_tensor_product": (
            lambda *given: sk.neighbor_tensor_product(*given, index, 1),
            [drawn(e, k), drawn(e, r), drawn(k, 2, r), drawn(NODES, m, c), drawn(e, m)],
            3,
        ),
        "tensor_product": (
            lambda *given: sk.tensor_product(*given, channelwise.spec),
            [drawn(e, 32), *conv[1:]],
            0,
        ),
        "tensor_product, dense": (
            lambda *given: sk.tensor_product(*given, dense.spec),
            [drawn(e, 32), drawn(e, 4), drawn(dense.weight_numel)],
            0,
        ),
        "tensor_product_conv": (lambda *given: sk.tensor_product_conv(*given, index, channelwise.spec), conv, 0),
        "tensor_product_conv, basis": (
            lambda x, y, hidden, basis: sk.tensor_product_conv(x, y, hidden, index, channelwise.spec, basis),
            basis,
            0,
        ),
    }


@pytest.mark.parametrize("name", calls(torch.float32))
def test_values_and_both_derivatives_of_subnormal_numbers_are_zero(name, dtype, threads):
    """Each is linear in what it is given here, and would be a subnormal number, not zero."""
    before = flushing(threads)
    run, operands, linear = calls(dtype)[name]
    tiny = TINY[dtype]
    if linear is not None:
        value = run(*(tiny * t.sign() if i == linear else t for i, t in enumerate(operands)))
        assert value.numel() > 0
        assert not value.any()
    leaves = [t.detach().requires_grad_() for t in operands]
    z = run(*leaves)
    cotangent = torch.ones_like(z).requires_grad_()
    for gradient in torch.autograd.grad(z, leaves, tiny * torch.ones_like(z), retain_graph=True):
        assert not gradient.any()
    first = torch.autograd.grad(z, leaves, cotangent, create_graph=True)
    tangents = [tiny * torch.ones_like(g) for g in first]
    with subnormals.as_zeros() if name in PARTLY else nullcontext():
        second = torch.autograd.grad(first, [*leaves, cotangent], tangents, allow_unused=True)
    for gradient in second:
        assert gradient is None or not gradient.any()
    assert flushing(threads) == before
    assert (torch.full((1,), tiny, dtype=dtype) * 1).any(), "the caller computes with them as before"


def test_the_whole_network_too(dtype, threads):
    """Evaluation, training, and the gradient of a loss: energies of subnormal weights of the last map are zero."""
    torch.manual_seed(0)
    places = torch.stack(torch.meshgrid(*[torch.arange(6.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    graph = sk.NeighborGraph.build(1.6 * places + 0.2 * torch.rand(216, 3), [1] * 216, 4.0, dtype=dtype)
    model = sk.nn.SDAS([1], channels=8, heads=4, lmax=2, cutoff=4.0).to(dtype)
    before = flushing(threads)
    trained = model.train()(graph)
    weights = list(model.parameters())
    tiny = TINY[dtype]
    cotangent = tiny * torch.ones_like(trained["forces"])
    for gradient in torch.autograd.grad(trained["forces"], weights, cotangent, allow_unused=True):
        assert gradient is None or not gradient.any()
    with torch.no_grad():
        for readout in model.readouts:
            readout[2].weight.fill_(tiny)
            readout[2].bias.fill_(tiny)
    for out in (model.eval()(graph), model.train()(graph)):
        assert not out["energy"].any()
        assert not out["forces"].any()
    assert flushing(threads) == before


def test_a_callers_choice_of_zeros_stays():
    torch.set_flush_denormal(True)
    try:
        sk.spherical_harmonics(torch.randn(10, 3), 3)
        assert not (torch.full((1,), 1e-40) * 1).any()
    finally:
        torch.set_flush_denormal(False)
    assert (torch.full((1,), 1e-40) * 1).any()
