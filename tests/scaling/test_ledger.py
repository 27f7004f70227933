"""The ledger replays what was done, drops a line that was cut short, and refuses one that is damaged."""

from __future__ import annotations

import pytest

from sdas.errors import ScalingError
from sdas.scaling.ledger import open_ledger, read_ledger


def test_what_is_noted_is_not_done_again(tmp_path):
    first = open_ledger(tmp_path, writes=True)
    assert first.once("start", lambda: {"x": (1, 2.5e300)}) == {"kind": "start", "x": [1, 2.5e300]}
    again = open_ledger(tmp_path, writes=True)
    assert again.replaying
    assert again.once("start", lambda: pytest.fail("done again")) == {"kind": "start", "x": [1, 2.5e300]}
    assert not again.replaying
    again.once("end", dict)
    assert [line["kind"] for line in read_ledger(tmp_path)] == ["start", "end"]


def test_an_act_that_fails_is_not_noted(tmp_path):
    ledger = open_ledger(tmp_path, writes=True)
    with pytest.raises(ZeroDivisionError):
        ledger.once("start", lambda: {"x": 1 / 0})
    assert not ledger.path.exists()


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_that_was_cut_short_is_dropped(tmp_path, cut):
    ledger = open_ledger(tmp_path, writes=True)
    ledger.once("start", lambda: {"x": 1})
    length = ledger.path.stat().st_size
    ledger.once("more", lambda: {"x": 2})
    with open(ledger.path, "r+b") as file:
        file.truncate(ledger.path.stat().st_size - cut)
    again = open_ledger(tmp_path, writes=True)
    assert ledger.path.stat().st_size == length
    again.once("start", lambda: pytest.fail("done again"))
    again.once("more", lambda: {"x": 2})
    assert [line["x"] for line in read_ledger(tmp_path)] == [1, 2]


def test_only_the_first_process_writes(tmp_path):
    ledger = open_ledger(tmp_path, writes=False)
    assert ledger.once("start", lambda: {"x": 1})["x"] == 1
    assert not ledger.path.exists()


def test_a_damaged_ledger_is_refused(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"kind": "start"}\n{"kind": \n{"kind": "end"}\n')
    with pytest.raises(ScalingError, match="line 2: cannot be read"):
        open_ledger(tmp_path, writes=True)
    (tmp_path / "ledger.jsonl").write_text('{"kind": "start"}\n')
    with pytest.raises(ScalingError, match="line 1 notes 'start' where 'decided' would follow"):
        open_ledger(tmp_path, writes=True).once("decided", dict)
    with pytest.raises(ScalingError, match="'sdas scale' writes it"):
        read_ledger(tmp_path / "elsewhere")
