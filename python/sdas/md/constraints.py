"""Constraints of a structure, in the form in which ASE's integrators keep them exactly.

What holds single atoms (FixAtoms, FixCartesian, FixScaled, FixedLine, FixedPlane) becomes at most one constraint per
kind: two of them on one atom would otherwise count a degree of freedom twice. Bonds become one FixBondLengths with the
lengths of the start, so that a resumed run keeps the same lengths. ASE applies constraints one after the other, so two
kinds that pull at one atom would break each other: they are refused, as is every constraint whose motion ASE does not
integrate rightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixScaled,
)
from ase.geometry import find_mic
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sdas.errors import SdasError

HOLDS_ATOMS = (FixAtoms, FixCartesian, FixScaled, FixedLine, FixedPlane)
SUPPORTED = (*HOLDS_ATOMS, FixBondLengths, FixCom)
REASONS = {
    "FixInternals": "ASE projects its momenta as if all masses were equal; FixBondLengths keeps bonds",
    "FixSubsetCom": "ASE moves all atoms for it, not the subset",
    "Hookean": "it adds an energy that the log would lack",
}
SAME_LENGTH = 1e-6
"""Å; a bond that is asked to have another length than in the start would jump at the first step."""
AXIS = 1e-12
"""A component of a unit vector that counts as zero."""
INDEPENDENT = 1e-6
"""A singular value of unit vectors that counts as zero."""


def constraints_of(atoms: Atoms) -> list[FixConstraint]:
    """The constraints of `atoms` in the form that dynamics uses; raises SdasError naming one that it cannot keep."""
    given = [(type(constraint).__name__, constraint) for constraint in atoms.constraints]
    for name, constraint in given:
        if type(constraint) not in SUPPORTED:
            because = f" ({REASONS[name]})" if name in REASONS else ""
            known = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise SdasError(f"dynamics cannot keep the constraint {name}{because}; it keeps {known}")
        _check_indices(name, constraint, len(atoms))
    fixed, oblique = _held_atoms(atoms)
    bonds = _bonds(atoms)
    _check_apart(atoms, fixed, oblique, bonds)
    made = [*bonds, *[FixCom() for name, _ in given if name == "FixCom"][:1]]
    whole = fixed.all(axis=1)
    if whole.any():
        made.append(FixAtoms(indices=np.flatnonzero(whole)))
    for mask in np.unique(fixed[fixed.any(axis=1) & ~whole], axis=0):
        made.append(FixCartesian(np.flatnonzero((fixed == mask).all(axis=1)), mask=mask))
    return made + oblique


def described(constraints: Sequence[FixConstraint]) -> list[dict[str, Any]]:
    """What JSON can hold of them, and ASE's `dict2constraint` makes them of."""
    return [constraint.todict() for constraint in constraints]


def is_in_the_move_mask(constraint: FixConstraint) -> bool:
    """Whether the column `move_mask` of extended XYZ says it."""
    return isinstance(constraint, (FixAtoms, FixCartesian))


def conserves_momentum(atoms: Atoms) -> bool:
    """Whether no constraint holds atoms in space."""
    return not any(isinstance(constraint, HOLDS_ATOMS) for constraint in atoms.constraints)


def degrees_of_freedom(atoms: Atoms, momentum_kept: bool) -> int:
    """Those that move: 3n, less the constraints, less what the dynamics conserve and do not excite.

    If `momentum_kept` that is the momentum and, for molecules, the angular momentum, where no constraint holds atoms in
    space. Raises SdasError if constraints leave nothing that can move.
    """
    count = 3 * len(atoms) - sum(int(constraint.get_removed_dof(atoms)) for constraint in atoms.constraints)
    if momentum_kept and conserves_momentum(atoms):
        if not any(isinstance(constraint, FixCom) for constraint in atoms.constraints):
            count -= 3
        if is_molecule(atoms):
            count -= 3
    if count < 1 and atoms.constraints:
        raise SdasError(f"the constraints leave nothing that can move: {3 * len(atoms)} coordinates, {count} free")
    return max(count, 1)


def is_molecule(atoms: Atoms) -> bool:
    """Whether it can turn freely."""
    return not atoms.pbc.any() and len(atoms) > 2


def _indices(constraint: Any) -> NDArray[np.int64]:
    """The atoms that a constraint names; none for all."""
    return np.asarray(constraint.get_indices() if hasattr(constraint, "get_indices") else [], dtype=np.int64)


def _check_indices(name: str, constraint: Any, n_atoms: int) -> None:
    indices = _indices(constraint)
    outside = indices[(indices < -n_atoms) | (indices >= n_atoms)]
    if len(outside):
        raise SdasError(f"the constraint {name} names atom {outside[0]}; there are {n_atoms} atoms")


