"""Neighbor tensor product on the CPU by the compiled kernels of `csrc/cpu/neighbor_tensor_product.cpp`.

The kernels do the three contractions, coupling included; `contractions.py` makes the derivative ladder of them. They
are compiled for harmonics up to `MAX_DEGREE`.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from sdas_kernels import native
from sdas_kernels.ops.neighbor_tensor_product import contractions
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths, coupling

MAX_DEGREE = 4


class _Job:
    """Sizes, graph and coupling, common to the kernels of one call."""

    def __init__(self, o: Operands, index: list[Tensor], paths: Paths) -> None:
        self.paths = paths
        self.like = o.value
        self.heads = o.attention.shape[1]
        self.sizes = {
            "nodes": o.value.shape[0],
            "edges": o.attention.shape[0],
            "lmax": self.paths.lmax_harmonics,
            "m1": o.value.shape[1],
            "rows": self.paths.rows,
            "channels": o.value.shape[2],
            "heads": self.heads,
        }
        names = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")
        tables = coupling_tables(self.paths, o.value.dtype)
        self.sizes["entries"] = len(tables["entry_row"])
        self.constants = dict(zip(names, index, strict=True)) | tables

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether kernels are compiled for harmonics of this degree."""
        return paths.lmax_harmonics <= MAX_DEGREE

    def tiles(self, **operands: Tensor) -> Tensor:
        """`[N, rows, C]`."""
        out = self.like.new_empty(len(self.like), self.paths.rows, self.like.shape[2])
        self._run("tiles", out_z=out, **operands)
        return out

    def to_senders(self, **operands: Tensor) -> Tensor:
        """`[N, M1, C]`."""
        out = torch.empty_like(self.like)
        self._run("to_senders", out_value=out, **operands)
        return out

    def edge_dot(self, **operands: Tensor) -> tuple[Tensor, ...]:
        """By weight `[E, L2+1, K]`, by harmonics `[E, M2]`, and with steps by weight_step `[E, L2+1, K]`."""
        names = ["out_weight", "out_harmonics"] + (["out_weight_step"] if "weight_step" in operands else [])
        out = {name: torch.empty_like(operands[name.removeprefix("out_")]) for name in names}
        self._run("edge_dot", **operands, **out)
        return tuple(out.values())

    def _run(self, kernel: str, **tensors: Tensor) -> None:
        dtype = str(self.like.dtype).removeprefix("torch.")
        run = getattr(native.extension(), f"neighbor_tensor_product_{kernel}_{dtype}")
        addresses = {name: tensor.data_ptr() for name, tensor in (self.constants | tensors).items()}
        run(self.sizes | addresses, torch.get_num_threads())


@cache
def coupling_tables(paths: Paths, dtype: torch.dtype) -> dict[str, Tensor]:
    """Non-zero coefficients with their rows and pairs m1·M2 + m2: of every row the first, then the second of each, ..

    In that order the sums that a kernel goes through are independent of the ones just before.
    """
    matrix = coupling(paths).flatten(1)
    row, pair = matrix.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(matrix))
    turn = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    order = torch.argsort(turn * len(matrix) + row)
    row, pair = row[order], pair[order]
    coefficient = matrix[row, pair].to(dtype)
    return {"entry_row": row.to(torch.int32), "entry_pair": pair.to(torch.int32), "entry_coefficient": coefficient}


forward = partial(contractions.forward, _Job)
backward = partial(contractions.backward, _Job)
double_backward = partial(contractions.double_backward, _Job)
