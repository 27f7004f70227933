"""Biased dynamics: forces are the gradient of the biased energy, and frames join the pool."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sdas.active.exploration import BiasedEnsemble
from sdas.active.folder import round_pool
from sdas.active.rounds import learn
from sdas.data import FrameCache
from sdas.md.systems import Systems
from sdas.run.ledger import Ledger, read_lines
from sdas_kernels.nn import SDAS


@pytest.fixture
def models():
    """Three that differ."""
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        made.append(SDAS(species=[1, 6, 8], channels=4, heads=2, lmax=1, layers=1, cutoff=4.0).double())
    return made


def test_the_bias_is_the_deviation_and_forces_are_its_gradient(models, systems):
    atoms, kappa = systems["molecule"], 0.7
    biased = BiasedEnsemble(models, kappa)
    found = biased(Systems.of([atoms, atoms]))
    energies = np.array([float(BiasedEnsemble([model], 0.0)(Systems.of([atoms]))["energy"][0]) for model in models])
    wanted = energies.mean() - kappa * energies.std()
    assert found["energy"].tolist() == pytest.approx([wanted, wanted], rel=1e-10)
    assert found["deviation"][0] == pytest.approx(energies.std(), rel=1e-8)
    step, atom, axis = 1e-4, 3, 1
    moved = []
    for sign in (1, -1):
        other = atoms.copy()
        other.positions[atom, axis] += sign * step
        moved.append(float(BiasedEnsemble(models, kappa)(Systems.of([other]))["energy"][0]))
    slope = (moved[0] - moved[1]) / (2 * step)
    assert float(found["forces"][atom, axis]) == pytest.approx(-slope, rel=1e-5)


def test_models_that_agree_have_no_bias(models, systems):
    atoms = Systems.of([systems["molecule"]])
    alone, same = BiasedEnsemble(models[:1], 5.0)(atoms), BiasedEnsemble([models[0]] * 3, 5.0)(atoms)
    assert same["energy"][0] == pytest.approx(float(alone["energy"][0]), abs=1e-8)
    assert torch.allclose(same["forces"], alone["forces"], atol=1e-6)


def test_frames_of_dynamics_join_the_pool_and_a_kill_costs_nothing(make_config, places, tmp_path, monkeypatch):
    dynamics = {"frames": 9, "replicas": 4, "interval_fs": 1.0, "temperature_k": 900}
    settings = {"pool": str(places / "unlabeled"), "oracle": "ase:ase.calculators.emt:EMT", "rounds": 1}
    settings |= {"exploration": dynamics, "labels_per_round": 20, "duplicates": 0.001}
    config, append = make_config(tmp_path / "run", **settings), Ledger._append

    def killed(self, text):
        if '"explored"' in text:
            raise SystemExit
        append(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", killed)
        with pytest.raises(SystemExit):
            learn(config)
    learn(config, resume=True)
    acts = read_lines(tmp_path / "run" / "rounds.jsonl")
    kinds = ["training", "trained", "exploring", "explored", "predicted", "assessed", "selected", "labeling", "labeled"]
    assert [act["kind"] for act in acts] == ["pool", "start", *kinds, "training", "trained", "assessed"]
    pool, before = FrameCache.open(round_pool(tmp_path / "run", 0)), FrameCache.open(tmp_path / "run" / "pool")
    assert (len(before), len(pool)) == (20, 29)
    assert all(np.array_equal(one.positions, other.positions) for one, other in zip(before, pool, strict=False))
    selected = next(act for act in acts if act["kind"] == "selected")
    assert selected["candidates"] == 29
    assert any(source.startswith("dynamics 0: replica") for source in selected["sources"])
    assert acts[-1]["pool"]["frames"] == 9
    assert acts[-1]["labels"] == 28


@pytest.mark.parametrize(("source", "count"), [("ensemble", 2), ("shallow", 3), ("dropout", 4)])
def test_dynamics_are_by_the_models_that_disagree(source, count, make_config, places, tmp_path, monkeypatch):
    told = []

    def explored(models, *_):
        told.extend(BiasedEnsemble(models, 1.0).members)
        raise SystemExit

    monkeypatch.setattr("sdas.active.rounds.explore", explored)
    settings = {"models": 2 if source == "ensemble" else 1, "draws": 4, "uncertainty": source}
    settings |= {"pool": str(places / "unlabeled"), "oracle": "ase:ase.calculators.emt:EMT"}
    model, train = {"channels": 8, "members": 3}, {"dropout": 0.4, "steps": 1}
    with pytest.raises(SystemExit):
        learn(make_config(tmp_path / "run", model=model, train=train, exploration={"frames": 9}, **settings))
    assert len(told) == count
    weights = [member.model.readouts[0][2].weight for member in told]
    assert not any((one == other).all() for one, other in itertools.combinations(weights, 2))
