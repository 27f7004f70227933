"""The rivals of the attention layer compute what it computes, and its benchmark times what it says."""

import pytest
import torch

bench = pytest.importorskip("bench_neighbor_attention", reason="the tests stand alone, without bench/")
e3nn_attention = pytest.importorskip("peers.e3nn_attention", reason="needs e3nn")

SIZE = {"side": 2, "neighbors": 12, "channels": 8, "heads": 4, "lmax": 2}


@pytest.mark.parametrize("order", bench.ORDERS)
@pytest.mark.parametrize("lmax", [1, 2])
def test_operator_out_of_e3nn_modules_is_the_same(order, lmax):
    size = SIZE | {"lmax": lmax}
    graph = bench.box(size["side"], size["neighbors"])
    ours, read = bench.operator_step(order, bench.sk.neighbor_attention, graph, size)
    theirs, _ = bench.operator_step(order, e3nn_attention.neighbor_attention, graph, size)
    assert len(read) == {"value": 8, "gradient": 9, "second": 17}[order]
    for a, b in zip(ours(), theirs(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize("task", bench.TASKS)
def test_layer_of_every_rival_is_the_same(task):
    step = bench.layer_step(task, bench.box(SIZE["side"], SIZE["neighbors"]), SIZE)
    found = {name: bench.inside(context, step)() for name, context in bench.rivals().items()}
    for name in ("reference", "e3nn"):
        torch.testing.assert_close(found[name], found["ours"], rtol=1e-3, atol=1e-4)


def test_unfused_layers_run_e3nn(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a layer within unfused() ran the library's own operator")

    step = bench.layer_step("forces", bench.box(SIZE["side"], SIZE["neighbors"]), SIZE)
    monkeypatch.setattr(e3nn_attention.layer, "neighbor_attention", refuse)
    with pytest.raises(AssertionError):
        step()
    bench.inside(e3nn_attention.unfused, step)()
