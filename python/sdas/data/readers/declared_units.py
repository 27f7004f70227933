"""What a file says of its units, set against what was asked for: used, or refused; never passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sdas.config.reading import advice
from sdas.data.errors import DataError
from sdas.data.label_names import unit_in_name, unit_of
from sdas.data.units import Units, energy_factor, force_factor, length_factor, same_factor, stress_factor

DEFAULT_UNITS = Units.parse("eV")
PROPERTY_UNITS = "_property_unit_dict"
"""Where SchNetPack's data bases name the unit of each property; that of lengths is under ``_distance_unit``."""
QUANTITIES = ("energy", "length", "force", "stress", "virial")

_FACTORS: dict[str, Callable[[str], float]] = {
    "energy": energy_factor,
    "length": length_factor,
    "force": force_factor,
    "stress": stress_factor,
    "virial": energy_factor,
}
_SETS = {
    "metal": "eV,Å,eV/Å,-bar",
    "real": "kcal/mol,Å,kcal/mol/Å,-atm",
    "electron": "Hartree,bohr,Hartree/bohr,-Pa",
    **dict.fromkeys(("atomic", "au", "a.u."), "Hartree,bohr"),
}
"""Sets of units that are known by one word, those of LAMMPS among them."""
_DIMENSIONLESS = ("", "1", "1.0", "none")


class Word(NamedTuple):
    """A unit as the file names it. whole: the word names a set of units, not that of one quantity."""

    key: str
    text: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """Units named by a file: quantity → words, and name of a label → word, which holds for that label alone."""

    by_quantity: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)
    by_name: Mapping[str, Word] = field(default_factory=dict)

    @classmethod
    def found_in(cls, *tables: Mapping[str, Any]) -> Declaration:
        """The units that tables of names and values declare, such as ``Atoms.info`` or the metadata of a data base."""
        by_quantity: dict[str, tuple[Word, ...]] = {}
        by_name: dict[str, Word] = {}
        for key, value in (item for table in tables for item in table.items()):
            if key == PROPERTY_UNITS and isinstance(value, Mapping):
                by_name.update((name, Word(f"{key}: {name}", str(unit))) for name, unit in value.items())
            for quantity, word in _words(key, value):
                if word.text.strip().lower() not in _DIMENSIONLESS:
                    by_quantity[quantity] = (*by_quantity.get(quantity, ()), word)
        return cls(by_quantity, by_name)

    @classmethod
    def of_format(cls, name: str) -> Declaration:
        """Of a format whose units are fixed, and which ASE turns into its own."""
        key = f"ASE's format {name}, which ASE turns into its own units"
        return cls({q: (Word(key, text),) for q, text in zip(QUANTITIES, ("eV", "Å", "eV/Å", "eV/Å^3"), strict=False)})


def _words(key: Any, value: Any) -> Iterator[tuple[str, Word]]:
    """Quantity and word for every unit that an entry of a table names."""
    quantity = unit_of(key) if isinstance(key, str) else None
    if isinstance(value, Mapping) and (quantity == "all" or key == PROPERTY_UNITS):
        for name, unit in value.items():
            meant = unit_of(f"{name}_unit")
            if meant is not None and meant != "all":
                yield meant, Word(f"{key}: {name}", str(unit))
    elif isinstance(value, str) and quantity == "all":
        for each in QUANTITIES:
            yield each, Word(key, value, whole=True)
    elif isinstance(value, str) and quantity is not None:
        yield quantity, Word(key, value)


