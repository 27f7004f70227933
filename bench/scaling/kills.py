"""Kills `sdas scale` at random moments by signal 9, resumes it, and compares with a run that nobody killed.

    python bench/scaling/kills.py --data ../shared/data [--kills 10] [--flops 4e9] [--seed 0]

Prints where each kill came, and ends with status 1 if ledgers or weights differ.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sdas.run.fingerprint import model_fingerprint
from sdas.run.model import load_run_model

COMMAND = [sys.executable, "-P", "-m", "sdas.cli", "scale"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="folder with rmd17/")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--flops", default="4e9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        subprocess.run(command(folder / "whole", options), check=True, capture_output=True)
        seconds = time.monotonic() - began
        words, done = command(folder / "killed", options), 0
        while done < options.kills:
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(timeout=generator.uniform(0.5, 1.0) * seconds)
                break  # it came to its end
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            ledger = folder / "killed" / "ledger.jsonl"
            if ledger.exists():
                words = [*COMMAND, "--resume", str(folder / "killed")]
                done += 1
                print(f"kill {done}: {len(ledger.read_bytes().splitlines())} lines", flush=True)
        subprocess.run([*COMMAND, "--resume", str(folder / "killed")], check=True, capture_output=True)
        ledgers = [(folder / name / "ledger.jsonl").read_bytes() for name in ("whole", "killed")]
        models = [model_fingerprint(load_run_model(folder / name)) for name in ("whole", "killed")]
    print(f"{done} kills: ledger {same(ledgers)}, weights {same(models)}")
    sys.exit(not (ledgers[0] == ledgers[1] and models[0] == models[1]))


def command(run_dir: Path, options: argparse.Namespace) -> list[str]:
    settings = {
        "run_dir": run_dir, "data.split.sizes": "[900, 50, 50]", "model.channels": 8, "model.heads": 4,
        "model.lmax": 1, "model.layers": 1, "train.deterministic": "true", "train.threads": 1, "train.batch_size": 2,
        "train.checkpoint_every": 40, "scaling.epsilon": 5, "scaling.patience": 2,
    }  # fmt: skip
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    frames = Path(options.data) / "rmd17" / "rmd17_ethanol_train_01.npz"
    return [*COMMAND, str(frames), "--flops", options.flops, *sets]


def same(pair: list[object]) -> str:
    return "the same" if pair[0] == pair[1] else "DIFFERS"


if __name__ == "__main__":
    main()
