"""The convolution in plain PyTorch: the truth for values, gradients and second derivatives."""

from __future__ import annotations

from functools import partial

from sdas_kernels.ops.tensor_product import reference as product
from sdas_kernels.ops.tensor_product_conv import composition

forward = partial(composition.forward, product)
backward = partial(composition.backward, product)
double_backward = partial(composition.double_backward, product)
basis_forward = partial(composition.basis_forward, forward)
basis_backward = partial(composition.basis_backward, backward)
basis_double_backward = partial(composition.basis_double_backward, backward, double_backward)
