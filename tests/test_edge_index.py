"""Edge indices: whatever integers they are made of, operators get what they take, or the maker gets an error."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

import sdas_kernels as sk
from sdas_kernels import native
from sdas_kernels.graph import EdgeIndex

NODES = 6
PAIRS = torch.tensor([(i, j) for i in range(NODES) for j in range(NODES) if i != j])
NAMES = [field.name for field in dataclasses.fields(EdgeIndex)]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, every second in memory."""
    return torch.stack([tensor, tensor - 1], -1)[..., 0]


def edges() -> EdgeIndex:
    return EdgeIndex.from_pairs(*PAIRS.T.contiguous(), NODES)


INDICES = {
    "columns of pairs": lambda: EdgeIndex.from_pairs(PAIRS[:, 0], PAIRS[:, 1], NODES),
    "int32": lambda: EdgeIndex.from_pairs(PAIRS[:, 0].int(), PAIRS[:, 1].int(), NODES),
    "uint8": lambda: EdgeIndex.from_pairs(PAIRS[:, 0].byte(), PAIRS[:, 1].byte(), np.int64(NODES)),
    "of five strided": lambda: EdgeIndex(*map(strided, edges().tensors())),
    "of five int32": lambda: EdgeIndex(*(t.int() for t in edges().tensors())),
    "replaced": lambda: dataclasses.replace(edges(), senders=strided(PAIRS[:, 1]).short()),
    "inference mode": lambda: made_in_inference_mode(),
    "copied": lambda: copy.deepcopy(edges()),
    "unpickled": lambda: pickle.loads(pickle.dumps(edges())),
}


def made_in_inference_mode() -> EdgeIndex:
    with torch.inference_mode():
        return EdgeIndex.from_pairs(*PAIRS.clone().T, NODES)


def operators(random: torch.Generator):
    """Every operator that takes a graph, as a function of it."""
    n, e, k, c = NODES, len(PAIRS), 2, 4

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    spec = sk.nn.TensorProductConv("4x0e+4x1o", "1x0e+1x1o", "4x0e+4x1o").spec
    x, y, w = normal(n, 16), normal(e, 4), normal(e, spec.weight_numel)
    hidden, basis = normal(e, 3), normal(3, spec.weight_numel)
    query, key, sink, harmonics = normal(n, k, 3 + 4 + 5), normal(n, k, 3), normal(n, k), normal(e, 4)
    radial, envelope, value, gain = normal(e, 5), normal(e).abs(), normal(n, 4, c), normal(k, 2, 5)
    logits, alpha = (query, key, sink), normal(e, k)
    return {
        "tensor_product_conv": lambda g: sk.tensor_product_conv(x, y, w, g, spec),
        "with a basis": lambda g: sk.tensor_product_conv(x, y, hidden, g, spec, basis),
        "edge_softmax": lambda g: sk.edge_softmax(*logits, harmonics, radial, envelope, g),
        "neighbor_tensor_product": lambda g: sk.neighbor_tensor_product(alpha, radial, gain, value, harmonics, g, 1),
        "neighbor_attention": lambda g: sk.neighbor_attention(*logits, value, gain, harmonics, radial, envelope, g, 1),
    }


@pytest.mark.parametrize("make", INDICES.values(), ids=INDICES)
def test_operators_see_the_same_edges_whatever_tensors_they_were_given(make):
    made = make()
    for one, other in zip(made.tensors(), edges().tensors(), strict=True):
        assert one.dtype == torch.int64
        assert one.is_contiguous()
        assert torch.equal(one, other)
    for name, operator in operators(torch.Generator().manual_seed(0)).items():
        with sk.use_backend("reference"):
            wanted = operator(edges())
        torch.testing.assert_close(operator(made), wanted, rtol=1e-11, atol=1e-11, msg=name)


def test_an_index_owns_its_numbers():
    """Arrays that it was built from may change afterwards."""
    receivers, senders = PAIRS.numpy().T.copy()
    made = EdgeIndex.from_pairs(torch.from_numpy(receivers), torch.from_numpy(senders), NODES)
    receivers[:], senders[:] = 10**9, -(10**9)
    assert torch.equal(made.senders, PAIRS[:, 1])
    assert torch.equal(made.receivers, PAIRS[:, 0])


