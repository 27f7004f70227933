"""Density functional theory by PySCF: energies and analytic forces of molecules.

A self-consistent field that does not converge by DIIS is tried again, each time from the density that was reached:
with a level shift and damping, and then by Newton's method. If that does not help there is no label.

Where gpu4pyscf is installed, the calculation runs on the GPU; that has not been tried on one yet.
"""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from sdas.config.label import PySCFConfig
from sdas.data.frame import Frame
from sdas.data.units import BOHR, HARTREE
from sdas.errors import LabelError
from sdas.label.oracle import Label, UnconvergedError, symbols, with_electrons

LEVEL_SHIFT = 0.3
"""Hartree; larger than the gap of what does not converge."""
DAMPING = 0.3
ORBITAL_AGREEMENT = 1e-3
"""Hartree; far above what is left of a converged field, far below a crossing."""
PATIENCE = 3
"""How many times more cycles safer settings get, which go slower."""


class PySCFOracle:
    """Kohn–Sham theory, restricted without unpaired electrons and unrestricted with them."""

    def __init__(self, config: PySCFConfig, memory_mib: int) -> None:
        try:
            import pyscf  # noqa: F401
        except ImportError:
            raise LabelError("the oracle pyscf needs PySCF: pip install 'sdas-kernels[label]'") from None
        own_dispersion = _dispersion_of(config.functional)
        if own_dispersion and config.dispersion is not None:
            raise LabelError(
                f"the functional {config.functional} has dispersion of its own; "
                f"leave out dispersion {config.dispersion}"
            )
        self.corrected = config.dispersion is not None or own_dispersion == "correction"
        if self.corrected and importlib.util.find_spec("pyscf.dispersion") is None:
            raise LabelError("dispersion needs the package pyscf-dispersion: pip install 'sdas-kernels[label]'")
        self.config, self.memory_mib = config, memory_mib
        self.on_gpu = importlib.util.find_spec("gpu4pyscf") is not None
        self._known: set[int] = set()

    @property
    def method(self) -> dict[str, Any]:
        """All of the configuration but how long to try, and the electrons, which are of the frame."""
        return {"oracle": "pyscf", **self.config.model_dump(exclude={"max_cycle", "charge", "spin"})}

    @property
    def versions(self) -> dict[str, str]:
        """PySCF, the dispersion and the GPU program as far as they compute."""
        names = ["pyscf"]
        names += ["pyscf-dispersion"] if self.corrected else []
        return {name: version(name) for name in names} | ({"gpu4pyscf": _gpu_version()} if self.on_gpu else {})

    def prepared(self, frame: Frame) -> Frame:
        """Molecules only, of elements in the basis, with a multiplicity that can be."""
        if frame.pbc.any():
            raise LabelError(f"{frame.source}: is periodic; the oracle pyscf computes molecules in open space")
        missing = [number for number in set(frame.numbers.tolist()) - self._known if not self._has(number)]
        if missing:
            raise LabelError(
                f"{frame.source}: the basis {self.config.basis} has no {symbols(missing)}; choose another basis"
            )
        self._known.update(frame.numbers.tolist())
        return with_electrons(frame, self.config)

    def compute(self, frame: Frame) -> Label:
        """Energy and forces of a prepared frame; raises :class:`UnconvergedError`."""
        way, field = self._solved(self._field(frame))
        gradient = field.nuc_grad_method().kernel()
        if hasattr(gradient, "get"):  # an array on the GPU
            gradient = gradient.get()
        forces = -np.asarray(gradient, dtype=np.float64) * (HARTREE / BOHR)
        facts: dict[str, Any] = {"converged_by": way}
        if frame.spin != 1:
            facts["spin_square"] = float(field.spin_square()[0])
        return Label(float(field.e_tot) * HARTREE, forces, None, facts)

    def _solved(self, field: Any) -> tuple[str, Any]:
        """How ``field`` converged, and the field; raises :class:`UnconvergedError`."""
        cycles = PATIENCE * self.config.max_cycle
        field.kernel()
        if _has_settled(field):
            return "DIIS", field
        field.level_shift, field.damp, field.max_cycle = LEVEL_SHIFT, DAMPING, cycles
        field.kernel(dm0=field.make_rdm1())
        if _has_settled(field):
            return "level shift and damping", field
        field.level_shift, field.damp = 0.0, 0.0
        newton = field.newton()
        newton.conv_tol, newton.max_cycle = self.config.conv_tol, cycles
        newton.kernel(field.mo_coeff, field.mo_occ)
        if _has_settled(newton):
            return "Newton", newton
        raise UnconvergedError("the SCF converges neither by DIIS nor with a level shift nor by Newton's method")

    def _has(self, number: int) -> bool:
        """Whether the basis has an element. Raises :class:`LabelError` if there is no such basis at all."""
        from pyscf.gto import basis

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a package could be installed which downloads more
            try:
                return bool(basis.load(self.config.basis, symbols([number])))
            except RuntimeError as error:
                if "Unknown basis" in str(error):
                    raise LabelError(f"PySCF has no basis {self.config.basis!r}") from None
                return False
            except Exception:  # its parsers raise whatever their parsing meets
                return False

    def _field(self, frame: Frame) -> Any:
        """The self-consistent field of a frame, not yet solved."""
        from pyscf import dft, gto

        config, unpaired = self.config, int(frame.spin or 1) - 1
        molecule = gto.M(
            atom=[
                (int(number), tuple(place)) for number, place in zip(frame.numbers, frame.positions / BOHR, strict=True)
            ],
            unit="Bohr",
            basis=config.basis,
            ecp=_core_potentials(config.basis, frame),
            charge=int(frame.charge or 0),
            spin=unpaired,
            verbose=0,
            max_memory=self.memory_mib,
        )
        field = (dft.UKS if unpaired else dft.RKS)(molecule, xc=config.functional)
        if config.density_fitting:
            field = field.density_fit()
        field.disp = config.dispersion
        field.grids.level = config.grid_level
        field.conv_tol, field.max_cycle = config.conv_tol, config.max_cycle
        return field.to_gpu() if self.on_gpu else field


