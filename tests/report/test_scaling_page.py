"""The page about an adaptive run says what its ledger says: curve, law, growths, candidates, decisions."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from sdas.cli import app
from sdas.report.scaling import SCALING_PAGE, write_scaling_page
from sdas.scaling.history import read_history

SMALL = {"channels": 8, "heads": 8, "layers": 1, "lmax": 1, "frames": 500}
WIDE = {**SMALL, "channels": 16}
DEEP = {**SMALL, "layers": 2}


def validated(spent, flops, error, folder=".", parameters=100):
    return {
        "kind": "validated", "step": 1, "flops": flops, "error": error, "folder": folder, "spent": spent,
        "parameters": parameters,
    }  # fmt: skip


def decided(spent, action, axes=()):
    return {
        "kind": "decided", "spent": spent, "action": action, "reason": f"since {action} <is> told", "axes": list(axes)
    }  # fmt: skip


def lines():
    """A run of 20 steps of 10 FLOPs with E = 0.02 + 0.1/√C; a trial of width is lost, one of depth taken."""
    rules = {"epsilon": 0.25, "epsilon_unit": "relative", "patience": 1.44}
    start = {"settings": {"flops": 1000.0}, "rules": rules, "sizes": SMALL}
    yield {"kind": "start", **start, "pool_frames": 500, "seed": 0}
    for flops in range(10, 210, 10):
        yield validated(flops, flops, 0.02 + 0.1 / flops**0.5)
    yield decided(200, "try", ["width", "depth"])
    for axis, sizes, lost, error in (("width", WIDE, 0, 0.031), ("depth", DEEP, 50, 0.024)):
        yield {"kind": "trying", "axis": axis, "sizes": sizes}
        yield {"kind": "born", "error": 0.0271, "sizes": sizes}
        yield validated(225 + lost, 225, 0.027, f"trials/001-{axis}", 200)
        yield validated(250 + lost, 250, error, f"trials/001-{axis}", 200)
        tried = {"axis": axis, "sizes": sizes, "before": 0.027, "after": error, "flops": 50.0, "noise": 1e-4}
        yield {"kind": "tried", **tried}
    yield decided(300, "scale up", ["depth"])
    yield {"kind": "taken", "folder": "trials/001-depth"}
    grown = {"axes": ["depth"], "sizes": DEEP, "flops": 200, "spent": 250, "born": 0.0271}
    yield {"kind": "grown", **grown, "folder": "trials/001-depth"}
    for flops in range(260, 460, 10):
        yield validated(flops + 50, flops, 0.015 + 0.05 / (flops - 200) ** 0.5, parameters=200)
    yield decided(500, "stop")
    yield {"kind": "cooling", "flops": 450, "end": 500.0}
    yield validated(550, 500, 0.014, parameters=200)
    yield {"kind": "ended", "reason": "The budget is spent.", "spent": 550, "lost": 50}


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    return tmp_path


def test_a_history_tells_the_run_from_its_trials(run_dir):
    history = read_history(run_dir)
    assert [point.spent for point in history.lost[0]] == [225, 250]
    assert [(point.spent, point.flops) for point in history.points[20:23]] == [(275, 225), (300, 250), (310, 260)]
    assert [point.spent for point in history.points] == sorted(point.spent for point in history.points)
    assert len(history.points) == 20 + 2 + 20
    (growth,) = history.growths
    assert (growth.axes, growth.spent, growth.born) == (["depth"], 250, 0.0271)
    assert growth.before == pytest.approx(0.02 + 0.1 / 200**0.5)
    assert [(len(trials), grown) for trials, grown in history.rounds] == [(2, ["depth"])]
    assert [point.error for point in history.cooled] == [0.014]
    law = history.law()
    assert (law.last, law.points + law.left_out) == (450, 21)  # from √1.44 times the 200 at growth, 240, on


def test_the_page_needs_nothing_else_and_says_what_happened(run_dir):
    text = write_scaling_page(run_dir).read_text()
    assert not re.search(r"""(?:src|href)=["']?https?:""", text)
    for told in ("The budget is spent.", "Round 1: depth grew", "since stop &lt;is&gt; told", "27.07", "27.1"):
        assert told in text, told
    assert text.count("<svg") == 2
    assert ">50<" in text  # lost FLOPs


def test_a_run_that_goes_on_has_a_page_by_sdas_report(run_dir):
    whole = (run_dir / "ledger.jsonl").read_text().splitlines(keepends=True)
    for count in (0, 3, 30):
        (run_dir / "ledger.jsonl").write_text("".join(whole[:count]))
        (run_dir / SCALING_PAGE).unlink(missing_ok=True)
        result = CliRunner().invoke(app, ["report", str(run_dir)])
        assert result.exit_code == 0, result.output
        assert "The run has not ended." in (run_dir / SCALING_PAGE).read_text()