BAD_PAIRS = {
    "unsorted": (PAIRS[:, 1], PAIRS[:, 0], NODES, r"receivers must be sorted in ascending order; .* torch.argsort\("),
    "sender beyond": (PAIRS[:, 0], PAIRS[:, 1] + 1, NODES, r"senders must be 0\.\.5 for 6 nodes, got 6"),
    "receiver beyond": (PAIRS[:, 0], PAIRS[:, 1] % 5, 5, r"receivers must be 0\.\.4 for 5 nodes, got 5"),
    "negative": (PAIRS[:, 0], PAIRS[:, 1] - 1, NODES, r"senders must be 0\.\.5 for 6 nodes, got -1"),
    "no nodes": (PAIRS[:, 0], PAIRS[:, 1], 0, r"receivers must be empty for 0 nodes"),
    "lengths": (PAIRS[:, 0], PAIRS[1:, 1], NODES, r"senders must be \[30\] as receivers is, got \[29\]"),
    "floats": (PAIRS[:, 0], PAIRS[:, 1].double(), NODES, r"senders must be integers, got torch.float64"),
    "bools": (PAIRS[:, 0] > 0, PAIRS[:, 1], NODES, r"receivers must be integers, got torch.bool"),
    "axes": (PAIRS, PAIRS, NODES, r"receivers must have one axis, got shape \[30, 2\]"),
    "array": (PAIRS[:, 0].numpy(), PAIRS[:, 1], NODES, r"receivers must be a torch.Tensor, got ndarray"),
    "sparse": (PAIRS[:, 0].to_sparse(), PAIRS[:, 1], NODES, r"receivers must be a dense tensor"),
    "device": (PAIRS[:, 0], PAIRS[:, 1].to("meta"), NODES, r"senders is on meta but receivers is on cpu"),
    "no numbers": (*PAIRS.T.to("meta"), NODES, r"receivers must have numbers, got a tensor on meta without"),
    "fraction of a node": (PAIRS[:, 0], PAIRS[:, 1], 6.0, r"num_nodes must be a whole number, got 6.0"),
    "fewer than none": (PAIRS[:, 0], PAIRS[:, 1], -1, r"num_nodes must be at least 0, got -1"),
}


@pytest.mark.parametrize("bad", BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_bad_pairs_are_an_error_that_names_them(bad):
    *given, message = bad
    with pytest.raises((TypeError, ValueError), match=f"EdgeIndex: {message}"):
        EdgeIndex.from_pairs(*given)


BAD_PARTS = {
    "row_ptr": (lambda t: t + 1, "row_ptr does not say where the edges of each receiver begin"),
    "sender_ptr": (lambda t: t.flip(0), "sender_ptr does not say where the edges of each sender begin"),
    "sender_order": (lambda t: t.flip(0), "sender_order does not sort the edges by sender"),
    "senders": (lambda t: t.roll(1), "sender_order does not sort|sender_ptr does not say"),
    "receivers": (lambda t: t[:-1], r"senders must be \[29\] as receivers is, got \[30\]"),
}


@pytest.mark.parametrize("name", NAMES)
def test_parts_that_do_not_belong_together_are_refused(name):
    change, message = BAD_PARTS[name]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(edges(), **{name: change(getattr(edges(), name))})
    short = getattr(edges(), name)[:0]
    with pytest.raises(ValueError, match="EdgeIndex: "):
        dataclasses.replace(edges(), **{name: short})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [10**9, -(10**9)])
def test_a_number_written_later_is_refused_when_it_is_used(name, number):
    for operator in operators(torch.Generator().manual_seed(0)).values():
        made = edges()
        getattr(made, name)[-1] = number
        with pytest.raises(ValueError, match="EdgeIndex: "):
            operator(made)
    moved = edges()
    getattr(moved, name)[0] = number
    with pytest.raises(ValueError, match="EdgeIndex: "):
        EdgeIndex(*moved._tensors())


def test_numbers_written_later_that_fit_are_used():
    made, other = edges(), EdgeIndex.from_pairs(PAIRS[:, 0], PAIRS[:, 1].roll(3), NODES)
    for mine, its in zip(made._tensors(), other.tensors(), strict=True):
        mine.copy_(its)
    for operator in operators(torch.Generator().manual_seed(0)).values():
        assert torch.equal(operator(made), operator(other))


def test_an_empty_index_of_any_size():
    none = torch.zeros(0, dtype=torch.int32)
    for nodes in (0, 1, 3):
        made = EdgeIndex.from_pairs(none, none, nodes)
        assert made.num_nodes == nodes
        assert made.row_ptr.tolist() == made.sender_ptr.tolist() == [0] * (nodes + 1)
    with pytest.raises(ValueError, match="row_ptr must be"):
        EdgeIndex(none, none, none, none, none)


@pytest.mark.skipif(not native.available()[0], reason="no compiled extension")
@pytest.mark.parametrize("name", NAMES)
def test_a_number_written_past_pytorch_ends_in_no_kernel(name):
    """By an array that shares the memory, which PyTorch does not notice."""
    for operator_name, operator in operators(torch.Generator().manual_seed(0)).items():
        made = edges()
        getattr(made, name).numpy()[-1] = 10**9
        if name in ("senders", "row_ptr") or operator_name in ("edge_softmax", "neighbor_tensor_product"):
            with pytest.raises(ValueError, match=f"EdgeIndex: .*{name}"):
                operator(made)
        else:  # its kernel is not given these
            assert torch.equal(operator(made), operator(edges()))
