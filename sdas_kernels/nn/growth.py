"""Larger SDAS models that compute the same energies and forces as a given one.

New weights are drawn as those of a new model, except where a weight must be zero to keep the function.

Norm. Features x are divided by √( mean_l mean_{m,c} x² + ε ). New channels and degrees are zero at birth. So the mean
falls by 1/a², a² = C'/C · (L'+1)/(L+1). Every feature is therefore multiplied by a. Then the norm stays, ε too, and
normalized features are a times the old ones. Weights that make features (embedding, mixing, the scalars of the node
update) are multiplied by a. Weights that read features are divided by a, those that read |x_l|² by a². That is also
how the weights of a new model depend on its width.

Channels. What makes a new channel is zero, what reads it is drawn. So the first step reaches the makers, the second
one the readers, and no two channels are alike. Inside of a layer (values, hidden units) it is the other way round: new
ones are drawn, what reads them is zero.

Heads. Head k owns C/K channels of the values. Where the heads of the new model own fewer, a head becomes several that
ask alike and own other channels. Their gradients differ, so they part. Where channels are left, heads are drawn.

Degrees. Features of a new degree are zero. What reads them is drawn. Harmonics of a new degree are not zero, so the
paths by which they reach old degrees are.

Last layer. Its features of l > 0 act on the energy by their squares alone. At zero they would stay zero: their gradient
is. So there new ones start at less than the root of the rounding error, and their squares vanish in it.

Layers. New ones follow the old ones and add nothing to the scalars: what makes those is zero, all else is drawn. So
their readouts see what the last old one sees, and that one's energy is shared out to it and them in equal parts. A new
layer then has a trained readout before it, and gains sooner than behind a readout of zeros. The first layer, whose
values are scalars, stays the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdas_kernels.arguments import whole_number
from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.nn.fused import are_plain
from sdas_kernels.nn.layer import NodeProduct, NodeUpdate
from sdas_kernels.nn.linear import EquivariantLinear
from sdas_kernels.nn.neighbor_attention import NeighborAttention
from sdas_kernels.nn.sdas import SDAS
from sdas_kernels.paths import SquarePaths


def grow(
    model: SDAS,
    channels: int | None = None,
    layers: int | None = None,
    lmax: int | None = None,
    heads: int | None = None,
    seed: int = 0,
) -> SDAS:
    """A larger model that computes the same energies and forces, up to rounding. The given one stays as it is.

    Args:
        model: of the default layer.
        channels, layers, lmax, heads: of the larger model; None keeps what the model has.
        seed: of the new weights. Models of one shape get the same ones: a trained model and its average, for one.

    Returns:
        a model with the dtype, device, mode, energy reference and frozen weights of the given one. Weights that it has
        no counterpart for are frozen only if all of the given model's are.

    Raises:
        TypeError, ValueError: the model is not of the default layer or was changed, a size is smaller than the model's
        or too large, or heads do not fit into the channels.
    """
    _check_model(model)
    config, before = dict(model.config), model.config
    limits: dict[str, tuple[Any, int | None]] = {
        "channels": (channels, None),
        "layers": (layers, None),
        "lmax": (lmax, LMAX),
        "heads": (heads, None),
    }
    for name, (size, most) in limits.items():
        if size is not None:
            config[name] = whole_number("grow", name, size, before[name], most)
    _check_heads(before, config)
    seed = whole_number("grow", "seed", seed, 0)
    with torch.inference_mode(False), torch.no_grad():
        grown = _drawn(config, seed).double()
        _write(grown, model)
    weight = model.embedding.weight
    grown.to(weight.device, weight.dtype)
    _take_settings(grown, model)
    return grown


def _check_model(model: Any) -> None:
    if type(model) is not SDAS:  # one of a subclass would come back without what that adds
        raise TypeError(f"grow: model must be an SDAS model, got {type(model).__name__}")
    if model.config["layer"] != "default":
        raise ValueError(
            f'grow: model must have layer="default", got layer={model.config["layer"]!r}, which cannot grow'
        )
    if not are_plain(model.children()):
        raise ValueError("grow: model must have the modules that SDAS made, got one with swapped or hooked modules")


def _check_heads(before: dict[str, Any], after: dict[str, Any]) -> None:
    heads, channels = after["heads"], after["channels"]
    if channels % heads:
        raise ValueError(f"grow: heads must divide channels, got {heads} heads, {channels} channels")
    held = _parts(before, after) * before["heads"]
    if held > heads:
        raise ValueError(
            f"grow: heads must be a multiple of {before['heads']} that divides {channels} channels, got {heads}: "
            f"heads of {channels // heads} channels cannot take over heads of {before['channels'] // before['heads']}"
        )


def _parts(before: dict[str, Any], after: dict[str, Any]) -> int:
    """How many heads of the new model the channels of one head go to."""
    return -(-(before["channels"] // before["heads"]) // (after["channels"] // after["heads"]))


def _drawn(config: dict[str, Any], seed: int) -> SDAS:
    """A new model; the state of the random numbers stays."""
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(seed)
        with torch.device("cpu"):
            return SDAS(**config)
    finally:
        generator.set_state(state)


def _take_settings(grown: SDAS, model: SDAS) -> None:
    """Mode and frozen weights, by name."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    for name, module in grown.named_modules():
        module.training = modules.get(name, model).training
    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    for name, weight in grown.named_parameters():
        weight.requires_grad_(trained.get(name, any(trained.values())))


