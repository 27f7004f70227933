"""The SDAS potential: energy of atoms, and forces and stress as its exact gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from sdas_kernels.arguments import number, positive_length, switches, whole_number, whole_numbers
from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.dispatch import announce
from sdas_kernels.electronic_states import unusual
from sdas_kernels.elements import atomic_number
from sdas_kernels.fused_sdas import Evaluator
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.nn import derivatives
from sdas_kernels.nn.electronic_state import ElectronicEmbedding
from sdas_kernels.nn.geometry import EdgeGeometry
from sdas_kernels.nn.inner_cutoff import InnerCutoff
from sdas_kernels.nn.layer import SDASLayer
from sdas_kernels.nn.meaning import WithMeaning, as_tensor, from_tensor
from sdas_kernels.nn.paper import PaperAttention, PaperEmbedding, PaperLayer
from sdas_kernels.nn.repulsion import Repulsion
from sdas_kernels.segment import Segments, gather, segment_sum


class SDAS(WithMeaning):
    """An equivariant transformer over atoms within a cutoff.

        E = Σ_i [ shift(Z_i) + scale · Σ_layers f(h_i) ]       F_i = -∂E/∂r_i       σ = (1/V) ∂E/∂ε

    Args:
        species: atomic numbers or symbols of the elements that the model knows.
        channels, heads: channels of every degree, and attention heads (a divisor of channels).
        lmax: highest degree of the features.
        layers: how many layers.
        cutoff: Å; graphs must be built with the same.
        n_radial: radial functions; `sdas train` takes 5.
        key_channels: channels of query and key per head.
        parity: True for E(3) (inversion too), False for SE(3).
        layer: "default" (smooth at the cutoff) or "paper" (as published).
        node_product: whether an atom's features are multiplied with themselves by `NodeProduct` (default layer only);
            `sdas train` does it.
        charge_spin: whether energies depend on the total charge and the spin of a system, which its graph states.
        members: readouts on the same features, whose mean f is: a shallow ensemble, which `members` takes apart.
        repulsion: "zbl": that of `Repulsion` is added to the energy; "inner-cutoff": `InnerCutoff` takes the place of
            the network between atoms closer than in the training frames; None: the network is alone.
        options: the switches of `NeighborAttention` and `SDASLayer`, for the default layer only.

    `config` holds the arguments: `SDAS(**model.config)` is a model of the same shape.
    """

    species: torch.Tensor
    energy_shift: torch.Tensor
    energy_scale: torch.Tensor
    _species_of_number: torch.Tensor

    def __init__(
        self,
        species: Iterable[int | str],
        channels: int = 32,
        heads: int = 32,
        lmax: int = 2,
        layers: int = 2,
        cutoff: float = 5.0,
        n_radial: int = 8,
        key_channels: int = 4,
        parity: bool = True,
        layer: str = "default",
        node_product: bool = False,
        charge_spin: bool = False,
        members: int = 1,
        repulsion: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        announce()
        if isinstance(species, str):
            raise TypeError(f"SDAS: species must be a list of atomic numbers or symbols, got {species!r}")
        known = sorted({atomic_number("SDAS", "species", element) for element in species})
        if not known:
            raise ValueError("SDAS: species must be at least one atomic number, got none")
        sizes = {"channels": channels, "heads": heads, "layers": layers, "n_radial": n_radial}
        sizes["key_channels"] = key_channels
        channels, heads, layers, n_radial, key_channels = whole_numbers("SDAS", 1, **sizes)
        members = whole_number("SDAS", "members", members, 1)
        lmax, cutoff = whole_number("SDAS", "lmax", lmax, 0, LMAX), positive_length("SDAS", "cutoff", cutoff)
        parity, node_product, charge_spin = switches(
            "SDAS", parity=parity, node_product=node_product, charge_spin=charge_spin
        )
        options |= {"node_product": True} if node_product else {}
        options = {name: bool(value) if isinstance(value, np.bool_) else value for name, value in options.items()}
        self.config: dict[str, Any] = {
            "species": known,
            "channels": channels,
            "heads": heads,
            "lmax": lmax,
            "layers": layers,
            "cutoff": cutoff,
            "n_radial": n_radial,
            "key_channels": key_channels,
            "parity": parity,
            "layer": layer,
            **({"charge_spin": True} if charge_spin else {}),  # else as models were before it was there
            **({"members": members} if members > 1 else {}),
            **({"repulsion": repulsion} if repulsion is not None else {}),
            **options,
        }
        self.lmax, self.n_radial, self.cutoff = lmax, n_radial, cutoff
        self.evaluator = Evaluator(self.cutoff, parity)
        self.register_buffer("species", torch.tensor(known))
        lookup = torch.full((119,), -1, dtype=torch.int64)
        lookup[known] = torch.arange(len(known))
        self.register_buffer("_species_of_number", lookup, persistent=False)
        self.register_buffer("energy_shift", torch.zeros(len(known), dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))

        self.embedding = nn.Embedding(len(known), channels)
        self.electronic = ElectronicEmbedding(channels) if charge_spin else None
        kinds: dict[str | None, type[Repulsion] | None] = {None: None, "zbl": Repulsion, "inner-cutoff": InnerCutoff}
        if not isinstance(repulsion, (str, type(None))) or repulsion not in kinds:
            raise ValueError(f'SDAS: repulsion must be "zbl", "inner-cutoff" or None, got {repulsion!r}')
        kind = kinds[repulsion]
        self.repulsion = None if kind is None else kind(known)
        shared: dict[str, Any] = {
            "channels": channels,
            "heads": heads,
            "lmax": lmax,
            "key_channels": key_channels,
            "parity": parity,
        }
        if layer == "default":
            self.first_features = None
            self.layers = nn.ModuleList(
                SDASLayer(**shared, n_radial=n_radial, scalar_source=k == 0, **options) for k in range(layers)
            )
        elif layer == "paper":
            if options:
                raise TypeError(f"SDAS: the paper layer has no options, got {', '.join(options)}")
            self.first_features = PaperEmbedding(channels, lmax, n_radial)
            self.layers = nn.ModuleList([*(PaperLayer(**shared) for _ in range(layers - 1)), PaperAttention(**shared)])
        else:
            raise ValueError(f'SDAS: layer must be "default" or "paper", got {layer!r}')
        readouts = layers if layer == "default" else 1
        self.readouts = nn.ModuleList(_readout(channels, members) for _ in range(readouts))

        first: Any = self.layers[0].attention if layer == "default" else self.layers[0]
        self._meaning = {**first.meaning(), "species": known, "cutoff": cutoff, "n_radial": n_radial, "layer": layer}
        self._meaning["repulsion"] = repulsion

    def meaning(self) -> dict[str, Any]:
        """Species, cutoff, and what the layers say of themselves."""
        return self._meaning

    def meaning_of(self, state_dict: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """Also from tensors alone, as a file of safetensors has them."""
        known = dict(super().meaning_of(state_dict, prefix, metadata))
        if f"{prefix}_extra_state" in state_dict:
            known |= from_tensor(state_dict[f"{prefix}_extra_state"])
        if f"{prefix}species" in state_dict:
            known["species"] = state_dict[f"{prefix}species"].tolist()
        return known

    def get_extra_state(self) -> torch.Tensor:
        """The meaning of the weights; PyTorch puts it into the state dict."""
        return as_tensor(self._meaning)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Nothing is left to do: it was compared before."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        # Older state dicts: they do not tell the meaning, and the paper's last layer had features that no energy reads.
        state_dict.pop(f"{prefix}layers.{len(self.layers) - 1}.mixing.weight", None)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, *rest)
        if f"{prefix}_extra_state" in missing:
            missing.remove(f"{prefix}_extra_state")

    def set_energy_reference(self, shifts: Mapping[int, float] | Mapping[str, float], scale: float) -> None:
        """Energy of each species (eV per atom, by number or symbol) and the unit of the network's output (eV).

        Raises TypeError for what is no number, ValueError for a species without a shift, or numbers out of range.
        """
        if not isinstance(shifts, Mapping):
            raise TypeError(f"SDAS: shifts must be energies by element, got {type(shifts).__name__}")
        shifts = {atomic_number("SDAS", "shifts", element): shift for element, shift in shifts.items()}
        missing = [z for z in self.species.tolist() if z not in shifts]
        if missing:
            raise ValueError(f"SDAS: no energy shift for atomic numbers {missing}")
        energies = [number("SDAS", f"shifts of element {z}", shifts[z], "eV") for z in self.species.tolist()]
        values, scale = torch.tensor(energies, dtype=torch.float64), number("SDAS", "scale", scale, "eV")
        if not (torch.isfinite(values).all() and 0 < scale < float("inf")):
            raise ValueError(f"SDAS: shifts must be finite and scale positive, got {shifts}, {scale}")
        self.energy_shift.copy_(values)
        self.energy_scale.fill_(scale)

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> SDAS:
        """Move or convert the model; total energies need more digits than float32 has, so references stay float64."""
        exact = {name: getattr(self, name) for name in ("energy_shift", "energy_scale")}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    @in_operand_dtype
    def forward(self, batch: NeighborGraph, forces: bool = True, stress: bool = False) -> dict[str, torch.Tensor]:
        """Energies, and forces and stress where asked for.

        In training mode, if `batch.positions` requires a gradient, or under `torch.func` and forward derivatives,
        forces and stress can be differentiated again. Else, and in inference mode, weights require no gradients while
        it runs, which spares kernels some work.
        `torch.compile` cannot take this method whole, since it looks at the data to check them and differentiates
        inside: `CompiledPotential` compiles it. `features` can be compiled as it is.

        Returns:
            "energy" `[B]` eV, float64; "forces" `[N, 3]` eV/Å; "stress" `[B, 3, 3]` eV/Å³, symmetric, the derivative
            of the energy by strain per volume (tension positive, as ASE's).

        Raises:
            ValueError: an atom of unknown species, another cutoff, stress of a system without a cell, or a charge or
                spin that the model does not know of.
            RuntimeError: the weights were made in inference mode, and no kernel runs the model whole.
        """
        self._check_graph(batch)
        found = derivatives.find(self, batch, forces, stress)
        return found if forces else {name: found[name] for name in ("energy", "stress") if name in found}

    @in_operand_dtype
    def energies(self, batch: NeighborGraph, vectors: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Energy of every system `[B]`, float64 eV, from edge vectors `[E, 3]` Å and species indices `[N]`."""
        pressed = None if self.repulsion is None else self.repulsion.pressed(vectors, batch, kinds)
        if pressed is None:
            return self.sum_over_systems(batch, self.features(batch, vectors, kinds)[0], kinds)
        return self.sum_over_systems(batch, self.features(batch, pressed.seen, kinds)[0], kinds) + pressed.energy

    def sum_over_systems(self, batch: NeighborGraph, atomic: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Energy of every system `[B]`, float64 eV, from the network's atomic energies `[N]`."""
        atomic = self.energy_scale * atomic.double()
        atomic = atomic + self.energy_shift.index_select(0, kinds)
        return segment_sum(atomic, Segments(batch.system), batch.num_systems)

    def scalars(self, batch: NeighborGraph, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What atoms start from: a table `[rows, C]`, and its row for each atom `[N]`.

        Rows are species; with `charge_spin`, those of one system after the other.
        """
        if self.electronic is None:
            return self.embedding.weight, kinds
        table = self.embedding.weight + self.electronic(batch)[:, None]
        return table.flatten(0, 1), kinds + len(self.species) * batch.system

    @in_operand_dtype
    def features(
        self, batch: NeighborGraph, vectors: torch.Tensor, kinds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's atomic energies `[N]`, without scale and shift, and its last features `[N, M, C]`.

        Of the paper layer those that the last layer reads: it makes none, as no energy would depend on them.
        """
        geometry = EdgeGeometry.from_vectors(vectors, batch, self.lmax, self.n_radial, self.cutoff)
        table, rows = self.scalars(batch, kinds)
        h = gather(table, Segments(rows, ascending=False))
        if self.first_features is not None:
            x = self.first_features(geometry)
            *layers, last = self.layers
            for layer in layers:
                h, x = layer(h, x, geometry)
            return self.readouts[0](last(h, x, geometry)).squeeze(1), x
        x = torch.nn.functional.pad(h[:, None, :], (0, 0, 0, (self.lmax + 1) ** 2 - 1))
        parts = []
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            x = layer(x, geometry)
            parts.append(readout(x[:, 0]))
        return torch.cat(parts, 1).sum(1), x

    def _check(self, batch: NeighborGraph) -> torch.Tensor:
        """Index of each atom's species `[N]`, of a graph that fits."""
        self._check_graph(batch)
        return self.kinds(batch)

    def _check_graph(self, batch: NeighborGraph) -> None:
        if not isinstance(batch, NeighborGraph):
            raise TypeError(f"SDAS: wants a NeighborGraph, got {type(batch).__name__}")
        batch.check_unwritten()
        if abs(batch.cutoff - self.cutoff) > 1e-6:
            raise ValueError(f"SDAS: the graph was built with cutoff {batch.cutoff} Å, the model has {self.cutoff} Å")
        weight, positions = self.embedding.weight, batch.positions
        dtype, device = weight.dtype, weight.device
        if positions.dtype != dtype or positions.device != device:
            raise ValueError(
                f"SDAS: the graph is {batch.dtype} on {batch.device}, the model {dtype} on {device}: "
                "use graph.to(...) or model.to(...)"
            )
        if self.electronic is None and (batch.charge is not None or batch.spin is not None):
            state = unusual(batch)
            if state is not None:
                raise ValueError(f"SDAS: the graph has {state}, which only a model made with charge_spin=True knows of")

    def kinds(self, batch: NeighborGraph) -> torch.Tensor:
        """Index of each atom's species `[N]`."""
        try:
            kinds = self._species_of_number.index_select(0, batch.numbers)
        except IndexError:
            raise ValueError("NeighborGraph: numbers must be 1..118, but something else was written there") from None
        if bool((kinds < 0).any()):
            unknown = sorted(set(batch.numbers[kinds < 0].tolist()))
            raise ValueError(f"SDAS: atomic numbers {unknown} are unknown to a model of {self.species.tolist()}")
        return kinds


def check_is_sdas(owner: str, model: Any) -> None:
    """Raises TypeError for another model."""
    if not isinstance(model, SDAS):
        raise TypeError(f"{owner}: model must be an SDAS, got {type(model).__name__}")


def check_model(owner: str, model: Any) -> None:
    """It computes what `SDAS.forward` does, which the owner does in a way of its own; raises TypeError."""
    check_is_sdas(owner, model)
    if type(model).forward is not SDAS.forward or "forward" in vars(model):
        raise TypeError(f"{owner}: model must have the forward of SDAS, got {type(model).__name__} with another one")


def _readout(channels: int, members: int) -> nn.Sequential:
    """From scalars to an energy; a block of hidden units for each member."""
    width = members * max(1, channels // 2)
    first, last = nn.Linear(channels, width), nn.Linear(width, 1)
    if members > 1:
        with torch.no_grad():  # each member, M times its block, begins as a readout alone does
            last.weight.mul_(members**-0.5)
    return nn.Sequential(first, nn.SiLU(), last)
