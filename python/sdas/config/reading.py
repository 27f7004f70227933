"""How raw files are read: the one definition of the options that every place shares which reads files.

In Python they are arguments of :func:`sdas.data.read_frames`; in a configuration keys of the section ``data``; on the
command line flags of ``sdas data``, ``train`` and ``evaluate``, which :mod:`sdas.config.reading_flags` makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from sdas.config.section import Section, message_of
from sdas.errors import ConfigError

FLAGS_OF_SWITCHES = {
    "check_units": ("--check-units", "--skip-unit-checks"),
    "allow_zeroed_forces": ("--allow-zeroed-forces", "--refuse-zeroed-forces"),
}
"""Flags that turn an option on and off; any other option has one flag, its name with hyphens."""


class ReadingOptions(Section):
    """What a reader is told; null means that it finds out or refuses."""

    format: str | None = Field(
        default=None,
        description="Format of raw files, if it is not to be found out: ase, ase:NAME for a format of ASE, ase-db, "
        "rmd17, sgdml, deepmd, oc20-lmdb, hdf5, mtp, fitsnap, mlearn, pacemaker, cp2k, qm9 or cache.",
    )
    units: str | None = Field(
        default=None,
        description="Units in raw files as ENERGY[,LENGTH[,FORCE[,STRESS]]], for example kcal/mol, Ha,bohr or "
        "eV,Å,eV/Å,GPa; a minus before the last is for pressures, which have the other sign: -kbar.",
    )
    energy_key: str | None = Field(default=None, description="Name of the energy in raw files.")
    forces_key: str | None = Field(default=None, description="Name of the forces in raw files.")
    stress_key: str | None = Field(default=None, description="Name of the stress or virial in raw files.")
    weight_key: str | None = Field(
        default=None, description="Name of the weight of a frame in the loss, in raw files; null: config_weight."
    )
    type_map: list[str] | None = Field(
        default=None, description="Elements of the types of DeePMD, LAMMPS and MLIP, as O,H."
    )
    cell: list[float] | Literal["none"] | None = Field(
        default=None,
        description="Cell in Å of files of CP2K without a .cell file: three lengths or nine numbers, as 9.8,9.8,9.8; "
        "none: open space.",
    )
    skip: Literal["nothing", "incomplete"] = Field(
        default="nothing",
        description="incomplete: frames without a required label, and the unfinished last frame of a text file, are "
        "left out, counted and listed; nothing: they are errors.",
    )
    check_units: bool = Field(default=True, description="Refuse raw files whose numbers look like other units.")
    allow_zeroed_forces: bool = Field(default=False, description="Accept forces set to zero on fixed atoms.")

    @field_validator("type_map", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [word.strip() for word in value.split(",") if word.strip()]
        return list(value) if isinstance(value, tuple) else value

    @field_validator("cell", mode="before")
    @classmethod
    def _lengths(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "none":
            return [word.strip() for word in value.split(",")]
        return list(value) if isinstance(value, tuple) else value

    @field_validator("cell")
    @classmethod
    def _three_or_nine(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) not in (3, 9):
            raise ValueError(f"a cell is three lengths or nine numbers in Å, not {len(value)}")
        return value

    def reading(self) -> ReadingOptions:
        """These options alone, where they are part of a larger section."""
        return ReadingOptions(**{name: getattr(self, name) for name in ReadingOptions.model_fields})

    def changed(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name."""
        names = ReadingOptions.model_fields
        return {name: getattr(self, name) for name in names if getattr(self, name) != names[name].default}

    def updated(self, given: Mapping[str, Any]) -> ReadingOptions:
        """These options with those in ``given`` in their place; raises :class:`ConfigError` naming the one at fault."""
        return make_reading_options({**self.reading().model_dump(), **given})


def make_reading_options(given: Mapping[str, Any]) -> ReadingOptions:
    """Check ``given``, option → value; raises :class:`ConfigError` naming the option at fault, and its flag."""
    try:
        return ReadingOptions.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{name} is no option of reading; there are: {', '.join(ReadingOptions.model_fields)}"
            ) from None
        raise ConfigError(f"{name} ({flag_of(name)}): {message_of(first)}, got {first.get('input')!r}") from None


def flag_of(name: str, value: Any = True) -> str:
    """The flag of option ``name``; of a switch, the one that sets it to ``value``."""
    if name in FLAGS_OF_SWITCHES:
        return FLAGS_OF_SWITCHES[name][0 if value else 1]
    return "--" + name.replace("_", "-")


def advice(name: str, value: str | bool) -> str:
    """How to set option ``name`` to ``value`` from Python, from every command that reads files, and in a configuration.

    For messages: whoever reads one can follow it where it was printed.
    """
    if name not in ReadingOptions.model_fields:
        raise ValueError(f"{name} is no option of reading")
    if isinstance(value, bool):
        return f"{name}={value} ({flag_of(name, value)}; data.{name}: {str(value).lower()} in a configuration)"
    return f"{name}={value!r} ({flag_of(name)} {value}; data.{name}: {value} in a configuration)"
