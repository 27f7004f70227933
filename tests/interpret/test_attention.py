"""The weights that are shown are those by which the layers sum: with them a formula gives the layers' output."""

import numpy as np
import pytest
import torch

from sdas.errors import SdasError
from sdas.interpret import attention_weights, pair_attention
from sdas_kernels.paths import coupling

OPTIONS = {
    "default": {},
    "channel paths": {"path_mixing": "channel"},
    "no sink": {"sink": False, "radial_gain": False},
    "envelope alone": {"attention": False},
}


def recorded(model, graph):
    """Input, geometry and output of every attention, as the model runs it."""
    calls = []
    modules = [getattr(layer, "attention", layer) for layer in model.layers]
    hooks = [m.register_forward_hook(lambda m, given, out: calls.append((m, given, out))) for m in modules]
    with torch.no_grad():
        model.features(graph, graph.edge_vectors(), model.kinds(graph))
    for hook in hooks:
        hook.remove()
    return calls


def summed(module, x, geometry, alpha):
    """Σ_j w_ij (V x_j) ⊗ Y_ij of the default layer, edge by edge, in dense tensors; w = α Σ_n W_n R_n(d)."""
    edges, lmax = geometry.edges, module.lmax
    gain = alpha[:, :, None].expand(-1, -1, lmax + 1)
    if module.radial_gain is not None:
        gain = gain * torch.einsum("en,kln->ekl", geometry.radial, module.radial_gain)
    degree = torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])
    weights = gain.repeat_interleave(module.channels // module.heads, 1)[:, :, degree]
    value = module.value(x[:, : (module.value_lmax + 1) ** 2])
    tile = torch.einsum("emc,ecn,en->emnc", value[edges.senders], weights, geometry.harmonics)
    tile = torch.zeros(len(x), *tile.shape[1:], dtype=x.dtype).index_add(0, edges.receivers, tile)
    z = torch.einsum("rmn,imnc->irc", coupling(module.paths), tile)
    out, start = [], 0
    for l3, paths in enumerate(module.paths.counts):
        block = z[:, start : start + (2 * l3 + 1) * paths].unflatten(1, (2 * l3 + 1, paths))
        start += (2 * l3 + 1) * paths
        if module.path_weight is None:
            out.append(torch.einsum("impc,pcd->imd", block, module.mixing[l3].unflatten(0, (paths, -1))))
        else:
            own = module.path_weight[sum(module.paths.counts[:l3]) :][:paths]
            out.append(torch.einsum("impc,pc,cd->imd", block, own, module.mixing.weight[l3]))
    return torch.cat(out, 1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_default_layer_sums_by_these_weights(make_model, to_graph, systems, options):
    model = make_model(**options)
    graph = to_graph(systems["molecule"])
    alphas = attention_weights(model, graph)
    assert len(alphas) == len(model.layers)
    for (module, given, out), alpha in zip(recorded(model, graph), alphas, strict=True):
        torch.testing.assert_close(summed(module, *given, alpha), out, rtol=1e-10, atol=1e-10)
        uniform = torch.full_like(alpha, float(alpha.mean()))
        assert (summed(module, *given, uniform) - out).abs().max() > 1e-3


def test_the_paper_layer_sums_by_these_weights(make_model, to_graph, systems):
    model = make_model(layer="paper")
    graph = to_graph(systems["molecule"])
    edges = graph.edges
    for (module, (h, _, _), out), alpha in zip(recorded(model, graph), attention_weights(model, graph), strict=True):
        values = module.scalar_value(h).unflatten(1, (module.heads, -1))
        wanted = h.index_add(0, edges.receivers, torch.einsum("ek,ekc->ec", alpha, values[edges.senders]))
        torch.testing.assert_close(wanted, out[0] if isinstance(out, tuple) else out, rtol=1e-10, atol=1e-10)
        totals = torch.zeros(len(h), module.heads, dtype=h.dtype).index_add(0, edges.receivers, alpha)
        torch.testing.assert_close(totals, torch.ones_like(totals))


def test_images_of_an_atom_count_together(make_model, to_graph, systems):
    from sdas.data import Frame

    model, atoms = make_model(), systems["small cell"]
    cell, pbc = np.array(atoms.cell.array), np.array(atoms.pbc)
    frame = Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, pbc, None, None, None, "cell")
    graph = to_graph(atoms)
    assert graph.edges.num_edges > len(atoms) ** 2
    for layer, alpha in zip(pair_attention(model, frame), attention_weights(model, graph), strict=True):
        for i in range(len(atoms)):
            of_receiver = alpha[graph.edges.receivers == i].sum(0)
            np.testing.assert_allclose(layer[:, i].sum(1), of_receiver, rtol=1e-12)
            assert (of_receiver < 1).all()


def test_a_model_without_attention_is_refused():
    with pytest.raises(SdasError, match="Linear has no attention"):
        attention_weights(torch.nn.Linear(1, 1), None)
