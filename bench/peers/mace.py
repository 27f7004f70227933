"""MACE (MIT), https://github.com/ACEsuit/mace, from the package `mace-torch`.

`eager`: the model as built, its tensor products scripted by e3nn. `scripted`: the whole model as TorchScript, as its
training command saves it for other programs. `compiled`: `torch.compile` as its calculator does with
`compile_mode="default"`, for energies and forces only; there is no such mode of its training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from peers.model import Model, Settings

torch.serialization.add_safe_globals([slice])  # its e3nn 0.4.4 loads constants with them, which PyTorch >= 2.6 refuses

from e3nn import o3  # noqa: E402
from e3nn.util import jit  # noqa: E402
from mace import modules  # noqa: E402
from mace.tools.compile import prepare  # noqa: E402

VARIANTS = ("eager", "scripted", "compiled")


def build(settings: Settings) -> Model:
    """The defaults of its training command; harmonics up to lmax where its default is 3."""
    torch.set_default_dtype(torch.float32)
    if settings.variant == "compiled" and settings.step == "training":
        raise ValueError("MACE has no compiled training mode")
    model: Any = prepare(network)(settings) if settings.variant == "compiled" else network(settings)
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in parameters)
    model.train(settings.step == "training")
    if settings.step == "forces":
        model.requires_grad_(False)
    if settings.variant == "scripted":
        model = jit.compile(model)
    if settings.variant == "compiled":
        model = torch.compile(model, mode="default", fullgraph=True)

    def load(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return batch(arrays, settings)

    def forces(data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        inputs = data.copy()
        inputs["positions"] = data["positions"].clone().requires_grad_()
        out = model(inputs, training=settings.variant == "compiled")
        return out["energy"].detach(), out["forces"].detach()

    def training(data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        model.zero_grad()
        out = model(data.copy(), training=True)
        atoms = data["ptr"].diff()
        ((out["energy"] / atoms).square().mean() + out["forces"].square().mean()).backward()
        zeros = torch.zeros_like
        return (torch.cat([(zeros(p) if p.grad is None else p.grad).flatten() for p in parameters]),)

    packages = ("mace-torch", "e3nn")
    return Model(load, {"forces": forces, "training": training}[settings.step], count, packages)


def network(settings: Settings) -> torch.nn.Module:
    torch.manual_seed(settings.seed)
    return modules.ScaleShiftMACE(
        r_max=settings.cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=settings.lmax,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=settings.layers,
        num_elements=len(settings.species),
        hidden_irreps=o3.Irreps([(settings.channels, (l, (-1) ** l)) for l in range(settings.lmax + 1)]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros((1, len(settings.species))),
        avg_num_neighbors=settings.neighbors,
        atomic_numbers=list(settings.species),
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def batch(arrays: dict[str, np.ndarray], settings: Settings) -> dict[str, torch.Tensor]:
    kinds = torch.tensor(np.searchsorted(settings.species, arrays["numbers"]))
    system = torch.tensor(arrays["system"])
    shifts = np.einsum("ej,ejk->ek", arrays["shifts"], arrays["cells"][arrays["system"][arrays["receivers"]]])
    return {
        "positions": torch.tensor(arrays["positions"], dtype=torch.float32),
        "node_attrs": torch.nn.functional.one_hot(kinds, len(settings.species)).float(),
        "edge_index": torch.tensor(np.stack([arrays["senders"], arrays["receivers"]])),
        "shifts": torch.tensor(-shifts, dtype=torch.float32),  # its vectors point from sender to receiver
        "unit_shifts": torch.tensor(-arrays["shifts"], dtype=torch.float32),
        "cell": torch.tensor(arrays["cells"].reshape(-1, 3), dtype=torch.float32),
        "batch": system,
        "ptr": torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(system).cumsum(0)]),
        "head": torch.zeros(len(arrays["cells"]), dtype=torch.int64),
    }
