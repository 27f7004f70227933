"""The benchmark of accuracy per FLOP: its arithmetic, its counting, and one cell trained from files to result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdas.data import samples
from sdas_kernels import native

pytest.importorskip("record", reason="the tests stand alone, without bench/")

from apr import curves, protocol, recipes, run
from apr.protocol import Cell, Recipe, Task
from apr.trainers import sdas as ours
from apr.trainers.frames import Frames
from apr.trainers.muon import SlicedMuon


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of few frames of the sample that is shipped; the folder of its data."""
    train, test = samples.sample("ethanol")
    task = Task((train.name,), 12, 4, 3, (test.name,))
    monkeypatch.setitem(protocol.TASKS, "few", task)
    return train.parent


def result(model: str, budget: float, error: float, seed: int = 0, flops: float | None = None) -> dict[str, object]:
    """What a cell gives, as far as the tables read it."""
    cell = Cell(model, "ethanol", budget, seed, Recipe("adam", 0.01, 8)).document()
    return {"cell": cell, "test": {"force_mae_mev_per_ang": error}, "train_flops": flops or budget}


def test_flops_to_reach_an_error_lie_on_the_line_between_two_budgets_in_logarithms() -> None:
    # error = 100 · (C / 1e12)^(-1/2): 50 meV/Å at 4e12
    row = {c: [result("sdas", c, 100 * (c / 1e12) ** -0.5)] for c in (1e12, 9e12)}
    sign, flops = curves.flops_to_reach(row, 50.0)
    assert sign == "="
    assert flops == pytest.approx(4e12)
    assert curves.flops_to_reach(row, 200.0) == ("<", 1e12)
    assert curves.flops_to_reach(row, 20.0) is None


def test_the_error_after_some_seconds_lies_on_the_same_kind_of_line() -> None:
    row = {c: [result("sdas", c, 100 * (c / 1e12) ** -0.5) | {"cpu_s": 30 * c / 1e12}] for c in (1e12, 9e12)}
    sign, error = curves.error_at(row, 120.0)
    assert sign == "="
    assert error == pytest.approx(50.0)
    assert curves.error_at(row, 29.0) is None
    assert curves.error_at(row, 300.0) == ("<", pytest.approx(100 / 3))


def test_the_best_peer_is_that_of_the_smallest_mean_over_seeds_and_never_our_own() -> None:
    cells = [result("nequip", 1e12, 40.0), result("nequip", 1e12, 60.0, seed=1), result("mace", 1e12, 49.0)]
    cells += [result("sdas", 1e12, 1.0), result("sdas_paper", 1e12, 2.0)]
    assert curves.best_peer(curves.table(cells, "ethanol"), 1e12) == ("mace", 49.0)


