"""What a name in a file means: which label it is, and how good a source of that label; or whose unit it gives.

Case, and ``-`` against ``_``, do not matter. Names are tried in tiers: a tier is looked at only where the ones before
it hold nothing, so that a model's predictions are never preferred to the reference, nor a doubtful name to a clear one.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sdas.data.unit_words import worth

USUAL, UNUSUAL, PREDICTED = range(3)
"""Tiers: names that are the label by custom; other names for it; names of predictions, such as MACE's own."""

_WORDS = {
    "energy": ("energy", "total_energy", "totenergy", "tot_energy"),
    "forces": ("force", "forces"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}
_UNUSUAL_WORDS = {
    "energy": ("potential_energy", "pot_energy", "epot", "etot", "toten", "energy_u0", "u0"),
    "forces": ("atomic_force", "atomic_forces"),
    "stress": ("stress_tensor",),
    "virial": ("virial_tensor", "virials_tensor"),
}
_POWERS = {"energy": 0, "forces": -1, "stress": -3, "virial": 0}
"""Of length, in the unit of a label; all have an energy to the power 1."""
_AFFIXES = {
    **dict.fromkeys(("ref_", "dft_", "_dft"), USUAL),
    **dict.fromkeys(("reference_", "qm_", "target_", "_ref", "_reference", "_qm", "_target"), UNUSUAL),
    **dict.fromkeys(("mace_", "pred_", "predicted_", "ml_", "mlip_", "_mace", "_pred", "_predicted"), PREDICTED),
}
_THERMOCHEMISTRY = ("energy_u0", "u0", "energy_u", "u298", "enthalpy", "enthalpy_h", "h298", "g298", "zpve")
_LENGTHS = ("length", "lengths", "distance", "distances", "position", "positions", "pos", "coordinates", "r", "cell")


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """``name`` in lower case, with every sign that is no letter or digit as one ``_``, none at its ends."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@lru_cache(maxsize=4096)
def label_of(name: str) -> tuple[str, int] | None:
    """(``energy``, ``forces``, ``stress`` or ``virial``; tier) of a name, or None.

    ``free_energy`` is none of them: what it means depends on where it stands (:func:`is_free_energy`).
    """
    bare, tier = plain_name(name), USUAL
    for affix, level in _AFFIXES.items():
        if bare.startswith(affix) if affix.endswith("_") else bare.endswith(affix):
            bare, tier = bare.removeprefix(affix).removesuffix(affix), max(tier, level)
    for label, words in _WORDS.items():
        if bare in words:
            return label, tier
        if bare in _UNUSUAL_WORDS[label]:
            return label, max(tier, UNUSUAL)
    with_unit = unit_in_name(name)
    return None if with_unit is None else (with_unit[0], max(with_unit[1], UNUSUAL))


@lru_cache(maxsize=4096)
def unit_in_name(name: str) -> tuple[str, int, str] | None:
    """Label, tier and unit of a name that ends in one, as ``energy_kcal_mol`` or ``Stress [GPa]``; None of another."""
    words = plain_name(name.replace("Å", "A").replace("å", "a")).split("_")
    for cut in range(1, len(words)):
        unit = "/".join(word for word in words[cut:] if word != "per")
        meant, found = worth(unit), label_of("_".join(words[:cut]))
        if meant and found and (meant.energy, meant.length) == (1, _POWERS[found[0]]):
            return *found, unit
    return None


def is_free_energy(name: str) -> bool:
    """Whether ``name`` is ``free_energy``: of ASE the energy whose gradient the forces are, of QM9 Gibbs's."""
    return plain_name(name) == "free_energy"


def is_thermochemical(name: str) -> bool:
    """Whether ``name`` is one of QM9's, beside which ``free_energy`` is Gibbs's, at a temperature."""
    return plain_name(name) in _THERMOCHEMISTRY


@lru_cache(maxsize=4096)
def unit_of(key: str) -> str | None:
    """The quantity whose unit ``key`` names, as ``energy-unit`` or ``units_of_length`` do; ``all`` for ``units`` alone.

    ``energy``, ``length``, ``force``, ``stress``, ``virial``, ``all``, or None.
    """
    words = re.sub(r"(?<=[a-z])(?=units?$)", "_", plain_name(key)).split("_")
    if words[-1] in ("unit", "units"):
        quantity = "_".join(words[:-1])
    elif words[0] == "units" and words[1:] != ["cell"]:
        quantity = "_".join(words[1:]).removeprefix("of_")
    else:
        return None
    if quantity in _LENGTHS:
        return "length"
    short = {"": "all", "e": "energy", "energies": "energy", "f": "force"}.get(quantity)
    found = label_of(quantity)
    return short or (found and {"forces": "force"}.get(found[0], found[0]))
