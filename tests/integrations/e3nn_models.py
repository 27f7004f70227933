"""Small interatomic potentials written with e3nn's modules alone, in the manner of MACE, NequIP and Equiformer."""

from __future__ import annotations

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

SPECIES = 3
RADIAL = 4


def convolution(features, harmonics, wanted):
    """The channel-wise tensor product of a convolution: paths apart and sorted, one weight per edge and channel."""
    out, paths = [], []
    for i, (mul, first) in enumerate(features):
        for j, (_, second) in enumerate(harmonics):
            for ir in first * second:
                if ir in wanted:
                    paths.append((i, j, len(out), "uvu", True))
                    out.append((mul, ir))
    irreps, place, _ = o3.Irreps(out).sort()
    paths = sorted(((i, j, place[k], mode, learned) for i, j, k, mode, learned in paths), key=lambda path: path[2])
    return o3.TensorProduct(features, harmonics, irreps, paths, shared_weights=False, internal_weights=False)


class Interaction(torch.nn.Module):
    """Linear, convolution over neighbors, linear, and a skip connection that knows the species."""

    def __init__(self, features, harmonics, hidden):
        super().__init__()
        self.linear_up = o3.Linear(features, features)
        self.conv_tp = convolution(features, harmonics, hidden)
        self.conv_tp_weights = e3nn_nn.FullyConnectedNet(
            [RADIAL, 8, self.conv_tp.weight_numel], torch.nn.functional.silu
        )
        self.linear = o3.Linear(self.conv_tp.irreps_out.simplify(), hidden)
        self.skip_tp = o3.FullyConnectedTensorProduct(features, f"{SPECIES}x0e", hidden)

    def forward(self, node_attrs, node_feats, edge_attrs, edge_feats, edge_index):
        skip = self.skip_tp(node_feats, node_attrs)
        messages = self.conv_tp(self.linear_up(node_feats)[edge_index[0]], edge_attrs, self.conv_tp_weights(edge_feats))
        received = messages.new_zeros(len(node_feats), messages.shape[1]).index_add(0, edge_index[1], messages)
        return self.linear(received) + skip


class FusingInteraction(Interaction):
    """An interaction that asks for a fused convolution as MACE's blocks do, and divides by a density."""

    def forward(self, node_attrs, node_feats, edge_attrs, edge_feats, edge_index, cutoff=None, first_layer=False):
        skip, node_feats = self.skip_tp(node_feats, node_attrs), self.linear_up(node_feats)
        weights = self.conv_tp_weights(edge_feats) * cutoff
        density = cutoff.new_zeros(len(node_feats), 1).index_add(0, edge_index[1], cutoff)
        if hasattr(self, "conv_fusion"):
            received = self.conv_tp(node_feats, edge_attrs, weights, edge_index)
        else:
            messages = self.conv_tp(node_feats[edge_index[0]], edge_attrs, weights)
            received = messages.new_zeros(len(node_feats), messages.shape[1]).index_add(0, edge_index[1], messages)
        return self.linear(received) / (1 + density) + skip


class Potential(torch.nn.Module):
    """Energy of atoms; what follows an interaction is the difference between the models below."""

    hidden = o3.Irreps("4x0e + 4x1o + 4x2e")
    interaction = Interaction

    def __init__(self):
        super().__init__()
        scalars, harmonics = o3.Irreps("4x0e"), o3.Irreps.spherical_harmonics(2)
        self.embedding = o3.Linear(f"{SPECIES}x0e", scalars, biases=True)
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.interactions = torch.nn.ModuleList(
            [self.interaction(irreps, harmonics, self.entering) for irreps in (scalars, self.hidden)]
        )
        self.after = torch.nn.ModuleList([self.between() for _ in range(2)])
        self.readout = o3.Linear(self.hidden, "1x0e", biases=True)

    @property
    def entering(self):
        return self.hidden

    def forward(self, positions, node_attrs, edge_index):
        vectors = positions[edge_index[0]] - positions[edge_index[1]]
        lengths = vectors.norm(dim=1, keepdim=True)
        radial = torch.sin(lengths * torch.arange(1, RADIAL + 1)) / lengths
        harmonics, x = self.harmonics(vectors), self.embedding(node_attrs)
        for interaction, after in zip(self.interactions, self.after, strict=True):
            x = after(interaction(node_attrs, x, harmonics, radial, edge_index, **self.extra(lengths)))
        return self.readout(x).sum()

    def extra(self, lengths):
        return {}


class MaceLike(Potential):
    """Fused convolutions, and a product of features with themselves at each node."""

    interaction = FusingInteraction

    class Product(torch.nn.Module):
        def __init__(self, hidden):
            super().__init__()
            self.product = o3.ElementwiseTensorProduct(hidden, hidden, ["0e", "1o", "2e"])
            self.linear = o3.Linear(self.product.irreps_out.simplify() + hidden, hidden)

        def forward(self, x):
            return self.linear(torch.cat([self.product(x, x), x], -1))

    def between(self):
        return self.Product(self.hidden)

    def extra(self, lengths):
        return {"cutoff": torch.exp(-lengths)}


class NequipLike(Potential):
    """A gate after each convolution."""

    gate = e3nn_nn.Gate("4x0e", [torch.tanh], "8x0e", [torch.sigmoid], "4x1o + 4x2e")

    @property
    def entering(self):
        return self.gate.irreps_in

    def between(self):
        return e3nn_nn.Gate("4x0e", [torch.tanh], "8x0e", [torch.sigmoid], "4x1o + 4x2e")


class EquiformerLike(Potential):
    """A wrapper that holds a tensor product and adds a bias, in place of linear maps."""

    class Rescaled(torch.nn.Module):
        def __init__(self, irreps):
            super().__init__()
            self.tp = o3.FullyConnectedTensorProduct(irreps, "1x0e", irreps, path_normalization="none")
            self.scale = 0.3
            self.bias = torch.nn.Parameter(torch.randn(4))

        def forward(self, x):
            y = self.scale * self.tp(x, torch.ones_like(x[:, :1]))
            return torch.cat([y[:, :4] + self.bias, y[:, 4:]], 1)

    def between(self):
        return self.Rescaled(self.hidden)


MODELS = {"MACE": MaceLike, "NequIP": NequipLike, "Equiformer": EquiformerLike}


def inputs(atoms=7):
    """Positions, one-hot species and all pairs, sender first, in an order that is sorted by neither."""
    generator = torch.Generator().manual_seed(1)
    positions = 2 * torch.randn(atoms, 3, generator=generator)
    species = torch.eye(SPECIES)[torch.randint(SPECIES, (atoms,), generator=generator)]
    pairs = torch.nonzero(~torch.eye(atoms, dtype=torch.bool)).T
    return positions, species, pairs[:, torch.randperm(pairs.shape[1], generator=generator)]


def energy_and_forces(model, positions, *rest, training=False):
    """Energy and its exact gradient."""
    positions = positions.clone().requires_grad_()
    energy = model(positions, *rest)
    (slope,) = torch.autograd.grad(energy, positions, create_graph=training)
    return energy, -slope


def parameter_gradients(model, *given):
    """Gradients of a loss of energy and forces, by name."""
    energy, forces = energy_and_forces(model, *given, training=True)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(energy + forces.pow(2).sum(), parameters)
    return dict(zip(names, gradients, strict=True))
