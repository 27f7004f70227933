"""What benchmarks say of a run: the order in which rivals take their turns."""

import pytest

record = pytest.importorskip("record", reason="THE BENCHMARKS ARE ABSENT: the tests stand alone")


def test_every_round_begins_with_another_rival():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = record.in_turn(functions, rounds=3, warmup=1)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert rounds == ["bca", "cab", "abc", "bca"]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}
