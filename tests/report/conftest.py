"""A run directory with made-up numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdas.data import Frame
from sdas.documents import write_document
from sdas.evaluate import evaluate, save_evaluation
from sdas.run.checkpoint import save_model
from sdas.run.fingerprint import model_fingerprint
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import SDAS


class Shifted(torch.nn.Module):
    """Stands for a model: right, but for a fixed error."""

    species, cutoff = (1, 8), 3.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, graph: NeighborGraph, forces: bool = True, stress: bool = False) -> dict[str, torch.Tensor]:
        energy = torch.zeros(graph.num_systems, dtype=torch.float64)
        energy = energy.index_add(0, graph.system, graph.positions[:, 0])
        return {"energy": energy + 0.003, "forces": graph.positions + 0.025}


def _frame(rng: np.random.Generator) -> Frame:
    positions = rng.normal(size=(3, 3))
    numbers, no = np.array([8, 1, 1]), np.zeros(3, dtype=bool)
    return Frame(numbers, positions, None, no, float(positions[:, 0].sum()), positions.copy(), None, "made up")


@pytest.fixture
def model(make_model: Callable[..., SDAS]) -> SDAS:
    """The model in the run directory."""
    return make_model(channels=4, heads=4, lmax=1, layers=1)


@pytest.fixture
def run_dir(tmp_path: Path, model: SDAS) -> Path:
    """Trained, evaluated, and with dynamics."""
    folder = tmp_path / "water <1>"
    rng = np.random.default_rng(0)
    made = evaluate(Shifted(), [_frame(rng) for _ in range(40)])
    save_evaluation(dataclasses.replace(made, model_fingerprint=model_fingerprint(model)), folder, data="water.xyz")
    (folder / "config.yaml").write_text("train:\n  steps: 300 # <few>\n")
    summary = {
        "train_flops": 4e12,
        "wall_s": 299.6,
        "steps": 300,
        "n_train": 950,
        "n_val": 50,
        "seed": 7,
        "versions": {"sdas": "0.1.0", "torch": "9.9"},
        "machine": {"processor": "Abacus 3000", "cores": 2},
    }
    write_document(folder / "summary.json", summary)
    save_model(folder / "model", model, {"training": summary})
    header = "step,epoch,wall_s,learning_rate,loss,val_energy_mae_mev,val_force_mae_mev_per_ang,train_flops,atoms_per_s"
    rows = [
        f"{s},1,{s},0.01,{1 / s},{500 / s if s % 20 == 0 else ''},{900 / s},{s * 1e10},800" for s in range(10, 301, 10)
    ]
    (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    md = folder / "md"
    md.mkdir()
    times = np.arange(0, 1001, 10.0)
    lines = [f"{k},{t},{-10},{1},{-9 + 3e-6 * t},{290 + k % 7}" for k, t in enumerate(times)]
    (md / "log.csv").write_text(
        "\n".join(["step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k", *lines]) + "\n"
    )
    facts = {"steps": 1000, "timestep_fs": 1.0, "ensemble": "nve", "n_atoms": 3, "mean_temperature_k": 293.0}
    facts |= {"model": model_fingerprint(model)}
    facts |= {"drift_mev_per_atom_per_ps": 1.0, "fluctuation_mev_per_atom": 0.01}
    (md / "md.json").write_text(json.dumps(facts))
    return folder