class _Axis(NamedTuple):
    """What becomes of an axis: index `to[i]` of the new weight takes what index `of[i]` of the old one had."""

    to: Tensor
    of: Tensor


def _first(size: int) -> _Axis:
    """Everything stays where it is, and new indices follow."""
    return _Axis(torch.arange(size), torch.arange(size))


@dataclass(frozen=True)
class _Growth:
    """What becomes of every axis; `stretch` is a, the factor of features; `faint` of what only acts by its square."""

    channels: _Axis
    values: _Axis
    heads: _Axis
    degrees: _Axis
    stretch: float
    faint: float

    @classmethod
    def between(cls, before: dict[str, Any], after: dict[str, Any], dtype: torch.dtype) -> _Growth:
        """Of two configurations."""
        channels, heads = torch.arange(before["channels"]), torch.arange(before["heads"])
        width, new_width = (config["channels"] // config["heads"] for config in (before, after))
        parts = _parts(before, after)
        first = channels // width * parts * new_width  # of the channels of the first head that the owner becomes
        copies = heads.repeat_interleave(parts)
        ratio = after["channels"] / before["channels"] * (after["lmax"] + 1) / (before["lmax"] + 1)
        return cls(
            channels=_first(len(channels)),
            values=_Axis(first + channels % width, channels),
            heads=_Axis(torch.arange(len(copies)), copies),
            degrees=_first(before["lmax"] + 1),
            stretch=ratio**0.5,
            faint=torch.finfo(dtype).eps ** 0.5 / 16,
        )


def _place(new: Tensor, old: Tensor, axes: Sequence[_Axis], scale: float | Tensor = 1.0) -> None:
    """new[to × to × ..] = scale · old[of × of × ..]."""
    to = torch.meshgrid(*(axis.to for axis in axes), indexing="ij")
    of = torch.meshgrid(*(axis.of for axis in axes), indexing="ij")
    new[to] = old.detach().to(new)[of] * scale


def _write(grown: SDAS, model: SDAS) -> None:
    """Put the weights of the model into the larger one, which was drawn, and zeros where they are wanted."""
    g = _Growth.between(model.config, grown.config, model.embedding.weight.dtype)
    grown.energy_shift.copy_(model.energy_shift)
    grown.energy_scale.copy_(model.energy_scale)
    if grown.repulsion is not None and model.repulsion is not None:
        grown.repulsion.load_state_dict(model.repulsion.state_dict())
    grown.embedding.weight.zero_()
    species = _first(len(model.embedding.weight))
    _place(grown.embedding.weight, model.embedding.weight, (species, g.channels), g.stretch)
    if grown.electronic is not None and model.electronic is not None:
        _place(grown.electronic.weight, model.electronic.weight, (g.channels, _first(3)), g.stretch)
    layers: list[tuple[Any, Any]] = list(zip(grown.layers, model.layers, strict=False))
    for k, (new, old) in enumerate(layers):
        last = k == len(layers) - 1
        new.norm.epsilon = old.norm.epsilon
        _write_attention(new.attention, old.attention, g, last)
        if new.product is not None:
            _write_product(new.product, old.product, g, last)
        if old.update is not None:
            _write_update(new.update, old.update, g, last)
    readouts: list[Any] = list(grown.readouts)
    for new, old in zip(readouts, model.readouts, strict=False):
        _write_readout(new, old, g, model.config.get("members", 1))
    added: list[Any] = list(zip(grown.layers, readouts, strict=True))[len(layers) :]
    for layer, readout in added:
        _silence_scalars(layer)
        readout.load_state_dict(readouts[len(layers) - 1].state_dict())
    for readout in readouts[len(layers) - 1 :]:
        readout[2].weight.div_(1 + len(added))
        readout[2].bias.div_(1 + len(added))


def _silence_scalars(layer: Any) -> None:
    """Let a layer, as drawn, add nothing to the scalars."""
    mixing = layer.attention.mixing
    (mixing.weight if isinstance(mixing, EquivariantLinear) else mixing)[0].zero_()
    if layer.update is not None:
        factors = _linear(layer.update.mlp[2])
        for weight in (factors.weight, factors.bias):
            _by_degree(weight, 0, layer.update)[0] = 0.0


def _write_attention(new: NeighborAttention, old: NeighborAttention, g: _Growth, last: bool) -> None:
    if old.has_attention:
        for target, source in zip(_of_heads(new, new.logits.weight), _of_heads(old, old.logits.weight), strict=True):
            _place(target, source, (g.heads, _first(source.shape[1]), g.channels), 1 / g.stretch)
        for target, source in zip(_of_heads(new, new.logits.bias), _of_heads(old, old.logits.bias), strict=True):
            _place(target, source, (g.heads, _first(source.shape[1])))
    if new.direction_query is not None and old.direction_query is not None:
        axes = (g.degrees, g.channels, g.heads)
        _place(new.direction_query.weight, old.direction_query.weight, axes, 1 / g.stretch)
    degrees = _first(old.value_lmax + 1)
    _place(new.value.weight, old.value.weight, (degrees, g.channels, g.values), 1 / g.stretch)
    if new.radial_gain is not None and old.radial_gain is not None:
        _place(new.radial_gain, old.radial_gain, (g.heads, g.degrees, _first(old.n_radial)))
    if isinstance(new.mixing, EquivariantLinear):
        _write_channel_mixing(new, old, g, last)
    else:
        _write_full_mixing(new, old, g, last)


def _of_heads(attention: NeighborAttention, rows: Tensor) -> list[Tensor]:
    """Rows of the logits, `[rows, ..]`, as `[K, rows of a head, ..]` of queries, keys, radial queries and sinks."""
    heads = attention.heads
    return [part.unflatten(0, (heads, len(part) // heads)) for part in rows.split(attention.logit_sizes)]


def _silence(makers: Tensor, degree: int, g: _Growth, last: bool) -> Tensor:
    """What makes features of a degree, `[.., C']`, of something that is not zero at birth: no feature yet."""
    old = len(g.channels.to) if degree < len(g.degrees.to) else 0
    quiet = torch.zeros_like(makers)
    if last and degree > 0:
        quiet[..., old:] = g.faint * makers[..., old:]
    return quiet


def _write_full_mixing(new: Any, old: Any, g: _Growth, last: bool) -> None:
    """Of each degree `[paths · C, C]`. A path from a new degree carries zeros, so its weights are as drawn."""
    for degree, target in enumerate(new.mixing):
        paths = new.paths.to_degree(degree)
        view = target.view(len(paths), new.channels, new.channels)
        loud = [k for k, (l1, _, _) in enumerate(paths) if l1 <= old.value_lmax]
        view[loud] = _silence(view[loud], degree, g, last)
        if degree <= old.lmax:
            known = old.paths.to_degree(degree)
            source = old.mixing[degree].view(len(known), old.channels, old.channels)
            _place(view, source, (_paths(known, paths), g.values, g.channels), g.stretch)


def _write_channel_mixing(new: Any, old: Any, g: _Growth, last: bool) -> None:
    """Weights `[paths, C]`, then `[lmax+1, C, C]`. A new path to an old degree begins at zero in the old channels."""
    known, paths = old.paths.all, new.paths.all
    loud = [k for k, (l1, _, l3) in enumerate(paths) if l1 <= old.value_lmax and l3 <= old.lmax]
    new.path_weight[torch.tensor(loud)[:, None], g.values.to] = 0.0
    _place(new.path_weight, old.path_weight, (_paths(known, paths), g.values))
    for degree, matrix in enumerate(new.mixing.weight):
        matrix.copy_(_silence(matrix, degree, g, last))
    _place(new.mixing.weight, old.mixing.weight, (g.degrees, g.values, g.channels), g.stretch)


def _write_product(new: NodeProduct, old: NodeProduct | None, g: _Growth, last: bool) -> None:
    """Of each degree `[paths · C, C]`, as full mixing.

    Products of new channels or of a new degree are zeros, so their weights are as drawn. In the last layer a new degree
    is faint instead; its products with old ones would show, so they are silent too. Below lmax 2 there was no product.
    """
    lmax, channels = len(g.degrees.to) - 1, len(g.channels.to)
    for degree, target in enumerate(new.mixing, 1):
        paths, known = new.paths.to_degree(degree), SquarePaths.of(lmax).to_degree(degree)
        view = target.view(len(paths), new.channels, new.channels)
        for k, (l1, l2, _) in enumerate(paths):
            if (l1 if last else l2) <= lmax:
                view[k, :channels] = _silence(view[k, :channels], degree, g, last)
        if old is not None and degree <= lmax:
            source = old.mixing[degree - 1].view(len(known), channels, channels)
            _place(view, source, (_paths(known, paths), g.channels, g.channels), 1 / g.stretch)


def _paths(known: list[tuple[int, int, int]], paths: list[tuple[int, int, int]]) -> _Axis:
    return _Axis(torch.tensor([paths.index(path) for path in known]), torch.arange(len(known)))


def _write_update(new: NodeUpdate, old: NodeUpdate, g: _Growth, last: bool) -> None:
    a, width, degrees = g.stretch, len(g.channels.to), len(g.degrees.to)
    units = _first(2 * width)

    # what reads x_0 and |x_l|²
    hidden, old_hidden = _linear(new.mlp[0]), _linear(old.mlp[0])
    inputs, old_inputs = (_by_degree(m.weight, 1, of) for m, of in ((hidden, new), (old_hidden, old)))
    scale = torch.tensor([1 / a, *[1 / a**2] * (degrees - 1)], dtype=torch.float64)
    _place(inputs, old_inputs, (units, g.degrees, g.channels), scale[:, None])
    _place(hidden.bias, old_hidden.bias, (units,))

    # New channels have zero factors, except where nothing reads them (l > 0 of the last layer) or where they multiply
    # zeros (new degrees): there a factor of zero would keep the gradient of its gate zero.
    silent = 1 if last else degrees
    scale = torch.tensor([a, *[1.0] * (degrees - 1)], dtype=torch.float64)
    factors, old_factors = _linear(new.mlp[2]), _linear(old.mlp[2])
    for weight, source in ((factors.weight, old_factors.weight), (factors.bias, old_factors.bias)):
        rows = _by_degree(weight, 0, new)
        rows[:degrees, :width] = 0.0
        rows[:silent, width:] = 0.0
        axes = (g.degrees, g.channels, units)[: rows.ndim]
        _place(rows, _by_degree(source, 0, old), axes, scale.view(-1, *[1] * (rows.ndim - 1)))
    _place(new.gated.weight, old.gated.weight, (g.degrees, g.channels, g.channels))


def _linear(module: Any) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


def _by_degree(weight: Tensor, axis: int, update: NodeUpdate) -> Tensor:
    """The axis of all invariants as two: degrees and channels."""
    return weight.unflatten(axis, (update.lmax + 1, -1))


def _write_readout(new: Any, old: Any, g: _Growth, members: int) -> None:
    width, new_width = len(old[0].weight) // members, len(new[0].weight) // members
    of = torch.arange(members * width)
    units = _Axis(of // width * new_width + of % width, of)
    _place(new[0].weight, old[0].weight, (units, g.channels), 1 / g.stretch)
    _place(new[0].bias, old[0].bias, (units,))
    new[2].weight.zero_()
    _place(new[2].weight, old[2].weight, (_first(1), units))
    new[2].bias.copy_(old[2].bias)
