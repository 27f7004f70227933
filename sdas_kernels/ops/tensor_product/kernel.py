"""The call of a compiled kernel of the tensor product."""

from __future__ import annotations

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.ops.tensor_product import dense_blocks
from sdas_kernels.ops.tensor_product.tables import Kernels, Tables, build

_BLOCKS = 64  # into which the batch is cut to sum the gradient by a shared weight
_BLOCK = 32  # samples at least in a block


def run(kernel: str, tables: Tables, **tensors: Tensor | None) -> None:
    """Run a kernel on all samples; a result that is None is not computed."""
    x, weight, by_weight = tensors["x"], tensors["weight"], tensors.get("by_weight")
    assert x is not None
    assert weight is not None
    batch, shared = len(x), weight.ndim == 1
    block = max(_BLOCK, -(-batch // _BLOCKS)) if shared and by_weight is not None else 1
    if shared and by_weight is not None:
        tensors["partial"] = memory.empty((-(-batch // block), by_weight.shape[0]), x)
    sizes = tables.sizes | {"batch": batch, "block": block, "shared": shared}
    given = tables.arrays | {name: tensor for name, tensor in tensors.items() if tensor is not None}
    addresses = {name: tensor.data_ptr() for name, tensor in given.items()}
    dtype = str(x.dtype).removeprefix("torch.")
    getattr(native.extension(), f"tensor_product_{kernel}_{dtype}")(sizes | addresses, torch.get_num_threads())


COMPILED = Kernels(build, run, chunk_bytes=1 << 22, shared=dense_blocks)
