"""NequIP (MIT), https://github.com/mir-group/nequip, from the package `nequip`.

`eager`: the model as built. `compiled`: for energies and forces what `nequip-compile --mode aotinductor` exports, for
training `compile_mode: compile`, which by its own rule runs eagerly where a batch has a single frame; such a system is
refused here. Exports take minutes; those in the folder SDAS_PEER_CACHE, if it is set, are used again. Features have
one parity per degree, as its documentation advises for speed, and as ours do.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict as fields
from nequip.model import NequIPGNNModel
from nequip.model.inference_models import load_compiled_model
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import get_latest_global_state, set_global_state

from peers.model import Model, Settings

VARIANTS = ("eager", "compiled")


def build(settings: Settings) -> Model:
    """The network, run as the variant says."""
    exports = settings.variant == "compiled" and settings.step == "forces"
    model = network(settings, "compile" if settings.variant == "compiled" and not exports else "eager")
    model.train(settings.step == "training")
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in parameters)
    if settings.step == "forces" and not exports:
        model.requires_grad_(False)
    runners: dict[str, Any] = {}

    def load(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        single = len(arrays["cells"]) == 1
        if settings.variant == "compiled" and settings.step == "training" and single:
            raise ValueError("NequIP's compiled training mode runs a batch with a single frame eagerly")
        data = atomic_data(arrays, settings, cell=exports or bool(arrays["pbc"].any()))
        if not exports:
            runners["model"] = model
            return data
        target = "ase" if single else "batch"
        if target not in runners:
            runners[target] = exported(model, data, target, settings)
        runners["model"] = runners[target]
        return {name: data[name] for name in COMPILE_TARGET_DICT[target]["input"]}

    def forces(data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        out = runners["model"](data.copy())
        return out[fields.TOTAL_ENERGY_KEY], out[fields.FORCE_KEY]

    def training(data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        model.zero_grad()
        out = runners["model"](data.copy())
        energy = out[fields.TOTAL_ENERGY_KEY].squeeze(-1) / data[fields.NUM_NODES_KEY]
        (energy.square().mean() + out[fields.FORCE_KEY].square().mean()).backward()
        return (torch.cat([p.grad.flatten() for p in parameters]),)

    return Model(load, {"forces": forces, "training": training}[settings.step], count, ("nequip", "e3nn"))


def network(settings: Settings, compile_mode: str = "eager") -> Any:
    """Presets' radial network (depth 1, width 128) and the builder's defaults."""
    set_global_state()
    names = [chemical_symbols[z] for z in settings.species]
    return NequIPGNNModel(
        seed=settings.seed,
        model_dtype="float32",
        type_names=names,
        r_max=settings.cutoff,
        num_layers=settings.layers,
        l_max=settings.lmax,
        parity=False,
        num_features=settings.channels,
        avg_num_neighbors=settings.neighbors,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=dict.fromkeys(names, 0.0),
        compile_mode=compile_mode,
    )


def atomic_data(arrays: dict[str, np.ndarray], settings: Settings, cell: bool) -> dict[str, torch.Tensor]:
    """Positions and cells in float64, as its data pipeline has them; one frame has no batch index."""
    types = np.searchsorted(settings.species, arrays["numbers"])
    data = {
        fields.POSITIONS_KEY: torch.tensor(arrays["positions"]),
        fields.ATOM_TYPE_KEY: torch.tensor(types),
        fields.EDGE_INDEX_KEY: torch.tensor(np.stack([arrays["receivers"], arrays["senders"]])),
        fields.BATCH_KEY: torch.tensor(arrays["system"]),
        fields.NUM_NODES_KEY: torch.tensor(np.bincount(arrays["system"])),
    }
    if cell:
        boxes = np.where(arrays["cells"].any((1, 2))[:, None, None], arrays["cells"], 1e5 * np.eye(3))
        data |= {fields.CELL_KEY: torch.tensor(boxes), fields.EDGE_CELL_SHIFT_KEY: torch.tensor(arrays["shifts"])}
    return data


def exported(model: torch.nn.Module, data: dict[str, torch.Tensor], name: str, settings: Settings) -> torch.nn.Module:
    """The export for one target, from the cache if it has one of these settings and versions."""
    target = COMPILE_TARGET_DICT[name]
    said = repr((settings, name, version("nequip"), version("torch")))
    folder = Path(os.environ.get("SDAS_PEER_CACHE") or tempfile.mkdtemp())
    path = folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.nequip.pt2"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _export(model, data, target, str(path))
    return load_compiled_model(str(path), "cpu", target["input"], target["output"])[0]


def _export(model: Any, data: dict[str, torch.Tensor], target: dict[str, Any], path: str) -> None:
    """As the command `nequip-compile --mode aotinductor --device cpu --target NAME` does with a saved model."""
    dimensions = {axis: torch.export.Dim(f"num_{axis}s", min=2) for axis in ("graph", "node", "edge")}
    described = model.metadata | get_latest_global_state(only_metadata_related=True)
    aot_export_model(
        model=model,
        device="cpu",
        input_fields=target["input"],
        output_fields=target["output"],
        data=target["data_settings"](data.copy()),
        batch_map=target["batch_map_settings"](dimensions),
        output_path=path,
        inductor_configs={"aot_inductor.metadata": {key: _text(value) for key, value in described.items()}},
    )


def _text(value: str | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else value
