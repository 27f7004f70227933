"""Clebsch–Gordan tensors: e3nn's values, orthogonality, equivariance, and Gaunt integrals by quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.special import sph_harm_y

from sdas_kernels.clebsch_gordan import LMAX, generate_table, wigner_3j

TRIPLES = [
    triple
    for triple in itertools.product(range(LMAX + 1), repeat=3)
    if abs(triple[0] - triple[1]) <= triple[2] <= triple[0] + triple[1]
]
SMALL = [triple for triple in TRIPLES if max(triple) <= 3]


def test_values_are_e3nns():
    """Every order of small degrees, ascending ones of the others: the next test reaches the rest from these."""
    for triple in [t for t in TRIPLES if t in SMALL or t == tuple(sorted(t))]:
        wanted = o3.wigner_3j(*triple, dtype=torch.float64)
        torch.testing.assert_close(wigner_3j(*triple), wanted, rtol=0, atol=1e-14, msg=lambda m, t=triple: f"{t}: {m}")


def test_exchange_of_degrees():
    for l1, l2, l3 in TRIPLES:
        c, sign = wigner_3j(l1, l2, l3), (-1) ** (l1 + l2 + l3)
        assert torch.equal(wigner_3j(l2, l1, l3), sign * c.transpose(0, 1))
        assert torch.equal(wigner_3j(l2, l3, l1), c.permute(1, 2, 0))


def test_product_basis_is_orthonormal():
    """√(2 l3 + 1) C over all l3 is an orthogonal change of basis of the product of l1 and l2."""
    for l1, l2 in itertools.product(range(5), repeat=2):
        blocks = [
            math.sqrt(2 * l3 + 1) * wigner_3j(l1, l2, l3).flatten(0, 1) for l3 in range(abs(l1 - l2), l1 + l2 + 1)
        ]
        basis = torch.cat(blocks, 1)
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("triple", [t for t in TRIPLES if sum(t) % 3 == 0 and max(t) in (2, 5, 8)][::5])
def test_rotating_the_inputs_rotates_the_output(triple):
    d1, d2, d3 = (wigner_d(l, 0.3, 1.1, -2.0) for l in triple)
    c = wigner_3j(*triple)
    torch.testing.assert_close(torch.einsum("ijk,ia,jb,kc->abc", c, d1, d2, d3), c, rtol=0, atol=1e-12)


def wigner_d(l, alpha, beta, gamma):
    """e3nn's, in float64: its generators are made in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return o3.wigner_D(l, torch.tensor(alpha), torch.tensor(beta), torch.tensor(gamma))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("triple", [t for t in SMALL if sum(t) % 2 == 0])
def test_gaunt_integrals_by_quadrature(triple):
    """∫ Y_l1 Y_l2 Y_l3 is C times a factor of the degrees only, whose size the SU(2) symbol (l1 l2 l3; 0 0 0) gives."""
    gaunt = np.einsum("qi,qj,qk,q->ijk", *(scipys_harmonics(l) for l in triple), quadrature()[2])
    c = wigner_3j(*triple).numpy()
    factor = (gaunt * c).sum()
    np.testing.assert_allclose(gaunt, factor * c, atol=1e-13)
    l1, l2, l3 = triple
    size = math.sqrt((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1) / (4 * math.pi)) * abs(symbol_of_zeros(l1, l2, l3))
    assert abs(factor) == pytest.approx(size, abs=1e-13)


def quadrature(n=12):
    """Nodes (theta, phi) and weights on the sphere, exact for polynomials of degree below 2n."""
    x, weight = np.polynomial.legendre.leggauss(n)
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    theta, phi = np.meshgrid(np.arccos(x), phi, indexing="ij")
    return theta.ravel(), phi.ravel(), np.repeat(weight, 2 * n) * 2 * np.pi / (2 * n)


def scipys_harmonics(l):
    """Real harmonics of degree l from scipy's complex ones, without Condon–Shortley phase, `[nodes, 2l+1]`."""
    theta, phi, _ = quadrature()
    columns = []
    for m in range(-l, l + 1):
        value = (-1.0) ** m * sph_harm_y(l, abs(m), theta, phi)
        columns.append(value.real if m == 0 else math.sqrt(2) * (value.imag if m < 0 else value.real))
    return np.stack(columns, 1)


def symbol_of_zeros(l1, l2, l3):
    """The 3j symbol (l1 l2 l3; 0 0 0) from Legendre polynomials: its square is half the integral of their product."""
    x, weight = np.polynomial.legendre.leggauss(20)
    product = np.prod([np.polynomial.Legendre.basis(l)(x) for l in (l1, l2, l3)], axis=0)
    return math.sqrt((product * weight).sum() / 2)


def test_the_shipped_table_is_the_generated_one(tmp_path):
    from sdas_kernels import clebsch_gordan

    generate_table(tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz") as made, np.load(clebsch_gordan._TABLE) as shipped:
        assert made.files == shipped.files
        for name in made.files:
            if name == "values":
                np.testing.assert_allclose(made[name], shipped[name], atol=1e-15)
            else:
                np.testing.assert_array_equal(made[name], shipped[name])


def test_the_caller_owns_what_it_gets():
    wigner_3j(1, 1, 2).zero_()
    assert wigner_3j(1, 1, 2).any()
    assert wigner_3j(1, 1, 2, torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("triple", "words"),
    [((1, 1, 3), "triangle"), ((9, 9, 0), "0 <= l <= 8"), ((-1, 1, 1), "0 <= l <= 8"), ((0, 0, 1), "triangle")],
)
def test_degrees_out_of_range_are_refused(triple, words):
    with pytest.raises(ValueError, match=words):
        wigner_3j(*triple)
