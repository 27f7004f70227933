"""Oracles, which label frames, and the resources that they get: what a section ``oracle`` or flags may say.

parse_oracle("pyscf:pbe/def2-svp", {"dispersion": "d4"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from sdas.config.section import Section, validated
from sdas.errors import ConfigError

KNOWN = "pyscf:FUNCTIONAL/BASIS, tblite[:METHOD], ase:MODULE:CLASS or model:RUN"


class MoleculeConfig(Section):
    """The electrons of frames that do not state them; one that states another number is refused."""

    charge: int | None = Field(default=None, description="Total charge, e; null: that of the frame, or 0.")
    spin: int | None = Field(
        default=None, ge=1, description="Multiplicity 2S + 1, 2 for a radical; null: that of the frame, or 1."
    )


class PySCFConfig(MoleculeConfig):
    """Density functional theory by PySCF. Everything here decides the numbers, so it is part of a label's address."""

    functional: str = Field(description="Exchange and correlation by PySCF's name: pbe, b3lyp, r2scan, hf.")
    basis: str = Field(description="Basis set by PySCF's name: def2-svp, def2-tzvp, 6-31g*.")
    density_fitting: bool = Field(default=True, description="Fit the Coulomb (and exact exchange) integrals.")
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = Field(
        default=None, description="Correction for dispersion; needs pyscf-dispersion."
    )
    grid_level: int = Field(default=3, ge=0, le=9, description="Quadrature grid of PySCF, 0 (coarse) to 9.")
    conv_tol: float = Field(default=1e-9, gt=0, description="Convergence of the energy, Hartree.")
    max_cycle: int = Field(default=50, ge=1, description="Cycles of the first attempt; safer ones get 3 times more.")


class TBLiteConfig(MoleculeConfig):
    """Extended tight binding by tblite."""

    method: Literal["GFN2-xTB", "GFN1-xTB", "IPEA1-xTB"] = Field(default="GFN2-xTB", description="The method.")
    accuracy: float = Field(
        default=0.1, gt=0, description="Thresholds of the SCF over tblite's own; smaller is tighter."
    )
    electronic_temperature_k: float = Field(default=300.0, ge=0, description="Of the occupation of orbitals, K.")


class ASEConfig(Section):
    """Any calculator of ASE that gives energy and forces."""

    module: str = Field(description="Module that holds the class.")
    calculator: str = Field(description="The class, or a function that returns a calculator.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Its keyword arguments.")


OracleConfig = PySCFConfig | TBLiteConfig | ASEConfig


class ResourcesConfig(Section):
    """What labelling may use."""

    engine: Literal["local", "ray"] = Field(default="local", description="Processes here, or actors of a Ray cluster.")
    workers: int = Field(default=1, ge=1, description="Frames at a time.")
    threads: int = Field(default=1, ge=1, description="CPU threads of each.")
    memory_mib: int = Field(default=4000, ge=100, description="Memory that a calculation may plan with, MiB.")
    timeout_s: float = Field(default=3600.0, gt=0, description="A frame that takes longer is given up, s.")
    retries: int = Field(default=2, ge=0, description="How often a frame is tried again whose worker was killed.")


def parse_oracle(text: str, settings: Mapping[str, Any] | None = None) -> OracleConfig:
    """The oracle that ``text`` names, with further ``settings``; raises :class:`ConfigError`.

    ``pyscf:pbe/def2-svp``, ``tblite`` or ``tblite:GFN1-xTB``, ``ase:ase.calculators.emt:EMT``; ``model:RUN`` is the
    calculator of a trained model, with the arguments of :class:`sdas.md.SDASCalculator`.
    """
    kind, _, rest = text.partition(":")
    given: dict[str, Any] = dict(settings or {})
    section: type[OracleConfig]
    named: dict[str, Any]
    if kind == "pyscf":
        functional, slash, basis = rest.partition("/")
        if not (slash and functional and basis):
            raise ConfigError(f"oracle {text!r}: must read pyscf:FUNCTIONAL/BASIS, as pyscf:pbe/def2-svp")
        section, named = PySCFConfig, {"functional": functional.lower(), "basis": basis.lower()}
    elif kind == "tblite":
        section, named = TBLiteConfig, {"method": rest} if rest else {}
    elif kind == "ase":
        module, colon, calculator = rest.rpartition(":")
        if not (colon and module and calculator):
            raise ConfigError(f"oracle {text!r}: must read ase:MODULE:CLASS, as ase:ase.calculators.emt:EMT")
        section, named = ASEConfig, {"module": module, "calculator": calculator}
    elif kind == "model" and rest:
        section = ASEConfig
        named = {"module": "sdas.md", "calculator": "SDASCalculator", "arguments": {**given, "model": rest}}
        given = {}
    else:
        raise ConfigError(f"oracle {text!r}: must read {KNOWN}")
    if twice := sorted(named.keys() & given.keys()):
        raise ConfigError(f"oracle {text!r}: {twice[0]} is set to {given[twice[0]]!r} too; say it once")
    return validated(section, {**named, **given}, f"oracle {text!r}")


def parse_resources(**given: Any) -> ResourcesConfig:
    """Resources by name; raises :class:`ConfigError` naming the one at fault."""
    return validated(ResourcesConfig, given, "resources")