def _held_atoms(atoms: Atoms) -> tuple[NDArray[np.bool_], list[FixConstraint]]:
    """Cartesian components `[n, 3]` that are fixed, and the lines and planes that lie along no axis."""
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    oblique: list[FixConstraint] = []
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= constraint.mask
        elif isinstance(constraint, FixScaled):
            free = np.asarray(atoms.cell)[~constraint.mask]
            if len(free) == 0:
                fixed[constraint.index] = True
            elif len(free) == 1:
                _hold(fixed, oblique, FixedLine(constraint.index, free[0]))
            elif len(free) == 2:
                _hold(fixed, oblique, FixedPlane(constraint.index, np.cross(*free)))
        elif isinstance(constraint, (FixedLine, FixedPlane)):
            _hold(fixed, oblique, constraint)
    return fixed, oblique


def _hold(fixed: NDArray[np.bool_], oblique: list[FixConstraint], constraint: FixedLine | FixedPlane) -> None:
    along = np.abs(constraint.dir) > AXIS
    if along.sum() > 1:
        oblique.append(type(constraint)(np.arange(len(fixed))[constraint.index], constraint.dir))
    else:
        fixed[constraint.index] |= along if isinstance(constraint, FixedPlane) else ~along


def _bonds(atoms: Atoms) -> list[FixBondLengths]:
    """All bonds as one constraint, with the lengths of the start; none if there are no bonds."""
    given = [constraint for constraint in atoms.constraints if isinstance(constraint, FixBondLengths)]
    pairs = np.concatenate([np.empty((0, 2), int), *(np.reshape(c.pairs, (-1, 2)).astype(int) for c in given)])
    if len(pairs) == 0:
        return []
    pairs = np.arange(len(atoms))[pairs]
    vectors, lengths = find_mic(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], atoms.cell, atoms.pbc)
    asked = [c.initialize_bond_lengths(atoms) if c.bondlengths is None else c.bondlengths for c in given]
    for (i, j), length, wanted in zip(pairs, lengths, np.concatenate(asked), strict=True):
        if i == j:
            raise SdasError(f"FixBondLengths names a bond of atom {i} with itself")
        if abs(length - wanted) > SAME_LENGTH:
            raise SdasError(
                f"FixBondLengths asks for {wanted:.6f} Å between atoms {i} and {j}, which are {length:.6f} Å apart in "
                "the start: move them there first"
            )
    _check_independent(pairs, vectors / lengths[:, None], len(atoms))
    return [FixBondLengths(pairs, tolerance=min(c.tolerance for c in given), bondlengths=lengths)]


def _check_independent(pairs: NDArray[np.int64], directions: NDArray[np.float64], n_atoms: int) -> None:
    """Raise SdasError for bonds that follow from others: each would count as a degree of freedom.

    pairs `[k, 2]`, and `[k, 3]` unit vectors along them.
    """
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    group_of_bond = connected_components(graph, directed=False)[1][pairs[:, 0]]
    for group in np.unique(group_of_bond):
        rows = np.flatnonzero(group_of_bond == group)
        members, ends = np.unique(pairs[rows], return_inverse=True)
        ends = ends.reshape(-1, 2)
        change = np.zeros((len(rows), len(members), 3))
        change[np.arange(len(rows)), ends[:, 0]] += directions[rows]
        change[np.arange(len(rows)), ends[:, 1]] -= directions[rows]
        independent = np.linalg.matrix_rank(change.reshape(len(rows), -1), tol=INDEPENDENT)
        if independent < len(rows):
            raise SdasError(
                f"FixBondLengths fixes {len(rows)} bonds among atoms {members.tolist()}, of which only {independent} "
                "are independent: leave out bonds that follow from the others"
            )


def _check_apart(
    atoms: Atoms, fixed: NDArray[np.bool_], oblique: Sequence[FixConstraint], bonds: Sequence[FixBondLengths]
) -> None:
    """Raise SdasError if two constraints, which ASE applies one after the other, would break each other."""
    held = fixed.any(axis=1).astype(int)
    for constraint in oblique:
        held[_indices(constraint)] += 1
    if held.any() and any(isinstance(constraint, FixCom) for constraint in atoms.constraints):
        raise SdasError(
            f"FixCom moves all atoms, so it cannot be kept together with {_names(atoms, int(held.argmax()))}"
        )
    for constraint in bonds:
        held[_indices(constraint)] += 1
    if (held > 1).any():
        atom = int(held.argmax())
        raise SdasError(f"atom {atom} is held by {_names(atoms, atom)}, which cannot be kept together")


def _names(atoms: Atoms, atom: int) -> str:
    numbers = np.arange(len(atoms))
    return " and ".join(type(c).__name__ for c in atoms.constraints if atom in numbers[_indices(c)])
