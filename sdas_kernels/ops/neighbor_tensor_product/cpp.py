"""Neighbor tensor product on the CPU by the compiled kernels of `csrc/ops/neighbor_tensor_product`.

The kernels do the three contractions, coupling included; `contractions.py` makes the derivative ladder of them. They
are compiled for harmonics up to `MAX_DEGREE`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sdas_kernels import memory, native
from sdas_kernels.constants import constant
from sdas_kernels.ops.neighbor_tensor_product import contractions
from sdas_kernels.ops.neighbor_tensor_product.reference import Operands
from sdas_kernels.paths import Paths, coupling

MAX_DEGREE = 4


class _Job:
    """Operands and their steps, graph and coupling, common to the kernels of one call.

    The kernels take weights `[E, L2+1, K]`, the products of attention and radial gain, and give gradients by them.
    """

    def __init__(self, o: Operands, step: Operands | None, index: list[Tensor], paths: Paths) -> None:
        self.o, self.step, self.paths = o, step, paths
        self.sizes = {
            "nodes": o.value.shape[0],
            "edges": o.attention.shape[0],
            "lmax": self.paths.lmax_harmonics,
            "m1": o.value.shape[1],
            "rows": self.paths.rows,
            "channels": o.value.shape[2],
            "heads": o.attention.shape[1],
        }
        names = ("receivers", "senders", "row_ptr", "sender_order", "sender_ptr")
        tables = coupling_tables(self.paths, o.value.dtype)
        self.sizes["entries"] = len(tables["entry_row"])
        self.constants = dict(zip(names, index, strict=True)) | tables
        self.gain = _gain(o.radial, o.radial_gain)
        self.carried = {"weight": o.attention[:, None, :] * self.gain, "harmonics": o.harmonics}
        self.values = {"value": o.value}
        if step is not None:
            self.gain_step = _gain(step.radial, o.radial_gain) + _gain(o.radial, step.radial_gain)
            weight_step = step.attention[:, None, :] * self.gain + o.attention[:, None, :] * self.gain_step
            self.carried |= {"weight_step": weight_step, "harmonics_step": step.harmonics}
            self.values |= {"value_step": step.value}

    @staticmethod
    def serve(paths: Paths) -> bool:
        """Whether kernels are compiled for harmonics of this degree."""
        return paths.lmax_harmonics <= MAX_DEGREE

    def tiles(self) -> Tensor:
        """`[N, rows, C]`."""
        value = self.o.value
        out = memory.empty((len(value), self.paths.rows, value.shape[2]), value)
        self._run("tiles", out_z=out, **self.carried, **self.values)
        return out

    def to_senders(self, z: Tensor) -> Tensor:
        """`[N, M1, C]`."""
        out = memory.empty_like(self.o.value)
        self._run("to_senders", out_value=out, z=z, **self.carried)
        return out

    def edge_dot(self, z: Tensor) -> tuple[Tensor, ...]:
        """By attention `[E, K]`, by gain `[E, L2+1, K]`, by harmonics `[E, M2]`, with steps by gain along them."""
        names = [name for name in ("weight", "harmonics", "weight_step") if name in self.carried]
        out = {f"out_{name}": memory.empty_like(self.carried[name]) for name in names}
        self._run("edge_dot", z=z, **self.carried, **self.values, **out)
        by_weight, by_harmonics, attention = out["out_weight"], out["out_harmonics"], self.o.attention[:, None, :]
        if self.step is None:
            return (by_weight * self.gain).sum(1), by_weight * attention, by_harmonics
        by_weight_step = out["out_weight_step"]
        by_attention = (by_weight_step * self.gain_step + by_weight * self.gain).sum(1)
        by_gain = by_weight_step * self.step.attention[:, None, :] + by_weight * attention
        return by_attention, by_gain, by_harmonics, by_weight_step * attention

    def _run(self, kernel: str, **tensors: Tensor) -> None:
        dtype = str(self.o.value.dtype).removeprefix("torch.")
        run = getattr(native.extension(), f"neighbor_tensor_product_{kernel}_{dtype}")
        addresses = {name: tensor.data_ptr() for name, tensor in (self.constants | tensors).items()}
        run(self.sizes | addresses, torch.get_num_threads())


def _gain(radial: Tensor, radial_gain: Tensor) -> Tensor:
    """Σ_n R_n W_kln: `[E, L2+1, K]`."""
    heads, degrees, _ = radial_gain.shape
    return (radial @ radial_gain.transpose(0, 1).flatten(0, 1).T).unflatten(1, (degrees, heads))


@constant
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
