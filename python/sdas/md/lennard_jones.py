"""The Lennard-Jones fluid, for tests and as a reference whose properties are in the literature."""

from __future__ import annotations

from sdas.errors import SdasError
from sdas.md.forces import SKIN, Results
from sdas.md.systems import Systems
from sdas.md.verlet_list import VerletList
from sdas_kernels.segment import Segments, of_receivers, segment_sum, sum_to_receivers

ARGON_EV, ARGON_ANG = 0.0103, 3.405


class LennardJones:
    """E = Σ_pairs 4 ε [(σ/d)¹² − (σ/d)⁶] − E(cutoff), for all atoms alike, cut and shifted to zero at the cutoff.

    Args:
        epsilon: eV; by default that of argon.
        sigma: Å.
        cutoff: Å; by default 2.5 σ.
        skin: Å, see :mod:`sdas.md.verlet_list`.
    """

    invariant = True

    def __init__(
        self, epsilon: float = ARGON_EV, sigma: float = ARGON_ANG, cutoff: float | None = None, skin: float = SKIN
    ) -> None:
        self.epsilon, self.sigma, self.cutoff = epsilon, sigma, 2.5 * sigma if cutoff is None else cutoff
        for name in ("epsilon", "sigma", "cutoff"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SdasError(f"LennardJones: {name} must be positive, got {getattr(self, name)}")
        self.fingerprint = f"{self.epsilon!r} eV, {self.sigma!r} Å, {self.cutoff!r} Å: LennardJones"
        self._list = VerletList(self.cutoff, skin)

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """See :class:`sdas.md.forces.Forces`."""
        graph = self._list.graph(systems)
        vectors = graph.edge_vectors()
        squares = vectors.square().sum(1)
        sixth = (self.sigma**2 / squares) ** 3
        shift = (self.sigma / self.cutoff) ** 6
        pair = 4 * self.epsilon * (sixth * (sixth - 1) - shift * (shift - 1))
        pull = (24 * self.epsilon * (1 - 2 * sixth) * sixth / squares)[:, None] * vectors  # on the receiver
        index = graph.edges.tensors()
        of_edges = Segments(of_receivers(systems.system, index))
        energy = segment_sum(pair, of_edges, len(systems)) / 2
        found = {"energy": energy, "forces": sum_to_receivers(pull, index), "closest": self._list.closest}
        if stress:
            outer = vectors[:, :, None] * pull[:, None, :] / 2
            by_strain = segment_sum(outer, of_edges, len(systems))
            found["stress"] = by_strain / systems.volumes()[:, None, None]
        return found
