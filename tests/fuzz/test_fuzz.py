"""Ten thousand calls with arguments of every kind: the right result, or an error that names the argument."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 10_000


@pytest.mark.slow
def test_what_a_caller_may_pass_gives_the_right_result_or_an_error_of_ours(tmp_path):
    """In a process of its own, so that one that dies is a failure with its last case."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("run.py")), str(CASES), "0"]
    environment = os.environ | {"FUZZ_CASE": str(tmp_path / "case"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    case = (tmp_path / "case").read_text().strip() if (tmp_path / "case").is_file() else "before the first case"
    assert result.returncode == 0, f"exit status {result.returncode} at {case}\n{result.stderr[-4000:]}"


def test_drawn_models_are_right_at_listed_pairs(monkeypatch):
    """A few of the drawings of `frozen.py`, in every run of the tests; the ten thousand calls hold hundreds."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import frozen
    import targets

    for seed in range(40):
        frozen.frozen(targets.Draw(lambda options, random=random.Random(seed): random.choice(list(options)))).function()
