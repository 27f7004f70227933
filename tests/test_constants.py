"""Tensors that are made once do not depend on the mode in which they were asked for first."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from sdas_kernels.constants import constant
from sdas_kernels.flops import FlopCounter


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
