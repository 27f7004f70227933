"""Shared by all tests: the seed, real reference data, and small systems of every kind."""

from __future__ import annotations

import io
import itertools
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format
from scipy.spatial.transform import Rotation

from sdas_kernels import dispatch, native
from sdas_kernels.graph import NeighborGraph
from sdas_kernels.missing_native import Missing
from sdas_kernels.nn import SDAS

if TYPE_CHECKING:
    from ase import Atoms

# Processes that tests start import what these tests import: the installed packages, not the source tree.
os.environ["PYTHONSAFEPATH"] = "1"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first, so that no worker is left with one of them when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same random numbers whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real reference data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"REAL DATA ABSENT: {SHARED_DATA} is not there, so nothing is tested against it")
    return SHARED_DATA


def make_atoms(*arguments: Any, **options: Any) -> Atoms:
    """`ase.Atoms`; the test is skipped where ASE is absent, as kernels need none."""
    return pytest.importorskip("ase").Atoms(*arguments, **options)


def ethanol() -> Atoms:
    """A molecule, off its minimum."""
    return make_atoms(
        "C2OH6",
        [
            [-0.04, 0.55, -0.27], [-1.27, -0.24, 0.11], [1.15, -0.31, 0.04], [0.02, 0.73, -1.35], [0.05, 1.51, 0.26],
            [-1.35, -0.45, 1.20], [-2.18, 0.35, -0.13], [-1.20, -1.19, -0.42], [1.83, 0.22, 0.50],
        ],
    )  # fmt: skip


def water_box() -> Atoms:
    """A liquid: eight water molecules in a periodic box of 6.2 Å, each turned its own way."""
    molecule = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
    places = 3.1 * np.array(np.meshgrid(*[range(2)] * 3)).reshape(3, 8).T
    turns = Rotation.random(8, rng=np.random.default_rng(5))
    positions = np.concatenate([place + turn.apply(molecule) for place, turn in zip(places, turns, strict=True)])
    return make_atoms("OH2" * 8, positions, cell=[6.2] * 3, pbc=True)


def small_cell() -> Atoms:
    """A solid in a skewed cell shorter than the cutoff: atoms see images of themselves."""
    cell = [[2.9, 0.0, 0.2], [0.7, 2.7, 0.0], [0.1, 0.4, 3.2]]
    return make_atoms("CO", scaled_positions=[[0.02, 0.05, 0.0], [0.47, 0.55, 0.4]], cell=cell, pbc=True)


def slab() -> Atoms:
    """Periodic along two directions, free along the third."""
    positions = [[0.1, 0.0, 0.0], [1.4, 1.6, 0.3], [0.2, 1.5, 1.7], [1.5, 0.1, 1.9], [0.9, 0.8, 3.4]]
    cell = [[2.9, 0.2, 0.0], [0.3, 3.1, 0.0], [0.0, 0.0, 9.0]]
    return make_atoms("C2O2H", positions, cell=cell, pbc=[True, True, False])


SYSTEMS: dict[str, Callable[[], Atoms]] = {
    "molecule": ethanol,
    "liquid": water_box,
    "small cell": small_cell,
    "slab": slab,
    "one atom": lambda: make_atoms("O", [[0.3, 0.1, -0.2]]),
    "no edges": lambda: make_atoms("OHC", [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 20.0]]),
}


@pytest.fixture
def systems() -> dict[str, Atoms]:
    """One system of each kind, of hydrogen, carbon and oxygen only."""
    return {name: make() for name, make in SYSTEMS.items()}


@pytest.fixture(params=SYSTEMS)
def atoms(request: pytest.FixtureRequest) -> Atoms:
    """Each kind of system in turn."""
    return SYSTEMS[request.param]()


def graph_of(atoms: Atoms, cutoff: float = 4.0, dtype: torch.dtype = torch.float64) -> NeighborGraph:
    """Its graph, float64 unless said."""
    cell = atoms.cell.array if atoms.pbc.any() else None
    return NeighborGraph.build(atoms.positions, atoms.numbers, cutoff, cell, atoms.pbc, dtype=dtype)


@pytest.fixture
def to_graph() -> Callable[..., NeighborGraph]:
    """`to_graph(atoms, cutoff=4.0, dtype=torch.float64)`."""
    return graph_of


@pytest.fixture
def make_model() -> Callable[..., SDAS]:
    """`make_model(**config)`: a small model of hydrogen, carbon and oxygen with random weights, float64, eval mode."""

    def make(dtype: torch.dtype = torch.float64, **config: object) -> SDAS:
        torch.manual_seed(11)
        shape = {"species": [1, 6, 8], "channels": 8, "heads": 4, "cutoff": 4.0, "n_radial": 5, "key_channels": 3}
        return SDAS(**{**shape, **config}).to(dtype).eval()

    return make


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    """e3nn makes its constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiled extension cannot be imported, and nobody has been told yet."""
    monkeypatch.setattr(native, "_extension", None)
    monkeypatch.setattr(native, "_missing", Missing("there are no kernels", "install them"))
    monkeypatch.setattr(native, "_warned", False)
    dispatch._choose.cache_clear()
    yield
    dispatch._choose.cache_clear()


@pytest.fixture
def declare_too_much() -> Callable[[Path, str], None]:
    """Give the array of a name in an .npz file a header that declares 2⁴⁰ numbers."""

    def change(path: Path, name: str) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        header = io.BytesIO()
        npy_format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
        members[f"{name}.npy"] = header.getvalue() + members[f"{name}.npy"][-8:]
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)

    return change


@pytest.fixture
def killed_at_write() -> Callable[[int, Callable[[], object]], None]:
    """`killed_at_write(n, run)`: run in a copy of this process that is killed at its n-th forced write to disk."""

    def run(number: int, simulation: Callable[[], object]) -> None:
        child = os.fork()
        if child == 0:
            real, count = os.fsync, itertools.count(1)

            def sync(descriptor):
                if next(count) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(descriptor)

            os.fsync = sync
            try:
                simulation()
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL

    return run
