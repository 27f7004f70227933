"""Kills `sdas scale` at random moments by signal 9, resumes it, and compares with a run that nobody killed.

    python bench/scaling/kills.py --data ../shared/data [--kills 10] [--flops 6e9] [--seed 0]

Moments are drawn evenly over the wall time of the run that nobody killed, up to the last line of its ledger. A moment
is told by the last line that the ledger had then, and the time since: a killed run takes longer, as its processes begin
anew. Ends with status 1 if ledger or weights differ in a byte.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sdas.files import file_sha256, write_text
from sdas.run.machine import describe_process
from sdas.train.processes import Processes

COMMAND = [sys.executable, "-P", "-m", "sdas.cli", "scale"]
POLL_S = 0.01
FILES = ("ledger.jsonl", "model/model.safetensors")


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        startup, times = timed(command(whole, options), whole)
        moments = drawn(times, options.kills, options.seed)
        words = command(killed, options)
        for number, moment in enumerate(moments, start=1):
            done = kill(words, killed, moment, startup)
            print(
                f"kill {number}: {moment['s']:.2f} s, {moment['act']}{'' if done else ', but it had ended'}", flush=True
            )
            words = [*COMMAND, "--resume", str(killed)] if (killed / "ledger.jsonl").exists() else words
            moment["killed"] = done
        subprocess.run(words, check=True, capture_output=True)
        same = {name: file_sha256(whole / name) == file_sha256(killed / name) for name in FILES}
    record = {
        "flops": float(options.flops),
        "wall_s": times[-1][0],
        "lines": len(times),
        "kills": moments,
        "same": same,
        "machine": describe_process(Processes("cpu").device),
    }
    Path(options.out).mkdir(parents=True, exist_ok=True)
    write_text(Path(options.out) / "kills.json", json.dumps(record, indent=1) + "\n")
    print(f"{sum(moment['killed'] for moment in moments)} kills; the same bytes: {same}")
    sys.exit(not all(same.values()))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with rmd17/")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--flops", default="6e9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", default="bench/results/scaling")
    return parser.parse_args()


def command(run_dir: Path, options: argparse.Namespace) -> list[str]:
    settings = {
        "run_dir": run_dir, "data.split.sizes": "[900, 50, 50]", "model.channels": 8, "model.heads": 4,
        "model.lmax": 1, "model.layers": 1, "train.deterministic": "true", "train.threads": 1, "train.batch_size": 2,
        "train.checkpoint_every": 40, "scaling.epsilon": 5, "scaling.patience": 2, "scaling.payback": 0.5,
    }  # fmt: skip
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    frames = Path(options.data) / "rmd17" / "rmd17_ethanol_train_01.npz"
    return [*COMMAND, str(frames), "--flops", options.flops, *sets]


def acts(folder: Path) -> list[str]:
    """The kinds of the whole lines of a ledger."""
    path = folder / "ledger.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["kind"] for line in lines]


def timed(words: list[str], folder: Path) -> tuple[float, list[tuple[float, str]]]:
    """Run to the end; seconds until the first line of the ledger, and for every line seconds since that, and kind."""
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: list[tuple[float, str]] = []
    began = 0.0
    while process.poll() is None:
        kinds, now = acts(folder), time.monotonic()
        began = began or now if kinds else 0.0
        found += [(now - began, kind) for kind in kinds[len(found) :]]
        time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}")
    return began - started, found


def drawn(times: list[tuple[float, str]], number: int, seed: int) -> list[dict[str, Any]]:
    """Moments over the whole run, one after another: ``lines`` of the ledger, and ``later`` seconds."""
    moments = []
    generator = random.Random(seed)
    for moment in sorted(generator.uniform(0, times[-1][0]) for _ in range(number)):
        last = max(k for k, (second, _) in enumerate(times) if second <= moment)
        moments.append(
            {"s": moment, "lines": last + 1, "later": moment - times[last][0], "act": f"after {times[last][1]}"}
        )
    return moments


def kill(words: list[str], folder: Path, moment: dict[str, Any], startup: float) -> bool:
    """Start a process and kill it at that moment; false if it ended before."""
    begins_within = len(acts(folder)) >= moment["lines"]  # of an act: nothing tells when it is gone on with
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(acts(folder)) < moment["lines"]:
        time.sleep(POLL_S)
    time.sleep(moment["later"] + startup * begins_within)
    process.kill()
    return process.wait() != 0


if __name__ == "__main__":
    main()
