"""Elements of a large set begin alike where they are alike; those of a small set begin as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers

from sdas.train.element_properties import NUMBER_OF_PROPERTIES, embedding_of, properties
from sdas.train.objective import build_model


@pytest.mark.parametrize(
    ("symbol", "period", "shells"),
    [
        ("H", 1, (1, 0, 0, 0)),
        ("O", 2, (2, 4, 0, 0)),
        ("Fe", 4, (2, 0, 6, 0)),
        ("Zn", 4, (2, 0, 10, 0)),
        ("Ga", 4, (2, 1, 0, 0)),
        ("Nd", 6, (2, 0, 0, 4)),
        ("Hf", 6, (2, 0, 2, 0)),
        ("Pb", 6, (2, 2, 0, 0)),
        ("U", 7, (2, 0, 0, 4)),
        ("Og", 7, (2, 6, 0, 0)),
    ],
)
def test_open_shells_are_those_of_the_periodic_table(symbol, period, shells):
    """By Madelung's rule, of which Nd 4f4 6s2 is an example, and U, 5f3 6d1 7s2 in truth, an exception."""
    found = properties(atomic_numbers[symbol])
    assert len(found) == NUMBER_OF_PROPERTIES
    assert found[0] == period
    assert found[2:6] == pytest.approx([held / full for held, full in zip(shells, (2, 6, 10, 14), strict=True)])
    assert found[6] == sum(shells[:3])


def test_elements_of_a_group_begin_nearer_than_elements_of_a_period():
    torch.manual_seed(0)
    rows = embedding_of(range(1, 90), 64)
    assert rows.var().item() == pytest.approx(1.0, abs=0.2)

    def apart(a, b):
        return (rows[atomic_numbers[a] - 1] - rows[atomic_numbers[b] - 1]).norm().item()

    assert max(apart("Na", "K"), apart("Cl", "Br"), apart("Mo", "W")) < min(apart("Na", "Cl"), apart("K", "Br"))


def test_only_sets_of_many_elements_begin_so(make_config, molecules):
    """Eight elements do, of which two are alike in all that is known of them; two elements do not."""
    config = make_config()
    torch.manual_seed(0)
    drawn = build_model(config, molecules(4), np.arange(4))[0].embedding.weight
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.nn.Embedding(2, 4, dtype=torch.float32).weight.double())
    config.model.species = [1, 6, 7, 8, 9, 15, 16, 17]
    config.train.energy_reference = dict.fromkeys(("H", "C", "N", "O", "F", "P", "S", "Cl"), -10.0)
    weight = build_model(config, molecules(4), np.arange(4))[0].embedding.weight
    assert torch.linalg.matrix_rank(weight) == 4
    assert (weight[6] - weight[7]).norm() < (weight[0] - weight[7]).norm()
