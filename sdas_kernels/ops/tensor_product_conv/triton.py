"""The convolution on the GPU by the Triton kernels of the tensor product, edge by edge."""

from __future__ import annotations

from functools import partial

from sdas_kernels.ops.tensor_product import triton as product
from sdas_kernels.ops.tensor_product_conv import composition

forward = partial(composition.forward, product)
backward = partial(composition.backward, product)
double_backward = partial(composition.double_backward, product)
