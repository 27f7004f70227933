"""sphericart's harmonics are ours: integral normalization, m = -l..l of the vector (z, x, y)."""

from __future__ import annotations

import numpy as np
import pytest
import sphericart
import torch

from sdas_kernels.ops.spherical_harmonics import spherical_harmonics


@pytest.mark.parametrize("lmax", [0, 1, 4, 8])
def test_values_of_normalized_vectors(lmax):
    x = np.random.default_rng(0).normal(size=(20, 3))
    theirs = sphericart.SphericalHarmonics(lmax).compute(np.ascontiguousarray(x[:, [2, 0, 1]]))
    ours = spherical_harmonics(torch.from_numpy(x), lmax, True, "integral").numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("normalize", [True, False])
def test_first_and_second_derivatives(normalize):
    x = np.random.default_rng(1).normal(size=(5, 3))
    kind = sphericart.SphericalHarmonics if normalize else sphericart.SolidHarmonics
    value, slope, hessian = kind(4).compute_with_hessians(np.ascontiguousarray(x[:, [2, 0, 1]]))
    back = [1, 2, 0]  # our x, y, z are their second, third and first component
    slope, hessian = slope[:, back], hessian[:, back][:, :, back]

    vectors = torch.from_numpy(x).requires_grad_()
    weight = torch.randn(25, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = spherical_harmonics(vectors, 4, normalize, "integral")
    np.testing.assert_allclose(ours.detach().numpy(), value, rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad((ours @ weight).sum(), vectors, create_graph=True)
    np.testing.assert_allclose(first.detach().numpy(), slope @ weight.numpy(), rtol=1e-10, atol=1e-11)
    for a in range(3):
        (row,) = torch.autograd.grad(first[:, a].sum(), vectors, retain_graph=True)
        np.testing.assert_allclose(row.numpy(), hessian[:, a] @ weight.numpy(), rtol=1e-9, atol=1e-10)
