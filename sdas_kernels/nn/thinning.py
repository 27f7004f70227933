"""Many models drawn from one: hidden units left out (dropout), or one readout of a shallow ensemble.

Hidden units of a node update or a readout act through one matrix W alone. They are left out there: W ← W diag(s), with
s = 0 for a unit that is left out and 1/(1 − p) for one that stays, so that W is the mean over draws (N. Srivastava,
G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, J. Mach. Learn. Res. 15, 1929, 2014). A model with M readouts
has M blocks of hidden units in each; s = M in the block of a member, and 0 in the others. A step of training takes
s = M w_m in block m instead, with w drawn evenly among all weights that sum to one. So each readout learns in each
step, but of other frames more than others do, as in the Bayesian bootstrap (D. B. Rubin, Ann. Statist. 9, 130, 1981).

One draw holds for all atoms and all calls. So what is drawn is a model like any other: invariant, with forces that are
the gradient of its energy, and run by the same kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdas_kernels.arguments import whole_number
from sdas_kernels.nn.layer import SDASLayer
from sdas_kernels.nn.sdas import SDAS, check_is_sdas


def thinned(model: SDAS, dropout: float, seed: int) -> SDAS:
    """The model without a part of its hidden units, drawn by ``seed``; all readouts of a shallow ensemble stay.

    Raises TypeError for what is no SDAS model, ValueError unless 0 <= dropout < 1.
    """
    check_is_sdas("thinned", model)
    seed = whole_number("thinned", "seed", seed, 0)
    return _with_weights(model, _drawn(model, _checked(dropout), np.random.default_rng(seed)))


def members(model: SDAS) -> list[SDAS]:
    """Each readout of a shallow ensemble as a model of its own; their mean is the model.

    Raises TypeError for what is no SDAS model.
    """
    check_is_sdas("members", model)
    readouts = {name: weight for name, weight in _maps(model) if name.startswith("readouts")}
    count = model.config.get("members", 1)
    found = []
    for member in range(count):
        chosen = {name: weight * _factors(weight, np.eye(count)[member]) for name, weight in readouts.items()}
        found.append(_with_weights(model, chosen))
    return found


def thinned_weights(model: SDAS, dropout: float, generator: np.random.Generator) -> dict[str, Tensor]:
    """Weights for a step of training, by name, as `torch.func.functional_call` takes them; gradients pass through.

    They are those of one draw of hidden units and, of a shallow ensemble, of one mixture of its members. Where neither
    is to be drawn there are none. Raises ValueError unless 0 <= dropout < 1.
    """
    count = model.config.get("members", 1)
    weights = _drawn(model, _checked(dropout), generator) if dropout else {}
    if count > 1:
        mixture = generator.dirichlet(np.ones(count))
        for name, weight in _maps(model):
            if name.startswith("readouts"):
                weights[name] = weights.get(name, weight) * _factors(weight, mixture)
    return weights


def _maps(model: SDAS) -> Iterator[tuple[str, Tensor]]:
    """The matrices by which hidden units act, `[.., units]`, by name."""
    for number, layer in enumerate(model.layers):
        if isinstance(layer, SDASLayer) and layer.update is not None:
            name = f"layers.{number}.update.mlp.2.weight"
            yield name, model.get_parameter(name)
    for number in range(len(model.readouts)):
        name = f"readouts.{number}.2.weight"
        yield name, model.get_parameter(name)


def _drawn(model: SDAS, dropout: float, generator: np.random.Generator) -> dict[str, Tensor]:
    found = {}
    for name, weight in _maps(model):
        stays = generator.random(weight.shape[1]) >= dropout
        found[name] = weight * torch.as_tensor(stays / (1 - dropout), dtype=weight.dtype, device=weight.device)
    return found


def _factors(weight: Tensor, mixture: NDArray[np.float64]) -> Tensor:
    """What the units of a readout are multiplied by for a mixture of its members, `[units]`."""
    count = len(mixture)
    return torch.as_tensor(
        np.repeat(count * mixture, weight.shape[1] // count), dtype=weight.dtype, device=weight.device
    )


def _with_weights(model: SDAS, weights: Mapping[str, Tensor]) -> SDAS:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in weights.items():
            copied.get_parameter(name).copy_(weight)
    return copied


def _checked(dropout: float) -> float:
    if not isinstance(dropout, (float, int, np.floating)):
        raise TypeError(f"dropout must be a number, got {dropout!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
    return dropout
