"""Features of frames by which two are alike where training on one changes what a model says of the other.

    φ(x) = S ∂E(x)/∂θ        φ(x)·φ(x') ≈ ∂E(x)/∂θ · ∂E(x')/∂θ

The gradient of the energy by all weights θ has as many numbers as the model has weights. S sketches it to a few: each
weight has a sign and a place, drawn once, and adds up with the others of its place. Products of sketches are those of
gradients in the mean over draws, with a relative deviation of about 1/√size (M. Charikar, K. Chen, M. Farach-Colton,
Theor. Comput. Sci. 312, 3, 2004). The kernel is that of D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart,
J. Mach. Learn. Res. 24, 164, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sdas.data import Frame
from sdas.data.graphs import graph_of, knows_states
from sdas.predict.prediction import FloatArray
from sdas_kernels.nn import SDAS

SIZE = 512


def energy_gradients(model: SDAS, frames: Sequence[Frame]) -> torch.Tensor:
    """The gradient of the energy of each frame by the weights that require one, in their order; `[B, weights]`, eV.

    Raises as :func:`sdas.predict.predict` does for frames that the model does not know.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rows = []
    for frame in frames:
        graph = graph_of(frame, model.cutoff, weights[0].dtype, knows_states(model)).to(weights[0].device)
        with torch.enable_grad():
            energy = model(graph, forces=False)["energy"].sum()
            gradients = torch.autograd.grad(energy, weights, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def gradient_features(model: SDAS, frames: Sequence[Frame], size: int = SIZE, seed: int = 0) -> FloatArray:
    """Sketches of :func:`energy_gradients`; float64 `[B, size]`. One seed draws the same for models of one shape."""
    found = np.zeros((len(frames), size))
    generator = np.random.default_rng(seed)
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    places, signs = generator.integers(size, size=count), generator.choice([-1.0, 1.0], size=count)
    for row, frame in enumerate(frames):  # one by one: a model may have millions of weights
        gradient = energy_gradients(model, [frame])[0].double().cpu().numpy()
        found[row] = np.bincount(places, weights=signs * gradient, minlength=size)
    return found
