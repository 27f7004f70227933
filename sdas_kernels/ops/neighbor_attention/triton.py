"""Neighbor attention on the GPU: the Triton kernels of its two halves, one after the other."""

from __future__ import annotations

from functools import partial

from sdas_kernels.ops.edge_softmax import triton as softmax
from sdas_kernels.ops.neighbor_attention import composition
from sdas_kernels.ops.neighbor_tensor_product import triton as product

forward = partial(composition.forward, softmax, product)
backward = partial(composition.backward, softmax, product)
double_backward = partial(composition.double_backward, softmax, product)
