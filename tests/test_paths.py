"""Paths: every allowed coupling once, rows in their order, coefficients that keep unit variance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from e3nn import o3

from sdas_kernels.paths import Paths, coupling, gather_table

CASES = [Paths(*ls, even) for ls in itertools.product(range(4), repeat=3) for even in (True, False)]


@pytest.mark.parametrize("even_only", [True, False])
def test_every_allowed_triple_once(even_only):
    paths = Paths(3, 2, 4, even_only)
    wanted = {
        (l1, l2, l3)
        for l1, l2, l3 in itertools.product(range(4), range(3), range(5))
        if abs(l1 - l2) <= l3 <= l1 + l2 and (not even_only or (l1 + l2 + l3) % 2 == 0)
    }
    assert set(paths.all) == wanted
    assert len(paths.all) == len(wanted) == sum(paths.counts)
    assert paths.all == sorted(paths.all, key=lambda path: (path[2], path[0], path[1]))


def test_row_slices_tile_the_rows():
    for paths in CASES:
        slices = paths.row_slices()
        assert slices[0].start == 0
        assert slices[-1].stop == paths.rows
        assert all(a.stop == b.start for a, b in itertools.pairwise(slices))
        lengths = [s.stop - s.start for s in slices]
        assert lengths == [(2 * l3 + 1) * n for l3, n in enumerate(paths.counts)]


def test_coefficients_are_e3nns_with_rows_by_order_then_path():
    paths = Paths(2, 3, 2, even_only=False)
    dense = coupling(paths)
    row = 0
    for l3 in range(3):
        for m3 in range(2 * l3 + 1):
            for l1, l2, _ in paths.to_degree(l3):
                wanted = torch.zeros(9, 16, dtype=torch.float64)
                block = math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=torch.float64)[:, :, m3]
                wanted[l1**2 : (l1 + 1) ** 2, l2**2 : (l2 + 1) ** 2] = block
                torch.testing.assert_close(dense[row], wanted, rtol=1e-12, atol=1e-12)
                row += 1
    assert row == paths.rows


def test_every_row_has_unit_norm_so_variance_is_kept():
    for paths in CASES:
        norms = coupling(paths).flatten(1).square().sum(1)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_gather_table_is_the_dense_matrix(transposed):
    for paths in CASES:
        matrix = coupling(paths).flatten(1)
        matrix = matrix.T if transposed else matrix
        index, value = gather_table(paths, transposed, torch.float64, torch.device("cpu"))
        rebuilt = torch.zeros_like(matrix).scatter_add(1, index, value)
        assert torch.equal(rebuilt, matrix)
        kept = value != 0
        for places, mask in zip(index, kept, strict=True):
            assert places[mask].tolist() == sorted(set(places[mask].tolist()))


def test_gather_table_in_the_asked_dtype():
    assert gather_table(Paths(1, 1, 1), False, torch.float32, torch.device("cpu"))[1].dtype == torch.float32
