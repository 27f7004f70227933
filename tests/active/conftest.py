"""Clusters of three copper atoms, labeled by the effective medium theory of ASE, and runs on them."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from sdas.active.rounds import learn
from sdas.config import parse_config
from sdas.data import Frame, write_cache

ORACLE = "ase:ase.calculators.emt:EMT"


def frames(count: int, spread: float, seed: int, labels: bool = True) -> list[Frame]:
    """Triangles of 2.4 Å with displaced corners."""
    generator, made = np.random.default_rng(seed), []
    for k in range(count):
        positions = 2.4 * np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.87, 0]]) + spread * generator.normal(size=(3, 3))
        atoms = Atoms("Cu3", positions)
        atoms.calc = EMT()
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces())
        known = (energy, forces) if labels else (None, None)
        made.append(Frame(np.full(3, 29), positions, None, np.zeros(3, bool), *known, None, f"triangle {seed}.{k}"))
    return made


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Caches: frames to begin with, a pool with labels, and one without."""
    folder = tmp_path_factory.mktemp("active")
    write_cache(frames(30, 0.05, 0), folder / "start")
    write_cache(frames(20, 0.2, 1), folder / "pool")
    write_cache(frames(20, 0.2, 1, labels=False), folder / "unlabeled")
    return folder


@pytest.fixture(scope="session")
def make_config(places):
    """`make_config(folder, **active)`: a run so small that it teaches nothing."""

    def make(folder, data=None, train=None, model=None, growth=None, **active):
        settings = {"pool": str(places / "pool"), "oracle": "hidden", "rounds": 2, "labels_per_round": 3, "models": 2}
        content = {
            "run_dir": str(folder),
            "data": {"path": str(places / "start"), "split": {"sizes": [8, 12, 10]}, **(data or {})},
            "model": {"channels": 2, "heads": 1, "lmax": 1, "layers": 1, "cutoff": 4.0, "n_radial": 3, **(model or {})},
            "train": {"steps": 8, "batch_size": 2, "ema_decay": 0.5, "threads": 1, "dtype": "float64", "device": "cpu"},
            "scaling": growth or {},
            "active": {**settings, "processes": 1, **active},
        }
        content["train"] |= {"deterministic": True, **(train or {})}
        return parse_config(content, "test")

    return make


@pytest.fixture(scope="session")
def finished(make_config, tmp_path_factory):
    """The folder of a whole run whose labels were hidden."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    learn(make_config(folder))
    return folder
