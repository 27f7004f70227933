"""The rules of the house that a program can check."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / "sdas_kernels" / "ops"
CODE = ("sdas_kernels", "python", "csrc", "tests", "bench")
SUFFIXES = {".py", ".pyi", ".cpp", ".cu", ".h", ".sh"}

in_the_tree = pytest.mark.skipif(not OPS.is_dir(), reason="the tests stand alone, without the source tree")


def code_files():
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def operators():
    return sorted(path.name for path in OPS.iterdir() if path.is_dir() and path.name != "__pycache__")


@in_the_tree
def test_every_operator_has_its_files():
    wanted = [OPS / op / file for op in operators() for file in ("__init__.py", "reference.py", "autograd.py")]
    wanted += [ROOT / "tests" / "ops" / f"test_{op}.py" for op in operators()]
    assert [str(path.relative_to(ROOT)) for path in wanted if not path.is_file()] == []


@in_the_tree
def test_every_native_kernel_belongs_to_an_operator():
    for path in (ROOT / "csrc" / "ops").glob("*/*.c*"):
        backend = "cuda.py" if path.suffix == ".cu" else "cpp.py"
        assert path.stem == path.parent.name
        assert (OPS / path.stem / backend).is_file(), path


@in_the_tree
def test_no_file_is_too_long_to_read_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in code_files()}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


@in_the_tree
def test_every_file_and_folder_says_by_its_name_what_it_holds():
    forbidden = {"utils", "util", "helpers", "helper", "misc", "common"}
    parts = {p: {part.split(".")[0] for part in p.relative_to(ROOT).parts} for p in code_files()}
    assert [str(p) for p, names in parts.items() if names & forbidden] == []


PROBE = """
import sys
import torch

before = set(sys.modules)
import sdas_kernels

new = set(sys.modules) - before
assert not torch.cuda.is_initialized(), "import touched a GPU"
for module in ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension", "sphericart", "e3nn", "ase"):
    assert not any(name == module or name.startswith(module + ".") for name in new), f"import brought in {module}"
"""


def test_import_compiles_nothing_and_touches_no_gpu(tmp_path):
    caches = {"TRITON_CACHE_DIR": tmp_path / "triton", "TORCH_EXTENSIONS_DIR": tmp_path / "extensions"}
    environment = os.environ | {name: str(path) for name, path in caches.items()}
    result = subprocess.run(
        [sys.executable, "-P", "-c", PROBE], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []
