"""Clebsch–Gordan coefficients in the basis of real spherical harmonics, degrees 0..8.

The coefficients couple two features of degrees l1 and l2 to one of degree l3 so that rotating the inputs rotates the
output. For each triple they are unique up to a factor; this library takes e3nn's normalization (the squares sum to one)
and e3nn's sign, so that weights trained with either library mean the same.

The table ships beside this module (`tables/clebsch_gordan.npz`) and is made by `python -m sdas_kernels.clebsch_gordan`:
Racah's closed form for SU(2) in exact integers, then the change from complex to real harmonics. Only l1 <= l2 <= l3 is
stored; exchanging two degrees gives the factor (-1)^(l1+l2+l3).

Source: G. Racah, Phys. Rev. 62, 438 (1942), eq. 16; D. A. Varshalovich et al., Quantum Theory of Angular Momentum
(1988), section 8.2.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import cache
from math import factorial, sqrt
from pathlib import Path

import numpy as np
import torch

LMAX = 8
VERSION = "1"  # written into every checkpoint: coefficients of another version would change what weights mean
_TABLE = Path(__file__).parent / "tables" / "clebsch_gordan.npz"


def wigner_3j(
    l1: int, l2: int, l3: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Coupling tensor of three degrees in the real basis: e3nn's `o3.wigner_3j`.

    Returns `[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]`, of unit Frobenius norm. Raises `ValueError` where the degrees break the
    triangle rule or exceed `LMAX`.
    """
    return _wigner_3j(l1, l2, l3).to(dtype=dtype, device=device, copy=True)


@cache
def _wigner_3j(l1: int, l2: int, l3: int) -> torch.Tensor:
    degrees = (l1, l2, l3)
    if min(degrees) < 0 or max(degrees) > LMAX:
        raise ValueError(f"degrees (l1, l2, l3) = {degrees}: the Clebsch–Gordan table holds 0 <= l <= {LMAX}")
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"degrees (l1, l2, l3) = {degrees} break the triangle rule |l1 - l2| <= l3 <= l1 + l2")
    order = sorted(range(3), key=lambda axis: degrees[axis])
    ascending = (degrees[order[0]], degrees[order[1]], degrees[order[2]])
    entries, values = _table()[ascending]
    dense = np.zeros([2 * l + 1 for l in ascending])
    dense[tuple(entries.T)] = values
    odd_exchange = order in ([0, 2, 1], [1, 0, 2], [2, 1, 0])
    sign = -1.0 if odd_exchange and sum(degrees) % 2 else 1.0
    return torch.from_numpy(sign * np.ascontiguousarray(dense.transpose(np.argsort(order))))


@cache
def _table() -> dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """Non-zero entries of every ascending triple: indices `[n, 3]` and values `[n]`."""
    with np.load(_TABLE) as file:
        if str(file["version"]) != VERSION:
            raise RuntimeError(f"{_TABLE} is version {file['version']}, not {VERSION}: reinstall the package")
        triples, counts, entries, values = (file[name] for name in ("triples", "counts", "entries", "values"))
    stop = np.cumsum(counts)
    return {
        (int(a), int(b), int(c)): (entries[end - count : end].astype(np.int64), values[end - count : end])
        for (a, b, c), count, end in zip(triples, counts, stop, strict=True)
    }


def _su2(l1: int, m1: int, l2: int, m2: int, l3: int, m3: int) -> float:
    """<l1 m1 l2 m2 | l3 m3> by Racah's formula; the sum is exact, one square root is taken at the end."""
    if m1 + m2 != m3:
        return 0.0
    prefactor = Fraction(
        (2 * l3 + 1) * factorial(l3 + l1 - l2) * factorial(l3 - l1 + l2) * factorial(l1 + l2 - l3),
        factorial(l1 + l2 + l3 + 1),
    )
    for l, m in ((l1, m1), (l2, m2), (l3, m3)):
        prefactor *= factorial(l + m) * factorial(l - m)
    total = Fraction(0)
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        below = (k, l1 + l2 - l3 - k, l1 - m1 - k, l2 + m2 - k, l3 - l2 + m1 + k, l3 - l1 - m2 + k)
        product = 1
        for n in below:
            product *= factorial(n)
        total += Fraction((-1) ** k, product)
    return sqrt(float(prefactor)) * float(total)


def _complex_from_real(l: int) -> np.ndarray:
    """Unitary matrix `[complex m, real m]`, with the factor (-i)^l that makes the coupling tensor real."""
    matrix = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
    matrix[l, l] = 1.0
    for m in range(1, l + 1):
        matrix[l - m, [l + m, l - m]] = np.array([1.0, -1.0j]) / sqrt(2)
        matrix[l + m, [l + m, l - m]] = np.array([1.0, 1.0j]) * (-1) ** m / sqrt(2)
    return (-1j) ** l * matrix


def _generate(l1: int, l2: int, l3: int) -> np.ndarray:
    """Coupling tensor of one triple, `[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]`."""
    su2 = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1, m2 in itertools.product(range(-l1, l1 + 1), range(-l2, l2 + 1)):
        if abs(m1 + m2) <= l3:
            su2[l1 + m1, l2 + m2, l3 + m1 + m2] = _su2(l1, m1, l2, m2, l3, m1 + m2)
    u1, u2, u3 = (_complex_from_real(l) for l in (l1, l2, l3))
    real_basis = np.einsum("mi,nj,pk,mnp->ijk", u1, u2, u3.conj(), su2, optimize=True)
    if np.abs(real_basis.imag).max() > 1e-12:
        raise AssertionError(f"the coupling tensor of {(l1, l2, l3)} is not real")
    return real_basis.real / np.linalg.norm(real_basis.real)


def generate_table(path: Path = _TABLE) -> None:
    """Write the table of every ascending triple up to `LMAX`."""
    triples, counts, entries, values = [], [], [], []
    for triple in itertools.combinations_with_replacement(range(LMAX + 1), 3):
        if triple[2] <= triple[0] + triple[1]:
            dense = _generate(*triple)
            index = np.argwhere(np.abs(dense) > 1e-13)
            triples.append(triple)
            counts.append(len(index))
            entries.append(index.astype(np.uint8))
            values.append(dense[tuple(index.T)])
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        version=VERSION,
        triples=np.array(triples, dtype=np.uint8),
        counts=np.array(counts, dtype=np.int32),
        entries=np.concatenate(entries),
        values=np.concatenate(values),
    )


if __name__ == "__main__":
    generate_table()