def _has_settled(field: Any) -> bool:
    """Whether ``field`` converged, to orbitals whose energies are those of its own density.

    PySCF diagonalizes once more at the end. Where levels cross there, orbitals are filled that the density was not made
    of, and forces are no gradient: by 1 eV/Å in singlet O2.
    """
    if not field.converged:
        return False
    fock = field.get_fock(dm=field.make_rdm1())
    energies = (field.mo_coeff * (fock @ field.mo_coeff)).sum(axis=-2)
    return bool(abs(energies - field.mo_energy).max() < ORBITAL_AGREEMENT)


def _dispersion_of(functional: str) -> Literal["correction", "nonlocal"] | None:
    """What dispersion the name of a functional implies: ``pbe-d4`` a correction, ``wb97m-v`` nonlocal correlation.

    Raises :class:`LabelError` for a functional that PySCF does not know.
    """
    from pyscf.dft import libxc

    try:
        libxc.parse_xc(functional)
        if "-d3" in functional.lower() or "-d4" in functional.lower():
            return "correction"
        return "nonlocal" if libxc.is_nlc(functional) else None
    except Exception as error:  # KeyError of one kind or another
        raise LabelError(f"PySCF has no functional {functional!r}: {error}") from None


def _core_potentials(basis: str, frame: Frame) -> dict[str, str]:
    """Element → ``basis``, of those whose core the basis replaces by a potential, as def2 sets do from Rb on."""
    from pyscf.gto.basis import load_ecp

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for symbol in map(symbols, np.unique(frame.numbers)[:, None]):
            with suppress(Exception):  # raised where there are no potentials by this name
                if load_ecp(basis, symbol):
                    found[symbol] = basis
    return found


def _gpu_version() -> str:
    import gpu4pyscf

    return str(gpu4pyscf.__version__)
