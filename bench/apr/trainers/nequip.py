"""NequIP, from the package `nequip`: its network, its Muon with Adam beside it, its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nequip.data import AtomicDataDict as fields
from nequip.model import MuonParamGroups, NequIPGNNModel
from nequip.train import MuonWithAuxAdam
from nequip.utils.global_state import set_global_state
from peers.model import Settings
from peers.nequip import atomic_data

from apr.protocol import CUTOFF
from apr.trainers.frames import Arrays, Frames
from apr.trainers.loop import Peer, per_atom_loss


def build(frames: Frames, seed: int) -> Peer:
    """Two layers of 32 channels up to degree 2, features of one parity per degree."""
    set_global_state()
    from ase.data import chemical_symbols

    network = NequIPGNNModel(
        seed=seed,
        model_dtype="float32",
        type_names=[chemical_symbols[z] for z in frames.species],
        r_max=CUTOFF,
        num_layers=2,
        l_max=2,
        parity=False,
        num_features=32,
        avg_num_neighbors=frames.neighbors,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        compile_mode="eager",
    )
    settings = {
        "network": "2 layers, 32 features, l_max 2, parity false: the size of ours; its builder's defaults beside it",
        "loss": "mean squares of energies per atom and of forces, 1 : 1, as its tutorial",
        "average": "decay 0.999, as its tutorial",
    }
    return peer_of(network, frames, MuonParamGroups, ("nequip", "e3nn"), settings)


def peer_of(
    network: Any, frames: Frames, groups: Callable[..., Any], packages: tuple[str, ...], settings: dict[str, str]
) -> Peer:
    """What NequIP and Allegro share: data, loss and optimizers. `groups`: which weights each gives to Muon."""
    periodic = bool(frames.pbc.any())
    described = Settings("eager", "training", 32, species=frames.species, cutoff=CUTOFF)

    def load(arrays: Arrays) -> Any:
        return atomic_data(arrays, described, cell=periodic)

    def evaluate(network: Any, data: Any, again: bool) -> tuple[torch.Tensor, torch.Tensor]:
        out = network(data.copy())
        return out[fields.TOTAL_ENERGY_KEY].squeeze(-1), out[fields.FORCE_KEY]

    def optimizer(name: str, rate: float) -> torch.optim.Optimizer:
        if name == "adam":
            return torch.optim.Adam(network.parameters(), lr=rate)
        return MuonWithAuxAdam(groups(network, muon={"lr": rate}, adam={"lr": rate}))

    return Peer(network, load, evaluate, per_atom_loss, optimizer, 0.999, None, packages, settings)
