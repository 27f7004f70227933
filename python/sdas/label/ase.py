"""Any calculator of ASE as an oracle, a trained model's among them."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from sdas.config.label import ASEConfig
from sdas.data.frame import Frame
from sdas.errors import LabelError, SdasError
from sdas.label.oracle import Label


class ASEOracle:
    """The calculator that a function or class of a module makes.

    Two attributes are used where a calculator has them, as :class:`sdas.md.SDASCalculator` does: ``fingerprint``, of
    the numbers that its results follow from, stands in the address of labels in place of its argument ``model``; and
    ``check(atoms)`` raises for atoms that it cannot compute.
    """

    def __init__(self, config: ASEConfig) -> None:
        name = f"{config.module}:{config.calculator}"
        try:
            make = getattr(importlib.import_module(config.module), config.calculator)
        except (ImportError, AttributeError) as error:
            raise LabelError(f"oracle ase:{name}: {error}") from None
        try:
            self.calculator: Any = make(**config.arguments)
        except SdasError:
            raise
        except Exception as error:  # calculators raise whatever their programs need
            raise LabelError(f"oracle ase:{name} cannot be made: {type(error).__name__}: {error}") from error
        properties = getattr(self.calculator, "implemented_properties", ())
        if missing := [label for label in ("energy", "forces") if label not in properties]:
            raise LabelError(f"oracle ase:{name} gives no {' and no '.join(missing)}")
        self.config = config
        self.energy = "free_energy" if "free_energy" in properties else "energy"
        self.has_stress = "stress" in properties

    @property
    def method(self) -> dict[str, Any]:
        """Class and arguments, or the fingerprint in place of the argument that names a model."""
        told: dict[str, Any] = {"arguments": self.config.arguments}
        if fingerprint := getattr(self.calculator, "fingerprint", None):
            others = {name: value for name, value in self.config.arguments.items() if name != "model"}
            told = {"fingerprint": fingerprint} | ({"arguments": others} if others else {})
        return {"oracle": "ase", "module": self.config.module, "calculator": self.config.calculator, **told}

    @property
    def versions(self) -> dict[str, str]:
        """Of ASE and of the package that the class comes from, where that is known."""
        package = self.config.module.partition(".")[0]
        found = {"ase": version("ase")}
        try:
            return found | {package: version({"sdas": "sdas-kernels"}.get(package, package))}
        except PackageNotFoundError:
            return found

    def prepared(self, frame: Frame) -> Frame:
        """The frame as it is, if the calculator does not object. It is told the charge and the spin in ``info``."""
        if hasattr(self.calculator, "check"):
            try:
                self.calculator.check(_atoms(frame))
            except SdasError as error:
                raise LabelError(f"{frame.source}: {error}") from None
        return frame

    def compute(self, frame: Frame) -> Label:
        """Energy and forces, and stress along three periodic axes if the calculator has it.

        Of a calculator that tells both, the energy is the free energy, whose gradient the forces are.
        """
        atoms = _atoms(frame)
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()  # ASE sees no difference between frames that differ in charge or spin alone
        energy = float(self.calculator.get_property(self.energy, atoms))
        forces = np.array(self.calculator.get_property("forces", atoms), dtype=np.float64)
        stress = None
        if self.has_stress and frame.pbc.all():
            six = np.asarray(self.calculator.get_property("stress", atoms), dtype=np.float64)
            stress = six if six.shape == (3, 3) else voigt_6_to_full_3x3_stress(six)
        return Label(energy, forces, stress, {"energy": self.energy})


def _atoms(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info=dict(frame.state))
