"""Allegro, from the package `nequip-allegro`, trained by NequIP's loss and optimizers."""

from __future__ import annotations

from allegro.model import AllegroModel
from allegro.model.param_groups import MuonParamGroups
from ase.data import chemical_symbols
from nequip.utils.global_state import set_global_state

from apr.protocol import CUTOFF
from apr.trainers.frames import Frames
from apr.trainers.loop import Peer
from apr.trainers.nequip import peer_of


def build(frames: Frames, seed: int) -> Peer:
    """Two layers, 64 scalar and 16 tensor features, degree 2: the builder's defaults."""
    set_global_state()
    network = AllegroModel(
        seed=seed,
        model_dtype="float32",
        type_names=[chemical_symbols[z] for z in frames.species],
        r_max=CUTOFF,
        l_max=2,
        parity=True,
        radial_chemical_embed={
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": 8,
            "bessel_trainable": False,
            "polynomial_cutoff_p": 6,
        },
        radial_chemical_embed_dim=32,
        num_layers=2,
        num_scalar_features=64,
        num_tensor_features=16,
        avg_num_neighbors=frames.neighbors,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        compile_mode="eager",
    )
    settings = {
        "network": "2 layers, 64 scalar and 16 tensor features, l_max 2, 8 Bessel functions: its builder's defaults",
        "loss": "mean squares of energies per atom and of forces, 1 : 1, as its tutorial",
        "average": "decay 0.999, as its tutorial",
    }
    return peer_of(network, frames, MuonParamGroups, ("nequip-allegro", "nequip", "e3nn"), settings)
