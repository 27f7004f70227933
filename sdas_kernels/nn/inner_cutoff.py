"""An inner cutoff for every pair of elements: closer atoms than in any training frame are left to the nuclei.

Frames hold no two atoms closer than some distance, so nothing tells a network what happens there, and the longer it has
trained, the deeper are its holes. Here the network is not asked. From the inner cutoff d on inwards it sees an edge of
length r at the length h(r), which soon stops. So the force that it has learned between the two atoms fades out, and
that of the nuclei fades in.

    h(r) = r + x − 2δ p(x / 2δ),   x = max(d − r, 0),   p(t) = t − 5/2 t⁴ + 3 t⁵ − t⁶ up to t = 1, then 1/2
    h'(r) = 1 − s(t),              s(t) = 10 t³ − 15 t⁴ + 6 t⁵
    E = E_network(h) + Σ_pairs [ s(t) (U(r) − U(d) − U'(d) (r − d)) − U'(d) (h(r) − r) ]
    U(r) = (1 + 3 r / d) V(r)

δ is 0.03 Å, so the network sees d − δ from d − 2δ on, and d is 0.03 Å below the shortest distance, since it still knows
that much. V is the repulsion of Ziegler, Biersack and Littmark. U has its value for nuclei that meet. At d it is four
times as large, to outweigh what the network does with the other edges, whose angles are new to it too. From d on
nothing changes, to the last bit. At d three derivatives of the energy are continuous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sdas_kernels.arguments import positive_length
from sdas_kernels.elements import atomic_number
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn.repulsion import FM_PER_ANG, REACH, Pressed, Repulsion, screened_coulomb
from sdas_kernels.segment import Segments, of_receivers, segment_sum
from sdas_kernels.transforms import transformed

DEPTH = 0.03
"""δ, Å."""
GAIN = 3.0
MARGIN_FM, LEAST_FM = 3000, 10_000
"""How far inner cutoffs are below the shortest distances, and the shortest one: no data are below it."""


class InnerCutoff(Repulsion):
    """The repulsion of nuclei within the shortest distances of the training frames, in place of the network.

    A pair of elements that no frame had within the cutoff has an inner cutoff too: 0.9 times the sum of the covalent
    radii. What the network says of it farther out is untrained, but from there on the nuclei repel.

    Args:
        species: atomic numbers up to 96.

    `fm` `[species, species]` int64 holds the inner cutoffs in fm, `met` which of them come from frames. Both are in the
    state dict. As whole numbers they stay what they are in every dtype.
    """

    fm: torch.Tensor
    met: torch.Tensor

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__(species)
        reach = (self.radii_pm[:, None] + self.radii_pm) * round(REACH * FM_PER_ANG) // 100
        self.register_buffer("fm", reach)
        self.register_buffer("met", torch.zeros_like(reach, dtype=torch.bool))

    @torch.no_grad()
    def cover(self, shortest: Mapping[tuple[int, int], float]) -> None:
        """Take account of frames with these shortest distances, Å, by pairs of atomic numbers; cutoffs only shrink.

        A pair that no frame had before takes its distance as it is. One that is not given stays as it was.

        Raises ValueError for an element that the model does not have, and a distance that is not positive.
        """
        row_of = {z: row for row, z in enumerate(self.numbers.tolist())}
        for pair, distance in shortest.items():
            a, b = (row_of.get(atomic_number("InnerCutoff", "shortest", z), -1) for z in pair)
            if min(a, b) < 0:
                raise ValueError(f"InnerCutoff: shortest has the pair {pair}, the model has {sorted(row_of)}")
            found = int(positive_length("InnerCutoff", "distance", distance) * FM_PER_ANG) - MARGIN_FM
            known = int(self.fm[a, b]) if bool(self.met[a, b]) else found
            self.fm[a, b] = self.fm[b, a] = max(LEAST_FM, min(known, found))
            self.met[a, b] = self.met[b, a] = True

    def lengths(self) -> dict[tuple[int, int], float]:
        """The inner cutoffs that come from frames, Å, by pairs of ascending atomic numbers."""
        numbers, rows = self.numbers.tolist(), torch.nonzero(self.met.triu()).tolist()
        return {(numbers[a], numbers[b]): int(self.fm[a, b]) / FM_PER_ANG for a, b in rows}

    def pressed(self, vectors: torch.Tensor, batch: NeighborGraph, kinds: torch.Tensor) -> Pressed | None:
        """What replaces the edges that are too short; None where it can be seen that there are none."""
        square, index = vectors.square().sum(1), batch.edges.tensors()
        pair = self._pair(index, kinds)
        inner = self.fm.flatten().index_select(0, pair).to(vectors.dtype) / FM_PER_ANG
        if _can_look(vectors) and not bool((square < inner.square()).any()):
            return None
        lengths, (strength, inverse, _) = square.sqrt(), self._of_pairs(vectors.dtype, pair)
        deficit = (inner - lengths).clamp(min=0)
        t = (deficit / (2 * DEPTH)).clamp(max=1.0)
        raised = deficit - 2 * DEPTH * (t - t**4 * (2.5 - 3 * t + t**2))
        fade = t**3 * (10 - 15 * t + 6 * t**2)
        value, slope = _potential(lengths, inner, strength, inverse)
        value_there, slope_there = _potential(inner, inner, strength, inverse)
        beyond = value - value_there - slope_there * (lengths - inner)
        by_length = fade * slope - 15 / DEPTH * t**2 * (1 - t) ** 2 * beyond
        energy = fade * beyond - slope_there * raised
        ratio, system = (lengths + raised) / lengths, Segments(of_receivers(batch.system, index))
        return Pressed(
            vectors=vectors,
            seen=ratio[:, None] * vectors,
            energy=segment_sum(energy.double(), system, batch.num_systems),
            by_vectors=(by_length / lengths)[:, None] * vectors,
            across=ratio,
            along=(1 - fade - ratio) / square,
        )


def inner_cutoffs(repulsion: Repulsion | None) -> torch.Tensor | None:
    """`[species, species]` fm, as the kernel takes them, of a model with this repulsion; None if it has none."""
    return repulsion.fm if isinstance(repulsion, InnerCutoff) else None


def _potential(
    lengths: torch.Tensor, inner: torch.Tensor, strength: torch.Tensor, inverse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """U / 2 and its derivative by the length, `[E]` each."""
    bare, screened, falls = screened_coulomb(lengths, strength, inverse)
    gain = 1 + GAIN * lengths / inner
    return gain * bare * screened, bare * (GAIN / inner * screened - gain * (screened / lengths + falls))


def _can_look(vectors: torch.Tensor) -> bool:
    """Whether numbers may be looked at: not while a graph of operators is traced or captured, or under `torch.func`."""
    if type(vectors) is not torch.Tensor or torch.compiler.is_compiling() or transformed():
        return False
    return vectors.device.type != "cuda" or not torch.cuda.is_current_stream_capturing()
