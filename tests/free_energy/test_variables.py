"""Variables against ASE, and their gradients against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from sdas.errors import SdasError
from sdas.free_energy import Axis, parse_variable
from sdas.free_energy.bias import WangLandauBias
from sdas.md.systems import Systems

WORDS = ["distance:1,3", "difference:1,3,0", "angle:0,2,4", "dihedral:0,1,2,3", "coordination:2,0,1,4@1.7"]


@pytest.fixture
def structures() -> list[Atoms]:
    generator = np.random.default_rng(0)
    cell = [[3.1, 0, 0], [0.4, 3.3, 0], [0, 0.5, 3.6]]
    return [Atoms("CCOHN", generator.uniform(0, 3, (5, 3)), cell=cell, pbc=pbc) for pbc in (False, False, True)]


def of_ase(word: str, atoms: Atoms) -> float:
    kind, numbers = word.partition("@")[0].split(":")
    i, *others = (int(number) for number in numbers.split(","))
    periodic = bool(atoms.pbc.all())
    if kind == "distance":
        return atoms.get_distance(i, *others, mic=periodic)
    if kind == "difference":
        return atoms.get_distance(i, others[0], mic=periodic) - atoms.get_distance(*others, mic=periodic)
    if kind == "angle":
        return atoms.get_angle(i, *others, mic=periodic)
    if kind == "dihedral":
        return (atoms.get_dihedral(i, *others, mic=periodic) + 180) % 360 - 180
    return float(sum(1 / (1 + (d / 1.7) ** 6) for d in atoms.get_distances(i, others, mic=periodic)))


@pytest.mark.parametrize("word", WORDS)
def test_values_are_those_of_ase(structures, word):
    for pbc in (False, True):
        chosen = [atoms for atoms in structures if bool(atoms.pbc.all()) == pbc]
        found = parse_variable(word)(Systems.of(chosen))
        np.testing.assert_allclose(found.numpy(), [of_ase(word, atoms) for atoms in chosen], atol=1e-9)


@pytest.mark.parametrize("word", WORDS)
def test_gradients_are_those_of_finite_differences(structures, word):
    systems, variable = Systems.of(structures), parse_variable(word)
    positions = systems.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda moved: variable(replace(systems, positions=moved)), positions)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("torsion:0,1,2,3", "a variable is written distance:I,J, difference:I,J,K"),
        ("angle:0,1", "wants 3 different atoms"),
        ("dihedral:0,1,2,2", "wants 4 different atoms"),
        ("coordination:0,1", "a radius in Å stands after the atoms"),
        ("distance:0,1@2.0", "a radius in Å stands after the atoms"),
    ],
)
def test_what_cannot_be_read_says_how(word, message):
    with pytest.raises(SdasError, match=message):
        parse_variable(word)


def test_an_axis_and_a_structure_must_suit():
    with pytest.raises(SdasError, match="there is no atom 7; the structure has 5"):
        parse_variable("distance:0,7").check(5)
    with pytest.raises(SdasError, match="more than its period of 360"):
        Axis(parse_variable("dihedral:0,1,2,3"), -200, 200, 36)
    assert Axis(parse_variable("dihedral:0,1,2,3"), -180, 180, 36).periodic
    assert not Axis(parse_variable("dihedral:0,1,2,3"), -90, 90, 36).periodic


def test_a_range_of_a_dihedral_may_go_beyond_its_seam():
    """Values on both sides of ±180° are neighbors: in one range, and at one height of the wall of another."""
    chain = Atoms("H4", [[1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]])
    turned = []
    for angle in (170, -170, 179.999, -179.999):
        chain.set_dihedral(0, 1, 2, 3, angle)
        turned.append(chain.copy())
    systems, variable = Systems.of(turned), parse_variable("dihedral:0,1,2,3")
    across = Axis(variable, 90, 270, 36)
    assert across.bin_of(across.value(systems)).tolist() == [16, 20, 17, 18]
    bias = WangLandauBias([Axis(variable, 60, 120, 12)], 300.0, 4, 1, 0.1, 1)
    near = bias.energy(bias.values(systems), torch.arange(4))[2:]
    torch.testing.assert_close(near[0], near[1], rtol=1e-3, atol=0)
