"""What benchmarks say of a run: the order in which rivals take their turns."""

import pytest

record = pytest.importorskip("record", reason="THE BENCHMARKS ARE ABSENT: the tests stand alone")


def orders(names, rounds):
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in names}
    times = record.in_turn(functions, rounds=rounds - 1, warmup=1)
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys(names, rounds - 1)
    return ["".join(calls[start : start + len(names)]) for start in range(0, len(calls), len(names))]


def test_every_round_has_an_order_of_its_own():
    assert orders("ab", 4) == ["ab", "ba", "ab", "ba"]
    assert orders("abc", 4) == ["abc", "acb", "bac", "bca"]
    assert len(set(orders("abcd", 24))) == 24
    assert len({order[0] for order in orders("abcd", 5)}) == 4
