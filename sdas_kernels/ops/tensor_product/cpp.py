"""Tensor product on the CPU by the compiled kernels of `csrc/ops/tensor_product`."""

from __future__ import annotations

from functools import partial

from sdas_kernels.ops.tensor_product import composition
from sdas_kernels.ops.tensor_product.kernel import COMPILED

forward = partial(composition.forward, COMPILED)
backward = partial(composition.backward, COMPILED)
double_backward = partial(composition.double_backward, COMPILED)
