"""The correction of Yeh and Hummer against that of kinisi, and the error of a model against that of known samples."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from sdas.diffusion import Diffusion, diffusion_error, yeh_hummer
from sdas.errors import SdasError


def test_the_correction_is_that_of_kinisi():
    scipp = pytest.importorskip("scipp", reason="KINISI ABSENT: pip install .[md]; the correction is not compared")
    from kinisi.yeh_hummer import YehHummer

    data = scipp.DataArray(
        scipp.array(dims=["system"], values=[2e-5, 2.1e-5], variances=[1e-13, 1e-13], unit="cm**2/s"),
        coords={"box_length": scipp.array(dims=["system"], values=[20.0, 30.0], unit="angstrom")},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = YehHummer(data, scipp.scalar(298.0, unit="K")).viscosity_to_slope(scipp.scalar(8.9e-4, unit="Pa*s"))
    np.testing.assert_allclose(yeh_hummer(298.0, 0.89, 20 * np.eye(3)), float(theirs) / 20.0 * 1e4, rtol=1e-5)


def test_it_is_of_cubes_alone():
    with pytest.raises(SdasError, match="cell is not cubic"):
        yeh_hummer(300.0, 1.0, np.diag([10.0, 10.0, 12.0]))
    with pytest.raises(SdasError, match="viscosity must be positive, got 0"):
        yeh_hummer(300.0, 0.0, 10 * np.eye(3))


def test_the_error_is_relative_and_has_an_interval():
    generator, empty = np.random.default_rng(0), np.empty(0)
    reference = Diffusion("Li", generator.normal(2.0, 0.02, 4000), 0, 1, 1, 1, 1, empty, empty, empty, np.eye(3))
    model = replace(reference, samples=generator.normal(1.5, 0.03, 4000))
    error = diffusion_error(model, reference)
    assert error.error == pytest.approx(0.25, abs=0.003)
    assert error.signed == pytest.approx(-0.25, abs=0.003)
    sigma = np.hypot(0.03 / 2.0, 1.5 * 0.02 / 2.0**2)  # of a ratio, to first order
    assert error.interval == pytest.approx((0.25 - 1.96 * sigma, 0.25 + 1.96 * sigma), abs=0.003)
    assert not error.overlap
    assert diffusion_error(reference, reference).overlap
