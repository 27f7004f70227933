"""The repulsion of nuclei at short distance, where few models have seen frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from sdas_kernels.elements import COVALENT_RADII_PM, SYMBOLS
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.segment import Segments, of_receivers, of_senders, segment_sum

COULOMB = 14.399645
"""e² / 4πε0, eV Å."""
SCREENING, POWER = 0.46853, 0.23
"""Å: 0.8854 bohr. The screening length of a pair is SCREENING / (Z_i^POWER + Z_j^POWER)."""
REACH = 0.9
"""Of the sum of the covalent radii."""
FM_PER_ANG = 100_000
HEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
RATES = (3.19980, 0.94229, 0.40290, 0.20162)


class Pressed(NamedTuple):
    """What close atoms change. The network is given other edges than there are, and the nuclei repel.

    vectors, seen: the edges as they are and as the network is to see them, `[E, 3]` Å. energy: of the repulsion in
    every system `[B]` eV. by_vectors: its derivative by the vectors `[E, 3]`. across, along: if g is the derivative by
    an edge as it is seen, that by the true one, v, is across · g + along (g · v) v. None where the network sees v.
    """

    vectors: torch.Tensor
    seen: torch.Tensor
    energy: torch.Tensor
    by_vectors: torch.Tensor
    across: torch.Tensor | None = None
    along: torch.Tensor | None = None

    def gradient(self, by_seen: torch.Tensor) -> torch.Tensor:
        """By the vectors `[E, 3]`, of everything, given the network's by the edges that it sees."""
        if self.across is None or self.along is None:
            return by_seen + self.by_vectors
        radial = self.along * (by_seen * self.vectors).sum(1)
        return self.across[:, None] * by_seen + radial[:, None] * self.vectors + self.by_vectors


class Repulsion(nn.Module):
    """The screened Coulomb repulsion of Ziegler, Biersack and Littmark (1985), within the length of a covalent bond.

        V(r) = Z_i Z_j e² / (4πε0 r) · φ(r / a_ij) · s(r / R_ij)
        φ(x) = 0.18175 e^(−3.1998 x) + 0.50986 e^(−0.94229 x) + 0.28022 e^(−0.4029 x) + 0.02817 e^(−0.20162 x)
        a_ij = 0.46853 Å / (Z_i^0.23 + Z_j^0.23)
        s(u) = 1 − 28 u⁶ + 48 u⁷ − 21 u⁸,  0 from u = 1 on

    R_ij is 0.9 times the sum of the covalent radii: bonds that vibrate at 500 K are longer, and do not feel it. With s,
    the energy and its first two derivatives end there smoothly. It has no weights: a model with it learns what is left.

    Args:
        species: atomic numbers up to 96.
    """

    numbers: torch.Tensor
    radii_pm: torch.Tensor

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__()
        unknown = [SYMBOLS[z - 1] for z in species if z > len(COVALENT_RADII_PM)]
        if unknown:
            raise ValueError(f"SDAS: repulsion needs covalent radii, which end at Cm; got {', '.join(unknown)}")
        # whole numbers, which no change of dtype rounds
        self.register_buffer("numbers", torch.tensor(species), persistent=False)
        radii = torch.tensor([COVALENT_RADII_PM[z - 1] for z in species])
        self.register_buffer("radii_pm", radii, persistent=False)

    def forward(self, vectors: torch.Tensor, batch: NeighborGraph, kinds: torch.Tensor) -> torch.Tensor:
        """Of every system `[B]` eV, float64, from edge vectors `[E, 3]` Å and species indices `[N]`."""
        return self.with_gradient(vectors, batch, kinds)[0]

    def pressed(self, vectors: torch.Tensor, batch: NeighborGraph, kinds: torch.Tensor) -> Pressed | None:
        """What close atoms change."""
        return Pressed(vectors, vectors, *self.with_gradient(vectors, batch, kinds))

    def with_gradient(
        self, vectors: torch.Tensor, batch: NeighborGraph, kinds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the derivative of their sum by the vectors `[E, 3]`; both can be differentiated."""
        lengths, index = vectors.square().sum(1).sqrt(), batch.edges.tensors()
        energy, slope = self._half(lengths, *self._of_pairs(vectors.dtype, self._pair(index, kinds)))
        system = Segments(of_receivers(batch.system, index))
        return segment_sum(energy.double(), system, batch.num_systems), (slope / lengths)[:, None] * vectors

    def _pair(self, index: list[torch.Tensor], kinds: torch.Tensor) -> torch.Tensor:
        """Of every edge, the number of its pair of species `[E]`."""
        return of_receivers(kinds, index) * len(self.numbers) + of_senders(kinds, index)

    def _of_pairs(self, dtype: torch.dtype, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of every edge: Z_i Z_j e² / 8πε0, 1 / a_ij and R_ij; an edge has half of what its pair has."""
        z, radii = self.numbers.to(dtype), self.radii_pm.to(dtype) * (REACH / 100)
        screening = z**POWER / SCREENING
        tables = COULOMB / 2 * z[:, None] * z, screening[:, None] + screening, radii[:, None] + radii
        strength, inverse, reach = (table.flatten().index_select(0, pair) for table in tables)
        return strength, inverse, reach

    def _half(
        self, lengths: torch.Tensor, strength: torch.Tensor, inverse: torch.Tensor, reach: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """V / 2 and its derivative by the length, `[E]` each."""
        bare, screened, falls = screened_coulomb(lengths, strength, inverse)
        u = (lengths / reach).clamp(max=1.0)
        ends = (1 - u) ** 3 * (1 + 3 * u + 6 * u**2 + 10 * u**3 + 15 * u**4 + 21 * u**5)
        energy = bare * screened * ends
        ending = 168 * u**5 * (1 - u) ** 2 / reach
        return energy, -energy / lengths - bare * (falls * ends + screened * ending)


def screened_coulomb(
    lengths: torch.Tensor, strength: torch.Tensor, inverse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """strength / r, φ(r / a) and −dφ/dr, given 1 / a, `[E]` each."""
    x = lengths * inverse
    terms = [height * torch.exp(-rate * x) for height, rate in zip(HEIGHTS, RATES, strict=True)]
    falls = sum(rate * term for rate, term in zip(RATES, terms, strict=True)) * inverse
    return strength / lengths, terms[0] + terms[1] + terms[2] + terms[3], falls
