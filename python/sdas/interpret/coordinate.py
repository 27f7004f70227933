"""Is a reaction coordinate the leading direction in which features change? Along a scan, and among the frames.

The coordinate is a torsion, or a transfer: atom j goes over from i to k, by the distance i–j less the distance j–k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.interpret.attention import FloatArray
from sdas.interpret.bonds import atoms_of, beyond, bonds_of, distances_of, torsions_of
from sdas.interpret.controls import beats
from sdas.interpret.features import invariants

Torsion = tuple[int, int, int, int]
SCAN_POINTS = 36
COMPONENTS = 3
CLOSEST_ANG = 0.9
"""Of a transferred atom to either end of its way."""


def chosen_torsion(frame: Frame, wanted: Sequence[int] | None) -> Torsion | None:
    """The torsion asked for, or the one with the most heavy atoms; None for a structure without any.

    Raises SdasError for atoms that are not there, not four, or whose bond in the middle does not turn.
    """
    bonded = bonds_of(frame)
    if wanted is None:
        free = torsions_of(frame.numbers.tolist(), bonded)
        return None if frame.pbc.any() or not free else free[0]
    if len(set(wanted)) != 4 or not all(0 <= k < len(frame) for k in wanted):
        raise SdasError(f"a torsion is four different atoms of 0..{len(frame) - 1}, got {list(wanted)}")
    a, b, c, d = wanted
    side = beyond(bonded, b, c)
    if not bonded[b, c] or side is None or a in side or d not in side:
        raise SdasError(f"torsion {a},{b},{c},{d}: atoms {b} and {c} must be bonded, outside of rings, a and d beyond")
    return a, b, c, d


def torsion_scan(frame: Frame, torsion: Torsion, points: int = SCAN_POINTS) -> tuple[FloatArray, list[Frame]]:
    """Angles `[points]` in degrees, once around, and the frame with the torsion turned to each; labels are dropped."""
    side = beyond(bonds_of(frame), *torsion[1:3])
    angles = np.arange(points) * 360.0 / points
    frames = []
    for angle in angles:
        atoms = atoms_of(frame)
        atoms.set_dihedral(*torsion, angle, indices=side)
        frames.append(replace(frame, positions=atoms.positions.copy(), energy=None, forces=None, stress=None))
    return angles, frames


def torsion_angles(frames: Sequence[Frame], torsion: Torsion) -> FloatArray:
    """The torsion of each frame, degrees `[F]`."""
    return np.array([atoms_of(frame).get_dihedral(*torsion) for frame in frames])


def principal_components(inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The leading components of `[F, D]`: their values `[F, 3]`, and the share of the variance that each has."""
    centered = inputs - inputs.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    share = s**2 / max(float((s**2).sum()), 1e-300)
    return (u * s)[:, :COMPONENTS], share[:COMPONENTS]


def circular_r2(component: FloatArray, degrees: FloatArray) -> float:
    """R² of a component as a + b cos φ + c sin φ: the correlation of a number with an angle (Mardia 1976)."""
    phi = np.radians(degrees)
    basis = np.stack([np.ones_like(phi), np.cos(phi), np.sin(phi)], axis=1)
    fitted = basis @ np.linalg.lstsq(basis, component, rcond=None)[0]
    spread = component - component.mean()
    return float(1 - ((component - fitted) ** 2).sum() / max(float(spread @ spread), 1e-300))


def linear_r2(component: FloatArray, values: FloatArray) -> float:
    """R² of a component as a + b ξ: the square of their correlation."""
    both = component - component.mean(), values - values.mean()
    product = float(both[0] @ both[0]) * float(both[1] @ both[1])
    return float(both[0] @ both[1]) ** 2 / max(product, 1e-300)


