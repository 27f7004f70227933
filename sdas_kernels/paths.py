"""Which degrees couple to which, and the coefficients, for features of all degrees up to some lmax.

A path (l1, l2, l3) takes a feature of degree l1 and a harmonic of degree l2 to a feature of degree l3. Its coefficient
is √(2 l3 + 1) times the unit-norm Clebsch–Gordan tensor, which keeps components of unit variance.

The result of all paths is laid out with rows ordered by l3, then m3, then path, so that the rows of one degree are a
`[2 l3 + 1, paths]` block that one matrix product mixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sdas_kernels.clebsch_gordan import wigner_3j
from sdas_kernels.constants import constant


@dataclass(frozen=True)
class Paths:
    """All paths from degrees l1 <= lmax_in and l2 <= lmax_harmonics to l3 <= lmax_out.

    `even_only`: only paths with l1 + l2 + l3 even, those that keep natural parity under inversion.
    """

    lmax_in: int
    lmax_harmonics: int
    lmax_out: int
    even_only: bool = True

    def to_degree(self, l3: int) -> list[tuple[int, int, int]]:
        """Paths that end in l3, in the order of their rows."""
        return [
            (l1, l2, l3)
            for l1 in range(self.lmax_in + 1)
            for l2 in range(self.lmax_harmonics + 1)
            if abs(l1 - l2) <= l3 <= l1 + l2 and not (self.even_only and (l1 + l2 + l3) % 2)
        ]

    @property
    def all(self) -> list[tuple[int, int, int]]:
        """Every path, ordered by l3, then l1, then l2."""
        return [path for l3 in range(self.lmax_out + 1) for path in self.to_degree(l3)]

    @property
    def counts(self) -> list[int]:
        """How many paths end in each degree."""
        return [len(self.to_degree(l3)) for l3 in range(self.lmax_out + 1)]

    @property
    def rows(self) -> int:
        """Σ over paths of 2 l3 + 1."""
        return sum((2 * l3 + 1) * count for l3, count in enumerate(self.counts))

    def row_slices(self) -> list[slice]:
        """The rows of each degree."""
        slices, start = [], 0
        for l3, count in enumerate(self.counts):
            slices.append(slice(start, start + (2 * l3 + 1) * count))
            start = slices[-1].stop
        return slices


@dataclass(frozen=True)
class SquarePaths(Paths):
    """Paths of the product of a feature with itself: 1 <= l1 <= l2, l3 >= 1, and l1 + l2 + l3 even.

    (l1, l2) and (l2, l1) give the same product. Of l1 = l2 an odd sum gives zero. Products with scalars, and those that
    end in one, are left to a node update, which makes them at less cost.
    """

    @classmethod
    def of(cls, lmax: int) -> SquarePaths:
        """Of a feature of degrees up to lmax, whose product has the same; there is none below lmax 2."""
        return cls(lmax, lmax, lmax)

    def to_degree(self, l3: int) -> list[tuple[int, int, int]]:
        """Paths that end in l3, in the order of their rows."""
        return [(l1, l2, l3) for l1, l2, l3 in super().to_degree(l3) if 1 <= l1 <= l2 and l3 >= 1]


@constant
def square_table(
    paths: SquarePaths, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of components that a product takes, and its coefficients: first `[P]`, second `[P]`, `[rows, P]`."""
    dense = coupling(paths)
    both = dense + dense.mT
    both.diagonal(dim1=1, dim2=2).div_(2)
    first, second = torch.triu(both.abs().sum(0)).nonzero(as_tuple=True)
    return first.to(device), second.to(device), both[:, first, second].to(dtype=dtype, device=device)


@constant
def coupling(paths: Paths) -> torch.Tensor:
    """Dense coefficients `[rows, (lmax_in+1)², (lmax_harmonics+1)²]`, float64."""
    dense = torch.zeros(paths.rows, (paths.lmax_in + 1) ** 2, (paths.lmax_harmonics + 1) ** 2, dtype=torch.float64)
    for l3, block in enumerate(paths.row_slices()):
        ending = paths.to_degree(l3)
        for k, (l1, l2, _) in enumerate(ending):
            rows = torch.arange(block.start + k, block.stop, len(ending))
            tensor = math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3).permute(2, 0, 1)
            dense[rows, l1**2 : (l1 + 1) ** 2, l2**2 : (l2 + 1) ** 2] = tensor
    return dense


@constant
def gather_table(
    paths: Paths, transposed: bool, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The non-zero coefficients as a padded gather: `index [out, width]` into the inputs, `value [out, width]`.

    Forward, the outputs are the rows and the inputs the pairs m1·M2 + m2; transposed, the other way round. Every
    output lists its inputs in ascending order; entries of padding have value 0.
    """
    matrix = coupling(paths).flatten(1)
    if transposed:
        matrix = matrix.T
    width = max(1, int((matrix != 0).sum(1).max()))
    order = torch.argsort((matrix == 0).to(torch.uint8), dim=1, stable=True)[:, :width]
    return order.contiguous().to(device), matrix.gather(1, order).to(dtype=dtype, device=device)
