"""Which frames of a pool to label: numbers in, indices out.

topk      the most uncertain frames
random    any
maxdist   always the frame that is farthest from all that is chosen or labeled, by its features
lcmd      the farthest frame of the largest cluster: each frame belongs to its nearest chosen or labeled one, and a
          cluster is as large as its squared distances together (D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart,
          J. Mach. Learn. Res. 24, 164, 2023)

Near-duplicates of what is chosen or labeled are passed over and counted, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdas.errors import ActiveError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Frames:
    """What is known of n frames.

    features [n, D]. kinds [n]: frames of another kind are never near-duplicates. shapes: for each frame an array that
    has one length within a kind, compared by the root mean square of differences.
    """

    features: FloatArray
    kinds: IntArray
    shapes: Sequence[FloatArray]


@dataclass(frozen=True)
class Selection:
    """chosen: indices in the order of the choice. duplicates: indices that were passed over, as far as was looked."""

    chosen: list[int]
    duplicates: list[int]


def select(
    rule: str, count: int, scores: FloatArray, pool: Frames, labeled: Frames, *, threshold: float, seed: int
) -> Selection:
    """``count`` indices of the pool, fewer where no more are left without near-duplicates.

    Args:
        scores: uncertainties [n] of the pool.
        threshold: frames whose shapes differ by less are near-duplicates; 0 for none.
        seed: of the rule ``random``; the others draw nothing.

    Raises:
        ActiveError: an unknown rule, or scores that are not finite.
    """
    if rule not in RULES:
        raise ActiveError(f"select must be one of {', '.join(RULES)}, got {rule!r}")
    if not np.isfinite(scores).all():
        raise ActiveError(f"the uncertainty of frame {int(np.argmin(np.isfinite(scores)))} of the pool is not finite")
    ranks = np.random.default_rng(seed).permutation(len(scores)).astype(np.float64) if rule == "random" else -scores
    seen = _Seen(labeled, threshold)
    left, chosen, duplicates = np.arange(len(scores)), list[int](), list[int]()
    while len(chosen) < count and len(left):
        centers = np.concatenate([labeled.features, pool.features[chosen]])
        wanted = RULES[rule](ranks[left], pool.features[left], centers, min(count - len(chosen), len(left)))
        for index in left[wanted].tolist():
            kind, shape = int(pool.kinds[index]), pool.shapes[index]
            if seen.has(kind, shape):
                duplicates.append(index)
            else:
                seen.add(kind, shape)
                chosen.append(index)
        left = np.delete(left, wanted)
    return Selection(chosen, sorted(duplicates))


def lowest(ranks: FloatArray, features: FloatArray, centers: FloatArray, count: int) -> IntArray:
    """The ``count`` lowest of ``ranks``, the first of equal ones first."""
    return np.argsort(ranks, kind="stable")[:count]


def maxdist(ranks: FloatArray, features: FloatArray, centers: FloatArray, count: int) -> IntArray:
    """Greedily the farthest from ``centers`` and from what is chosen; the first of all is that of the largest norm."""
    nearest = _Nearest(features, centers)
    return nearest.chosen(count, lambda: nearest.squared)


def lcmd(ranks: FloatArray, features: FloatArray, centers: FloatArray, count: int) -> IntArray:
    """Greedily the farthest of the largest cluster about ``centers`` and what is chosen; the first likewise."""
    nearest = _Nearest(features, centers)

    def within_largest_cluster() -> FloatArray:
        sizes = np.bincount(nearest.center, weights=nearest.squared)
        return np.where(sizes[nearest.center] == sizes.max(), nearest.squared, -np.inf)

    return nearest.chosen(count, within_largest_cluster)


Rule = Callable[[FloatArray, FloatArray, FloatArray, int], IntArray]
RULES: dict[str, Rule] = {"topk": lowest, "random": lowest, "maxdist": maxdist, "lcmd": lcmd}


class _Nearest:
    """Of each of n points its nearest center, and the squared distance to it."""

    def __init__(self, features: FloatArray, centers: FloatArray) -> None:
        self.features, self.count = features, 0
        self.squared, self.center = np.full(len(features), np.inf), np.zeros(len(features), dtype=np.int64)
        for center in centers:
            self.add(center)

    def add(self, center: FloatArray) -> None:
        squared = ((self.features - center) ** 2).sum(axis=1)
        nearer = squared < self.squared
        self.squared[nearer], self.center[nearer] = squared[nearer], self.count
        self.count += 1

    def chosen(self, count: int, scores: Callable[[], FloatArray]) -> IntArray:
        """Greedily the points with the highest scores, each a center from then on."""
        free, found = np.ones(len(self.features), dtype=bool), list[int]()
        while len(found) < count:
            values = scores() if self.count else (self.features**2).sum(axis=1)
            index = int(np.argmax(np.where(free, values, -np.inf)))
            free[index] = False
            found.append(index)
            self.add(self.features[index])
        return np.array(found, dtype=np.int64)


class _Seen:
    """The shapes of each kind that are chosen or labeled."""

    def __init__(self, labeled: Frames, threshold: float) -> None:
        self.threshold = threshold
        self.shapes: dict[int, list[FloatArray]] = {}
        for kind, shape in zip(labeled.kinds.tolist(), labeled.shapes, strict=True):
            self.add(kind, shape)

    def has(self, kind: int, shape: FloatArray) -> bool:
        known = self.shapes.get(kind)
        if not known or not self.threshold:
            return False
        return bool((np.mean((np.stack(known) - shape) ** 2, axis=1) < self.threshold**2).any())

    def add(self, kind: int, shape: FloatArray) -> None:
        self.shapes.setdefault(kind, []).append(shape)
