"""The GPU benchmarks run through on a CPU, so that nothing in them is executed first on a rare GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "gpu_node.sh"
needs_the_tree = pytest.mark.skipif(not SCRIPT.is_file(), reason="the tests stand alone, without bench/")


@pytest.fixture
def traffic():
    return pytest.importorskip("gpu.traffic", reason="the tests stand alone, without bench/")


def test_bytes_that_must_move(traffic):
    """2 atoms, 3 edges; x `[2, 4]` float32, w `[3]` float64, result `[2, 5]` float32, counted by hand."""
    x, w, out = torch.zeros(2, 4), torch.zeros(3, dtype=torch.float64), torch.zeros(2, 5)
    index = [torch.zeros(n, dtype=torch.int64) for n in (3, 3, 3, 3, 3)]  # receivers, senders, row_ptr, order, ptr
    operands, result, whole_index = 2 * 4 * 4 + 3 * 8, 2 * 5 * 4, 5 * 3 * 8
    found = traffic.ladder([x, w], out, index)
    assert found["forward"] == operands + 2 * 3 * 8 + result
    assert found["backward"] == (operands + whole_index + result) + operands
    assert found["double_backward"] == (2 * operands + whole_index + result) + (result + operands)
    assert traffic.ladder([x], out, [])["forward"] == 32 + 40
    # one edge more than atoms: one more row of x forward; of x and the result backward; of two x and the result twice
    assert traffic.gathered([x], [], out, 3) == {"forward": 16, "backward": 16 + 20, "double_backward": 2 * 16 + 20}
    assert traffic.shares(10**9, 1.0, 2e12) == {"gb": 1.0, "share_of_roof": 0.5}


def run_script(out: Path, python: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SDAS_DEVICE": "cpu", "PYTHON": str(python)}
    command = [shutil.which("bash"), str(SCRIPT), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_the_tree
def test_steps_are_stamped_and_a_failed_one_alone_runs_again(tmp_path):
    """With an interpreter that only notes what it is asked to run."""
    out, python, asked = tmp_path / "out", tmp_path / "python", tmp_path / "asked"
    (out / "site").mkdir(parents=True)
    (out / "build.done").touch()
    python.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncase "$*" in *"$FAIL"*) exit 3;; esac\n')
    python.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIL", "gpu.potential graph")
        first = run_script(out, python)
    assert first.returncode == 1
    assert "failed: graph (3 after" in first.stderr
    ran = [line for line in asked.read_text().splitlines() if line.startswith(("-m gpu.", "-m pytest"))]
    assert len(ran) >= 10
    for line in ran:
        module, *parts = line.split()[1:]
        if module.startswith("gpu.") and module != "gpu.summary":
            assert set(parts) <= PARTS[module.removeprefix("gpu.")]
    for path in (part for line in ran for part in line.split() if part.startswith("tests/")):
        assert (ROOT / path.split("::")[0]).exists()
    asked.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIL", "nothing")
        again = run_script(out, python)
    assert again.returncode == 0, again.stderr
    assert [line for line in asked.read_text().splitlines() if "summary" not in line] == ["-m gpu.potential graph"]


DRY_RUN = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name]
    try:
        runpy.run_module(f"gpu.{name}", run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{name} failed"
"""
PARTS = {
    "attention": {"attention", "reference", "cuequivariance"},
    "potential": {"model", "graph", "training"},
    "operators": {"harmonics", "product", "convolution"},
}


@pytest.mark.slow
@needs_the_tree
def test_benchmarks_run_dry(tmp_path):
    """Every case of every benchmark, by the interpreter of this test."""
    pytest.importorskip("e3nn")
    path = os.pathsep.join([str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")])
    place = {"SDAS_DEVICE": "cpu", "SDAS_RESULTS": str(tmp_path), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRY_RUN, *PARTS]
    done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    found = {path.name.split("_dry_run")[0]: json.loads(path.read_text())["cases"] for path in tmp_path.glob("*.json")}
    assert set(found) == {"gpu_attention", "gpu_potential", "gpu_harmonics", "gpu_product", "gpu_convolution"}
    assert {row["what"] for rows in found.values() for row in rows} == {"roof"}.union(*PARTS.values())
    for row in (row for rows in found.values() for row in rows if "problem" in row):
        assert row.get("rival", row["what"]) in ("openequivariance", "cuequivariance")
        assert "ModuleNotFoundError" in row["problem"]
    summary = [sys.executable, "-m", "gpu.summary", str(tmp_path)]
    table = subprocess.run(summary, env=os.environ | place, capture_output=True, text=True, check=True).stdout
    assert "x ours" in table
    assert "copy_gb_per_s" in table
