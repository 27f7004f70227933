"""Tensors that are made once do not depend on the mode in which they were asked for first."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sdas_kernels.constants import constant
from sdas_kernels.flops import FlopCounter
from sdas_kernels.nn import FullyConnectedTensorProduct, TensorProductConv
from sdas_kernels.ops.neighbor_tensor_product.cpp import coupling_tables
from sdas_kernels.ops.spherical_harmonics import cpp as harmonics
from sdas_kernels.ops.tensor_product.kernel import COMPILED
from sdas_kernels.ops.tensor_product.tables import parts, scaled_coupling
from sdas_kernels.ops.tensor_product.tables_dense import dense_tables
from sdas_kernels.ops.tensor_product_conv.tables import tables
from sdas_kernels.paths import Paths


def doubled():
    """A constant of its own for each test."""

    @constant
    def make(n: int) -> torch.Tensor:
        return 2 * torch.arange(n, dtype=torch.float64)

    return make


def test_is_made_once_for_each_argument():
    make = doubled()
    assert make(3) is make(3)
    assert make(3).tolist() == [0.0, 2.0, 4.0]
    assert make(2).tolist() == [0.0, 2.0]


def test_making_it_is_not_counted():
    make = doubled()
    with FlopCounter() as counter:
        make(3)
    assert counter.total == 0
    with FlopCounter() as counter:
        make(3) * 2.0
    assert counter.total == 3


def test_serves_training_after_inference():
    make, x = doubled(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        make(3)
    (x * make(3)).sum().backward()
    assert x.grad.tolist() == [0.0, 2.0, 4.0]


def test_is_real_where_tensors_are_fake():
    make = doubled()
    with FakeTensorMode():
        found = make(3)
    assert not isinstance(found, FakeTensor)
    assert found.tolist() == [0.0, 2.0, 4.0]


def test_is_on_the_cpu_whatever_the_default_device():
    make = doubled()
    with torch.device("meta"):
        found = make(3)
    assert found.tolist() == [0.0, 2.0, 4.0]


SPEC = str(FullyConnectedTensorProduct("2x0e+3x1o", "1x0e+2x1o", "2x0e+2x1o").spec)
CONVOLUTION = str(TensorProductConv("4x0e+3x1o", "1x0e+1x1o", "4x0e+3x1o").spec)
TABLES = {
    "couplings of neighbors": (coupling_tables, Paths(1, 2, 1, even_only=True), torch.float64),
    "factors of harmonics": (harmonics._factors, 2, "component", torch.float64),
    "a coupling": (scaled_coupling, 1, 1, 2, 0.5, False),
    "parts of a product": (parts, CONVOLUTION, torch.float64, COMPILED),
    "dense paths": (dense_tables, SPEC, torch.float64),
    "a convolution": (tables, CONVOLUTION, torch.float64),
}


def tensors_of(found):
    """All of them, in whatever holds them."""
    if isinstance(found, torch.Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, (tuple, list)) else ()
    if dataclasses.is_dataclass(found):
        parts = [getattr(found, field.name) for field in dataclasses.fields(found)]
    return [tensor for part in parts for tensor in tensors_of(part)]


@pytest.mark.parametrize("mode", [lambda: torch.device("meta"), FakeTensorMode, torch.inference_mode])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_kernels_can_read_their_tables_whatever_was_on_when_they_were_made(table, mode):
    """By the function behind what is kept, as a table is made at the first call."""
    make, *arguments = table
    with mode():
        found = tensors_of(make.__wrapped__(*arguments))
    assert found
    assert all(type(tensor) is torch.Tensor and tensor.is_cpu and not tensor.is_inference() for tensor in found)
