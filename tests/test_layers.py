"""Who may import whom: rooms import those below them, and rooms in one row never each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A room is a file or folder of the package; "." is the package's own __init__.py.
SDAS_KERNELS = [
    "native_sources version",
    "missing_native arguments profiling autocast clebsch_gordan irreps constants flop_rules",
    "native edge_index neighbors paths transforms elements electronic_states",
    "memory dispatch subnormals",
    "flops triton_support triton_tables",
    "segment",
    "graph",
    "tuning",
    "ops",
    "fused_sdas",
    "nn",
    "integrations",
    ".",
]

SDAS = [
    "version errors",
    "files",
    "documents",
    "config",
    "data",
    "run",
    "predict",
    "train evaluate md label doctor potentials",
    "interpret free_energy diffusion simulate",
    "scaling",
    "active",
    "validate",
    "report",
    "demo inner_cutoff interpretation scale validation active_cli",
    "cli",
    ".",
]

pytestmark = pytest.mark.skipif(not (ROOT / "sdas_kernels").is_dir(), reason="the tests stand alone, without the tree")


def name_of(path: Path, root: Path) -> str:
    """`sdas.data.cache` for `sdas/data/cache.py`, `sdas.data` for `sdas/data/__init__.py`."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, modules: set[str]) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports by full names only"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else str(node.module)


def room_of(module: str) -> str:
    """`data` for `sdas.data.cache`, "." for `sdas`."""
    return [*module.split("."), "."][1]


def arrows(package: Path) -> dict[tuple[str, str], list[str]]:
    """The files by which one room imports another."""
    files = sorted(package.rglob("*.py"))
    modules = {name_of(path, package.parent) for path in files}
    found: dict[tuple[str, str], list[str]] = {}
    for path in files:
        here = room_of(name_of(path, package.parent))
        for module in imported(path, modules):
            if module.split(".")[0] == package.name and module in modules and room_of(module) != here:
                found.setdefault((here, room_of(module)), []).append(str(path.relative_to(package.parent)))
    return found


@pytest.mark.parametrize(("folder", "rows"), [("sdas_kernels", SDAS_KERNELS), ("python/sdas", SDAS)])
def test_rooms_import_only_those_below(folder, rows):
    height = {room: row for row, rooms in enumerate(rows) for room in rooms.split()}
    found = arrows(ROOT / folder)
    rooms = {room for arrow in found for room in arrow}
    assert rooms - set(height) == set(), "rooms without a row"
    upwards = {arrow: files for arrow, files in found.items() if height[arrow[1]] >= height[arrow[0]]}
    assert upwards == {}


def test_an_arrow_that_points_up_is_seen(tmp_path):
    package = tmp_path / "house"
    for name, text in {
        "__init__": "",
        "low": "def f():\n    from house import high\n",
        "high": "import house.low",
    }.items():
        package.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    assert arrows(package) == {("low", "high"): ["house/low.py"], ("high", "low"): ["house/high.py"]}
