"""Two processes take the same steps as one, and cross-validation and the command line work end to end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from sdas.config import render_config
from sdas.errors import TrainingError
from sdas.train import train
from sdas.train.rows import read_rows

KNOWN = {"energy_reference": {"H": -13.6, "O": -2041.0}}


def run_processes(config, tmp_path, count: int) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(render_config(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = []
    for rank in range(count):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        environment |= {"MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        launched.append(
            subprocess.Popen(
                [sys.executable, "-m", "sdas.cli", "train", str(path)],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in launched:
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr


@pytest.mark.parametrize(
    ("optimizer", "cache", "budget"),
    [
        # Frames of two to four atoms: some batches hold two, of different labels, the others leave a process without.
        # Known energies put atoms alone beside the frames of each process.
        pytest.param(
            "adam", "mixed_cache_path", {"batch_size": None, "batch_atoms": 4, **KNOWN}, id="one frame or two"
        ),
        pytest.param("muon", "cache_path", {"batch_size": 5}, id="an odd number"),
    ],
)
def test_two_processes_follow_the_curve_of_one(make_config, tmp_path, request, optimizer, cache, budget):
    settings = budget | {"steps": 10, "validate_every": 1, "optimizer": optimizer}
    settings["data"] = {"path": str(request.getfixturevalue(cache))}
    one = train(make_config("one", **settings))
    config = make_config("two", **settings)
    run_processes(config, tmp_path, 2)
    alone, together = read_rows(one.run_dir), read_rows(Path(config.run_dir))
    assert len(alone) == len(together) == 10
    for name in ("loss", "val_energy_mae_mev", "val_force_mae_mev_per_ang", "learning_rate"):
        expected = [float(row[name]) for row in alone]
        assert [float(row[name]) for row in together] == pytest.approx(expected, rel=1e-10)
    first = safetensors.torch.load_file(one.run_dir / "model" / "model.safetensors")
    second = safetensors.torch.load_file(Path(config.run_dir) / "model" / "model.safetensors")
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= 1e-10 * (1 + tensor.abs().max())
    # Everything but the optimizer, the averaging and the clipping is shared out.
    flops = [int(rows[-1]["train_flops"]) for rows in (alone, together)]
    assert flops[0] < flops[1] < 1.5 * flops[0]


def test_more_processes_than_frames_in_a_batch_are_refused(make_config, monkeypatch):
    import numpy as np

    from sdas.data import FrameCache
    from sdas.train.loop import fit
    from sdas.train.processes import Processes

    config = make_config(batch_size=1)
    processes = Processes("cpu")
    processes.size = 2
    with pytest.raises(TrainingError, match="batch_size 1 is less than the 2 processes"):
        fit(config, FrameCache.open(config.data.path), np.arange(4), np.arange(4, 6), processes)
