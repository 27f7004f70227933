"""Extended tight binding by tblite: energies, forces, and stresses of periodic frames."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from sdas.config.label import TBLiteConfig
from sdas.data.frame import Frame
from sdas.data.units import BOHR, HARTREE
from sdas.errors import LabelError
from sdas.label.oracle import Label, UnconvergedError, symbols, with_electrons

HEAVIEST = 86
KELVIN = 3.166808578545117e-6
"""Hartree per K, tblite's."""
ATTEMPTS: dict[str, dict[str, Any]] = {
    "Broyden mixing": {},
    "slow mixing": {"mixer-damping": 0.1, "max-iter": 1000},
}


class TBLiteOracle:
    """GFN2-xTB, GFN1-xTB or IPEA1-xTB."""

    def __init__(self, config: TBLiteConfig) -> None:
        try:
            import tblite.interface  # noqa: F401
        except ImportError:
            raise LabelError("the oracle tblite needs tblite: pip install 'sdas-kernels[label]'") from None
        self.config = config

    @property
    def method(self) -> dict[str, Any]:
        """All of the configuration but the electrons, which are of the frame."""
        return {"oracle": "tblite", **self.config.model_dump(exclude={"charge", "spin"})}

    @property
    def versions(self) -> dict[str, str]:
        """Of tblite."""
        return {"tblite": version("tblite")}

    def prepared(self, frame: Frame) -> Frame:
        """Elements up to Rn, with a multiplicity that can be."""
        heavy = frame.numbers[frame.numbers > HEAVIEST]
        if len(heavy):
            raise LabelError(f"{frame.source}: {self.config.method} has no {symbols(heavy)}; it ends at Rn")
        return with_electrons(frame, self.config)

    def compute(self, frame: Frame) -> Label:
        """Energy and forces of a prepared frame, and stress along three periodic axes.

        Raises :class:`UnconvergedError`.
        """
        way, found = self._solved(frame)
        stress = None
        if frame.pbc.all() and frame.volume is not None:
            stress = np.asarray(found.get("virial")) * (HARTREE / frame.volume)
        forces = -np.asarray(found.get("gradient")) * (HARTREE / BOHR)
        return Label(float(found.get("energy")) * HARTREE, forces, stress, {"converged_by": way})

    def _solved(self, frame: Frame) -> tuple[str, Any]:
        """How the calculation converged, and its results; raises :class:`UnconvergedError`."""
        for way, settings in ATTEMPTS.items():
            try:
                return way, self._calculator(frame, settings).singlepoint()
            except RuntimeError as error:
                if "not converge" not in str(error):
                    raise
        raise UnconvergedError(f"the SCF converges neither by {' nor by '.join(ATTEMPTS)}")

    def _calculator(self, frame: Frame, settings: dict[str, Any]) -> Any:
        from tblite.interface import Calculator

        config = self.config
        cell = frame.cell / BOHR if frame.cell is not None and frame.pbc.any() else None
        calculator = Calculator(
            config.method, frame.numbers, frame.positions / BOHR, frame.charge or 0, int(frame.spin or 1) - 1, cell,
            frame.pbc if cell is not None else None,
        )  # fmt: skip
        calculator.set("verbosity", 0)
        calculator.set("accuracy", config.accuracy)
        calculator.set("temperature", config.electronic_temperature_k * KELVIN)
        for name, value in settings.items():
            calculator.set(name, value)
        return calculator
