"""Symbols and atomic numbers are those of the periodic table."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import chemical_symbols

from sdas_kernels.elements import SYMBOLS, atomic_number


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols[1:119]
    assert [atomic_number("f", "z", symbol) for symbol in SYMBOLS] == list(range(1, 119))


@pytest.mark.parametrize("z", [8, np.int64(8), np.uint8(8), "O"])
def test_numbers_and_symbols_are_taken(z):
    assert atomic_number("f", "z", z) == 8
    assert type(atomic_number("f", "z", z)) is int


@pytest.mark.parametrize("z", ["oxygen", "o", "8", "", 0, 119])
def test_others_are_refused(z):
    with pytest.raises(ValueError, match=r"f: z must be .*1\.\.118.*, got"):
        atomic_number("f", "z", z)


@pytest.mark.parametrize("z", [8.0, True, None])
def test_what_is_no_whole_number_is_refused(z):
    with pytest.raises(TypeError, match="f: z must be a whole number, got"):
        atomic_number("f", "z", z)
