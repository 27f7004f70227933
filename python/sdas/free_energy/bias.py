"""A bias that grows where replicas have been, until they go everywhere alike: Wang–Landau in dynamics.

V(ξ) = Σ_k c_k B((ξ − ξ_k) / h), with cubic B-splines B on a grid: smooth, and its gradient too. A visit of ξ adds
k_B T ln f · B((ξ − ξ_k) / h) / m_k to c_k. m_k is the part of the k-th spline that lies in the range, without which
walls would attract. ln f shrinks as :mod:`sdas.free_energy.refinement` says.

Once it falls like 1/t, V hardly changes, and replicas sample what it leaves of F. So from then on its mean V̄ and the
visits N are kept, and F(ξ) = −V̄(ξ) − k_B T ln N(ξ) + constant. Where splines are too coarse for F, or noisy as at
walls, N tells the rest. Before most visits are of that stage, F(ξ) = −V(ξ) + constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from ase import units

from sdas.errors import SdasError
from sdas.free_energy.refinement import flatness, refined
from sdas.free_energy.variables import Axis
from sdas.md.forces import EnergyFunction, Results
from sdas.md.systems import Systems

REACH = (-1, 0, 1, 2)
"""Splines about a point, counted from the last grid point before it."""


class WangLandauBias:
    """Forces of the bias, for replicas in groups: replicas of a group share a bias, groups are independent.

    Args:
        axes: one or two.
        temperature_k: of the thermostat.
        replicas: how many there are.
        walkers: replicas of a group.
        increment: the first ln f, in k_B T per visit.
        every: steps between visits.
        wall_kt: outside of the range, energy per squared bin width.
        invariant: whether the variables are those of the shape, as all are that can be parsed.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        temperature_k: float,
        replicas: int,
        walkers: int = 1,
        increment: float = 0.05,
        every: int = 10,
        wall_kt: float = 5.0,
        invariant: bool = True,
    ) -> None:
        if len(axes) not in (1, 2):
            raise SdasError(f"a landscape has one or two variables, got {len(axes)}")
        if walkers < 1 or replicas < 1 or replicas % walkers:
            raise SdasError(f"{replicas} replicas cannot be shared out in groups of {walkers}")
        if not temperature_k > 0 or not increment > 0:
            raise SdasError(f"temperature and increment must be positive, got {temperature_k:g} K and {increment:g}")
        self.axes, self.walkers, self.invariant = tuple(axes), walkers, invariant
        self.every = every
        described = [(axis.name, axis.low, axis.high, axis.bins) for axis in axes]
        self.fingerprint = (
            f"Wang-Landau with late means of {described}, {walkers} walkers, {increment!r} every {every}, "
            f"{temperature_k!r} K"
        )
        self.thermal, self.wall_kt = units.kB * temperature_k, wall_kt
        self.groups = replicas // walkers
        self._splines = [axis.bins if axis.periodic else axis.bins + 3 for axis in axes]
        bins = [axis.bins for axis in axes]
        self.coefficients = torch.zeros(self.groups, *self._splines, dtype=torch.float64)
        self.histogram = torch.zeros(self.groups, *bins, dtype=torch.float64)
        self.visits = torch.zeros(self.groups, *bins, dtype=torch.float64)
        self.increment = torch.full((self.groups,), increment, dtype=torch.float64)
        self.late = torch.zeros(self.groups, dtype=torch.bool)
        self.late_deposits = torch.zeros(self.groups, dtype=torch.float64)
        self.late_visits = torch.zeros_like(self.visits)
        self.late_coefficients = torch.zeros_like(self.coefficients)  # their mean
        self.seconds = torch.zeros((), dtype=torch.float64)  # of CPU, that the dynamics took
        self._share = [torch.from_numpy(_share(axis)) for axis in axes]

    def __call__(self, systems: Systems, stress: bool = False) -> Results:
        """Energies `[B]` eV and forces `[N, 3]` eV/Å; raises SdasError for a stress, which is not known."""
        if stress:
            raise SdasError("no stress of a bias is known: run at constant volume")

        def energy(moved: Systems) -> torch.Tensor:
            return self.energy(self.values(moved), self.group(moved))

        return EnergyFunction(energy, self.invariant)(systems)

    def values(self, systems: Systems) -> torch.Tensor:
        """Of the variables, `[B, axes]`."""
        return torch.stack([axis.value(systems) for axis in self.axes], dim=1)

    def bins_of(self, values: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Of values `[B, axes]`, the bin along each axis `[B]`, and whether all lie within the range `[B]`."""
        index = [axis.bin_of(value) for axis, value in zip(self.axes, values.unbind(1), strict=True)]
        return index, torch.stack([each >= 0 for each in index]).all(0)

    def group(self, systems: Systems) -> torch.Tensor:
        """Of each system `[B]`."""
        return torch.div(systems.replica, self.walkers, rounding_mode="floor").cpu()

    def energy(self, values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """V and walls at values `[B, axes]`, differentiable, `[B]` eV."""
        total = self._sum_of_splines(self.coefficients, values, groups)
        for axis, value in zip(self.axes, values.unbind(1), strict=True):
            if not axis.periodic:
                outside = (value - value.clamp(axis.low, axis.high)) / axis.width
                total = total + self.wall_kt * self.thermal * outside.square()
        return total

    def _sum_of_splines(self, coefficients: torch.Tensor, values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        total = values.new_zeros(len(values))
        for index, weight in self._spread(values):
            splines = (groups, *index)
            total = total + weight * coefficients[splines]
        return total

    def _spread(self, values: torch.Tensor) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
        """Indices of the splines about each value and their heights there."""
        of_axes = []
        for axis, value, count in zip(self.axes, values.unbind(1), self._splines, strict=True):
            inside = value if axis.periodic else value.clamp(axis.low, axis.high)
            place = (inside - axis.low) / axis.width
            first = place.detach().floor() if axis.periodic else place.detach().floor().clamp(0, axis.bins - 1)
            shift = 0 if axis.periodic else 1
            of_axes.append([((first.long() + k + shift) % count, _cubic(place - first - k)) for k in REACH])
        spread = []
        for parts in product(*of_axes):
            weight = parts[0][1] if len(parts) == 1 else parts[0][1] * parts[1][1]
            spread.append((tuple(index for index, _ in parts), weight))
        return spread

    def deposit(self, systems: Systems) -> None:
        """Count where systems are, and raise the bias there. What lies outside of the range does not count."""
        values = self.values(systems).detach().cpu()
        index, inside = self.bins_of(values)
        values, groups, index = values[inside], self.group(systems)[inside], [each[inside] for each in index]
        bins = (groups, *index)
        new = groups[self.visits[bins] == 0]
        self.histogram[new] = 0  # what was counted while the range was still growing is never flat
        one = torch.ones(len(values), dtype=torch.float64)
        for counts in (self.histogram, self.visits):
            counts.index_put_(bins, one, accumulate=True)
        self.late_visits.index_put_(bins, self.late[groups].double(), accumulate=True)
        self.late_deposits += self.late
        parts = self.late / self.late_deposits.clamp(min=1)
        self.late_coefficients += (self.coefficients - self.late_coefficients) * _by_group(parts, self.coefficients)
        for splines, weight in self._spread(values):
            height = self.thermal * self.increment[groups] * weight
            for share, spline in zip(self._share, splines, strict=True):
                height = height / share[spline]
            self.coefficients.index_put_((groups, *splines), height, accumulate=True)

    def refine(self) -> None:
        """Shrink the increments that are due."""
        for group in range(self.groups):
            visits = self.visits[group].numpy()
            histogram = self.histogram[group].numpy()
            before, late = float(self.increment[group]), bool(self.late[group])
            increment, late, anew = refined(before, late, histogram, visits > 0, float(visits.sum()))
            self.increment[group], self.late[group] = increment, late
            if anew:
                self.histogram[group] = 0

    def free_energies(self) -> np.ndarray:
        """F at the centers of the bins `[groups, bins...]`, eV, each up to a constant; NaN where a group has not been.

        Of a group whose visits are mostly late ones, where it has not been since then.
        """
        centers = [torch.from_numpy(axis.centers) for axis in self.axes]
        points = torch.stack([each.flatten() for each in torch.meshgrid(*centers, indexing="ij")], dim=1)
        rest = tuple(range(1, self.visits.dim()))
        mostly_late = 2 * self.late_visits.sum(rest) > self.visits.sum(rest)
        coefficients = torch.where(_by_group(mostly_late, self.coefficients), self.late_coefficients, self.coefficients)
        groups = [torch.full((len(points),), group) for group in range(self.groups)]
        bias = torch.stack([self._sum_of_splines(coefficients, points, group) for group in groups])
        left = torch.where(_by_group(mostly_late, self.visits), self.late_visits, (self.visits > 0).double())
        found = -bias.reshape(self.visits.shape) - self.thermal * left.log()
        return torch.where(left > 0, found, torch.nan).numpy()

    def flatness(self) -> list[float]:
        """Of each group's present histogram."""
        return [flatness(h, v > 0) for h, v in zip(self.histogram.numpy(), self.visits.numpy(), strict=True)]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was learnt, as a run saves it."""
        names = ("coefficients", "histogram", "visits", "increment", "late", "seconds")
        late = ("late_deposits", "late_visits", "late_coefficients")
        return {name: getattr(self, name) for name in (*names, *late)}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on as a bias that was like this."""
        for name, value in state.items():
            getattr(self, name).copy_(value)


def _by_group(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Values `[groups]` with as many axes as others have."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _cubic(x: torch.Tensor) -> torch.Tensor:
    """The cubic B-spline on −2 … 2; all of its shifts by integers sum to 1."""
    far = (2 - x.abs()).clamp(min=0)
    near = (1 - x.abs()).clamp(min=0)
    return far**3 / 6 - 4 * near**3 / 6


def _share(axis: Axis) -> np.ndarray:
    """The part of each spline that lies in the range."""
    if axis.periodic:
        return np.ones(axis.bins)
    fine = (np.arange(axis.bins * 200) + 0.5) / 200
    centers = np.arange(-1, axis.bins + 2)
    return _cubic(torch.from_numpy(fine[:, None] - centers)).numpy().sum(0) / 200