@dataclass(slots=True)
class FileUnits:
    """The unit of each value of a file: what it declares, else what was asked for, else the format's ``default``.

    remarks: takes up what was concluded from less than a clear word, once each.
    """

    declared: Declaration
    asked: Units | None
    where: str
    default: Units = DEFAULT_UNITS
    remarks: Counter[str] = field(default_factory=Counter)

    def factor(self, quantity: str, name: str = "") -> float:
        """To eV, Å, eV/Å or eV/Å³ from the unit of ``quantity``, of the label called ``name`` if that has its own.

        Raises :class:`DataError` where a unit is not understood, where two words or a word and ``asked`` contradict
        each other, and where the units of other quantities are named but that of this one cannot be told.
        """
        words = self._words(quantity, name)
        factors = [factor for factor in (self._factor(quantity, word) for word in words) if factor is not None]
        if any(not same_factor(factor, factors[0]) for factor in factors):
            named = " and ".join(f"{word.key} = {word.text}" for word in words)
            raise DataError(f"{self.where}: {named} contradict each other")
        if self.asked is None:
            return factors[0] if factors else self._undeclared(quantity)
        asked = _of(self.asked, quantity)
        if factors and not same_factor(factors[0], asked):
            raise DataError(
                f"{self.where}: the file declares its units as {self.named()}, but units={self.asked.name!r} was "
                f"asked for, which contradicts {words[0].key} = {words[0].text}"
            )
        return factors[0] if factors else asked

    def complete(self, **names: str) -> Units:
        """Units of lengths and of the labels that are there, given as quantity=name, ready for a whole file."""
        units = Units(length=self.factor("length"))
        for quantity, name in names.items():
            units = replace(units, **{quantity: self.factor(quantity, name)})  # type: ignore[arg-type]
        return units

    def _words(self, quantity: str, name: str) -> tuple[Word, ...]:
        own = self.declared.by_name.get(name)
        if own is not None and own.text.strip().lower() not in _DIMENSIONLESS:
            return (own,)
        in_name = unit_in_name(name)
        words = (Word(f"the name {name}", in_name[2]),) if in_name else ()
        return words + self.declared.by_quantity.get(quantity, ())

    def named(self) -> str:
        """All units that the file declares, in words; empty if it declares none. Those not understood are left out."""
        declared = ((quantity, word) for quantity in QUANTITIES for word in self.declared.by_quantity.get(quantity, ()))
        words = [word.text for quantity, word in declared if self.asked is None or self._factor(quantity, word)]
        return ", ".join(dict.fromkeys([*words, *(word.text for word in self.declared.by_name.values())]))

    def _factor(self, quantity: str, word: Word) -> float | None:
        """The factor of ``word``; None if it is not understood but ``asked`` says what to take."""
        try:
            if word.whole:
                return _of(Units.parse(_SETS.get(word.text.strip().lower(), word.text)), quantity)
            return _FACTORS[quantity](word.text)
        except DataError as error:
            if self.asked is not None:
                self.remarks[f"{word.key} = {word.text} is not understood; {self.asked.name} is taken"] = 1
                return None
            raise DataError(
                f"{self.where}: {word.key}: {error}; say what it is by {advice('units', 'ENERGY,LENGTH')}"
            ) from None

    def _undeclared(self, quantity: str) -> float:
        """By the unit of energy, or by convention unless other units of the file say that it does not hold."""
        if quantity == "length":
            self._note_default(quantity)
            return self.default.length
        if quantity != "energy" and (quantity == "virial" or "energy" in self.declared.by_quantity):
            energy, length = self.factor("energy"), self.factor("length")
            power = {"force": 1, "stress": 3}.get(quantity, 0)
            if power and (energy != 1.0 or length != 1.0):
                self.remarks[
                    f"the unit of the {quantity} is not named; it follows from those of energy and length. If it is "
                    f"another, give all by {advice('units', 'ENERGY,LENGTH,FORCE,STRESS')}"
                ] = 1
            return energy / length**power
        for other, word in ((q, word) for q, words in self.declared.by_quantity.items() for word in words):
            pressure = other == "stress" and "/" not in word.text
            factor = self._factor(other, word)
            if factor is not None and not pressure and not same_factor(factor, _of(self.default, other)):
                raise DataError(
                    f"{self.where}: the file says {word.key} = {word.text}, but not its unit of {quantity}; give all "
                    f"by {advice('units', 'ENERGY,LENGTH,FORCE,STRESS')}"
                )
        self._note_default(quantity)
        return _of(self.default, quantity)

    def _note_default(self, quantity: str) -> None:
        """Say what is taken, where that is not what files of most formats are taken for."""
        if not same_factor(_of(self.default, quantity), _of(DEFAULT_UNITS, quantity)):
            self.remarks[
                f"units that the file does not name are those of its format, {self.default.name}; say others by "
                f"{advice('units', 'ENERGY,LENGTH')}"
            ] = 1


def _of(units: Units, quantity: str) -> float:
    return float(getattr(units, "energy" if quantity == "virial" else quantity))