def test_a_model_without_an_environment_is_named_with_the_reason(small: Path, tmp_path: Path) -> None:
    grid = run.Grid(small, tmp_path / "results", tmp_path / "work")
    cell = Cell("nequip", "few", 1e6, 0, Recipe("adam", 0.01, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SDAS_PEER_NEQUIP", raising=False)
        assert "SDAS_PEER_NEQUIP" in grid.run(cell)["failed"]
    curves.write_page(tmp_path / "results")
    assert "SDAS_PEER_NEQUIP" in (tmp_path / "results" / "README.md").read_text()


@pytest.mark.parametrize("model", ["sdas", "transformer"])
def test_a_cell_is_trained_to_its_budget_and_not_again(small: Path, tmp_path: Path, model: str) -> None:
    grid = run.Grid(small, tmp_path / "results", tmp_path / "work")
    cell = Cell(model, "few", 2e9, 0, Recipe("adam", 1e-3, 4))
    found = grid.run(cell)
    assert found["train_flops"] == pytest.approx(2e9, rel=0.5)
    assert found["flops_residual"] == 0
    assert np.isfinite(found["test"]["force_mae_mev_per_ang"])
    assert found["cell"] == json.loads(json.dumps(cell.document()))
    changed = grid.path(cell).stat().st_mtime_ns
    grid.run(cell)
    assert grid.path(cell).stat().st_mtime_ns == changed


def searched(error: Callable[[str, float], float]) -> dict[str, dict[float, float]]:
    """The whole search of NequIP by these errors of an optimizer and a rate, in units of the usual one."""
    usual, errors = protocol.RATES["nequip"], {}
    cells = protocol.search_cells("nequip")
    while cells:
        for recipe in (cell.recipe for cell in cells):
            assert recipe not in errors
            errors[recipe] = error(recipe.optimizer, recipe.rate / usual[recipe.optimizer])
        further = protocol.further_cell("nequip", errors)
        cells = [] if further is None else [further]
    return {
        optimizer: {recipe.rate / rate: e for recipe, e in errors.items() if recipe.optimizer == optimizer}
        for optimizer, rate in usual.items()
    }


@pytest.mark.parametrize("best", [0.25, 1.0, 4.0])
def test_the_search_goes_on_until_each_best_rate_lies_between_others(best: float) -> None:
    rows = searched(lambda optimizer, rate: abs(np.log(rate / best)) if optimizer == "muon" else abs(np.log(rate)))
    assert min(rows["muon"], key=rows["muon"].__getitem__) == pytest.approx(best)
    assert min(rows["muon"]) < best < max(rows["muon"])
    assert sorted(rows["adam"]) == [0.5, 1, 2]


def test_the_search_ends_where_ever_larger_rates_are_ever_better() -> None:
    assert max(searched(lambda _, rate: -rate)["adam"]) == pytest.approx(32)


def test_a_cell_of_another_recipe_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDAS_PEER_MACE", "/bin/false")
    grid = run.Grid(tmp_path, tmp_path, tmp_path)
    (tmp_path / "few.npz").touch()
    cell = Cell("mace", "few", 1e6, 0, Recipe("adam", 0.01, 8))
    grid.path(cell).write_text(json.dumps({"cell": cell.document(), "steps": 7}))
    assert grid.run(cell)["steps"] == 7
    assert "failed" in grid.run(Cell("mace", "few", 1e6, 0, Recipe("muon", 0.01, 8)))


def test_recipes_are_ranked_by_frames_that_do_not_test() -> None:
    def row(validation: float, test: float) -> dict[str, object]:
        errors = {"validation": validation, "test": test}
        parts = {name: {"force_mae_mev_per_ang": e, "energy_mae_mev": 1.0} for name, e in errors.items()}
        return {"0": {**parts, "steps": 5}}

    page = recipes.table({"aspirin": {"lucky": row(9.0, 3.0), "chosen": row(8.0, 4.0)}})
    assert page.index("chosen") < page.index("lucky")


def test_edges_of_a_batch_connect_atoms_of_one_frame_within_the_cutoff(small: Path, tmp_path: Path) -> None:
    protocol.write_frames(protocol.TASKS["few"], small, tmp_path / "few.npz")
    frames = Frames.read(tmp_path / "few.npz", "train")
    batch = frames.batch([3, 7])
    vectors = batch["positions"][batch["senders"]] - batch["positions"][batch["receivers"]]
    lengths = np.linalg.norm(vectors, axis=1)
    assert (batch["system"][batch["senders"]] == batch["system"][batch["receivers"]]).all()
    assert 0 < lengths.min() <= lengths.max() < protocol.CUTOFF
    distances = np.linalg.norm(batch["positions"][:, None] - batch["positions"][None], axis=-1)
    same = batch["system"][:, None] == batch["system"][None]
    assert len(lengths) == (same & (distances < protocol.CUTOFF)).sum() - len(same)


def test_parts_of_a_task_share_no_frame(small: Path, tmp_path: Path) -> None:
    protocol.write_frames(protocol.TASKS["few"], small, tmp_path / "few.npz")
    energies = [Frames.read(tmp_path / "few.npz", part).energies for part in protocol.PARTS]
    assert [len(part) for part in energies] == [12, 4, 3]
    assert len(np.unique(np.concatenate(energies))) == 19


def test_muon_moves_a_matrix_along_its_polar_factor_and_flat_weights_slice_by_slice() -> None:
    torch.manual_seed(0)

    class Flat(torch.nn.Module):
        """As e3nn keeps a linear map of two degrees."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4 * 3 + 2 * 2))
            path = type("Instruction", (), {"path_shape": (4, 3)}), type("Instruction", (), {"path_shape": (2, 2)})
            self.instructions, self.weight_numel = path, 16

    module = Flat()
    optimizer = SlicedMuon(module, 1.0)
    gradient = torch.randn(16)
    module.weight.grad = gradient.clone()
    optimizer.step()
    moved = -module.weight.detach()
    for part, shape in ((slice(0, 12), (4, 3)), (slice(12, 16), (2, 2))):
        u, _, v = torch.linalg.svd(gradient[part].view(shape), full_matrices=False)
        polar = u @ v
        cosine = torch.nn.functional.cosine_similarity(moved[part], polar.flatten(), dim=0)
        assert cosine > 0.95


def test_muon_leaves_no_weight_as_it_was() -> None:
    """Tensor products of e3nn have flat weights too, which are no matrices."""
    o3 = pytest.importorskip("e3nn.o3")
    torch.manual_seed(0)
    product, linear = o3.FullyConnectedTensorProduct("4x0e", "3x0e", "4x0e"), o3.Linear("4x0e", "4x0e + 2x0e")
    network = torch.nn.ModuleDict({"product": product, "linear": linear})
    optimizer, before = SlicedMuon(network, 0.1), [weight.detach().clone() for weight in network.parameters()]
    linear(product(torch.randn(5, 4), torch.randn(5, 3))).square().sum().backward()
    optimizer.step()
    moved = [float((now - was).abs().max()) for now, was in zip(network.parameters(), before, strict=True)]
    assert min(moved) > 1e-3


def test_our_own_models_run_by_the_installed_package_and_peers_find_the_sources(monkeypatch):
    """Sources in front of it would hide its compiled kernels."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    root = str(Path(run.__file__).resolve().parents[2])
    assert root not in run.environment("sdas")["PYTHONPATH"].split(os.pathsep)
    assert root in run.environment("nequip")["PYTHONPATH"].split(os.pathsep)


def test_ours_has_no_result_by_plain_pytorch(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "available", lambda: (False, "there are no compiled kernels"))
    with pytest.raises(RuntimeError, match="no compiled kernels"):
        ours.train({}, tmp_path)