def checked_transfer(frame: Frame, wanted: Sequence[int]) -> tuple[int, int, int]:
    """Three different atoms i, j, k, of which i and k leave room for j between them; raises SdasError for others."""
    if len(set(wanted)) != 3 or not all(0 <= atom < len(frame) for atom in wanted):
        raise SdasError(f"a transfer is three different atoms of 0..{len(frame) - 1}, got {list(wanted)}")
    i, j, k = wanted
    room = float(np.linalg.norm(frame.positions[k] - frame.positions[i]))
    if frame.pbc.any() or not room > 2 * CLOSEST_ANG:
        raise SdasError(f"transfer {i},{j},{k}: atoms {i} and {k} must be farther than {2 * CLOSEST_ANG} Å apart")
    return i, j, k


def transfer_scan(frame: Frame, transfer: Sequence[int], points: int = SCAN_POINTS) -> tuple[FloatArray, list[Frame]]:
    """ξ `[points]` in Å, and the frame with atom j moved along the line from i to k; labels are dropped."""
    i, j, k = transfer
    way = frame.positions[k] - frame.positions[i]
    length = float(np.linalg.norm(way))
    frames = []
    for reached in np.linspace(CLOSEST_ANG, length - CLOSEST_ANG, points) / length:
        positions = frame.positions.copy()
        positions[j] = positions[i] + reached * way
        frames.append(replace(frame, positions=positions, energy=None, forces=None, stress=None))
    return transfer_values(frames, transfer), frames


def transfer_values(frames: Sequence[Frame], transfer: Sequence[int]) -> FloatArray:
    """ξ of each frame, Å `[F]`."""
    i, j, k = transfer
    arms = [(frame.positions[i] - frame.positions[j], frame.positions[j] - frame.positions[k]) for frame in frames]
    return np.array([np.linalg.norm(before) - np.linalg.norm(after) for before, after in arms])


def along_torsion(
    model: Any, controls: Sequence[Any], frames: Sequence[Frame], torsion: Torsion, batch_size: int
) -> dict[str, Any]:
    """Leading components of the features against a torsion: of the model, of random weights, of distances alone."""
    parts = {"scan": torsion_scan(frames[0], torsion), "frames": (torsion_angles(frames, torsion), frames)}
    found = _compared(model, controls, parts, circular_r2, batch_size)
    return {"kind": "torsion", "atoms": list(torsion), "unit": "degrees", **found}


def along_transfer(
    model: Any, controls: Sequence[Any], frames: Sequence[Frame], transfer: Sequence[int], batch_size: int
) -> dict[str, Any]:
    """The same against a transfer."""
    parts = {"scan": transfer_scan(frames[0], transfer), "frames": (transfer_values(frames, transfer), frames)}
    found = _compared(model, controls, parts, linear_r2, batch_size)
    return {"kind": "transfer", "atoms": list(transfer), "unit": "Å", **found}


def _compared(
    model: Any,
    controls: Sequence[Any],
    parts: Mapping[str, tuple[FloatArray, Sequence[Frame]]],
    r2: Callable[[FloatArray, FloatArray], float],
    batch_size: int,
) -> dict[str, Any]:
    found = {}
    for name, (values, chosen) in parts.items():
        if len(chosen) <= 2 * COMPONENTS:
            continue
        trained = _against(invariants(model, chosen, batch_size), values, r2)
        random = [_against(invariants(each, chosen, batch_size), values, r2) for each in controls]
        distances = _against(np.stack([distances_of(frame) for frame in chosen]), values, r2)
        others = [distances["r2"][0], *(each["r2"][0] for each in random)]
        found[name] = {
            "values": values.tolist(),
            "model": trained,
            "random": random,
            "distances": distances,
            "finding": beats(trained["r2"][0], others),
        }
    return found


def _against(features: FloatArray, values: FloatArray, r2: Callable[[FloatArray, FloatArray], float]) -> dict[str, Any]:
    components, share = principal_components(features.reshape(len(features), -1))
    return {
        "r2": [r2(component, values) for component in components.T],
        "share_of_variance": share.tolist(),
        "components": components.T.tolist(),
    }
