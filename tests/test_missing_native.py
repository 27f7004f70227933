"""A fallback to plain PyTorch is said, once, where a model is made or an operator first runs, with reason and cure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sdas_kernels as sk
from sdas_kernels import dispatch, native
from sdas_kernels.missing_native import check_made_of, missing_native
from sdas_kernels.native import SlowOperatorsWarning
from sdas_kernels.native_sources import stamp

ERROR = ImportError("libnothing.so: cannot open shared object file")


def make_model():
    return sk.nn.SDAS([1], channels=2, heads=1, lmax=1, layers=1)


def accelerate_a_product():
    from e3nn import o3

    from sdas_kernels.integrations.e3nn import accelerate

    accelerate(o3.FullyConnectedTensorProduct("1x0e", "1x0e", "1x0e"))


STARTS = {
    "a model": make_model,
    "an operator": lambda: sk.spherical_harmonics(torch.randn(2, 3), 2),
    "a module": lambda: sk.nn.TensorProductConv("1x0e", "1x0e", "1x0e", shared_weights=True)(
        torch.randn(1, 1), torch.randn(0, 1), None, sk.EdgeIndex.from_pairs(*torch.zeros(2, 0, dtype=torch.int64), 1)
    ),
    "an accelerated model": accelerate_a_product,
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.usefixtures("without_native")
def test_the_first_start_says_it_and_no_other(start):
    with pytest.warns(SlowOperatorsWarning, match="SLOW.*there are no kernels.*install them"):
        STARTS[start]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowOperatorsWarning)
        for again in STARTS.values():
            again()


@pytest.mark.usefixtures("without_native")
def test_what_was_chosen_on_purpose_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sk.use_backend("reference"):
            make_model()
            STARTS["an operator"]()
        sk.spherical_harmonics(torch.randn(2, 3, dtype=torch.bfloat16), 2)  # no kernel is made for it
        dispatch.backends("spherical_harmonics", "cuda", torch.float32)


@pytest.mark.usefixtures("without_native")
def test_a_run_on_a_gpu_is_silent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model()


def test_nothing_is_said_where_the_kernels_are():
    if not native.available()[0]:
        pytest.skip(f"NO KERNELS: {native.available()[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in STARTS.values():
            start()


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "tree" / "sdas_kernels"
    folder.mkdir(parents=True)
    return folder


def test_a_source_tree_that_hides_the_installed_package_is_named(package, tmp_path, monkeypatch):
    (package.parent / "csrc").mkdir()
    (package.parent / "CMakeLists.txt").touch()
    installed = tmp_path / "site-packages" / "sdas_kernels"
    installed.mkdir(parents=True)
    (installed / f"_native{EXTENSION_SUFFIXES[0]}").touch()
    monkeypatch.setattr(sys, "path", [str(package.parent), str(installed.parent)])
    why, cure = missing_native(ERROR, package)
    assert f"from {package}" in why
    assert f"hides the installed package {installed}" in why
    assert f"other than {package.parent}" in cure
    assert "-P" in cure
    monkeypatch.setattr(sys, "path", [str(package.parent)])
    why, cure = missing_native(ERROR, package)
    assert why == f"the package {package} has no compiled kernels"
    assert cure == f"build and install it: pip install {package.parent}"


def test_a_broken_library_and_one_for_another_python_are_named(package):
    foreign = package / "_native.cpython-27-x86_64-linux-gnu.so"
    foreign.touch()
    assert f"{foreign} are for another Python; this one loads _native{EXTENSION_SUFFIXES[0]}" in (
        missing_native(ERROR, package).why
    )
    ours = package / f"_native{EXTENSION_SUFFIXES[0]}"
    ours.touch()
    why, cure = missing_native(ERROR, package)
    assert why == f"the compiled kernels {ours} cannot be loaded: {ERROR}"
    assert cure == "install the package anew: pip install --force-reinstall --no-deps sdas-kernels"


@pytest.fixture
def sources(package):
    """C++ beside the package, one file in a folder."""
    csrc = package.parent / "csrc"
    (csrc / "ops").mkdir(parents=True)
    (package.parent / "CMakeLists.txt").touch()
    (csrc / "ops" / "sum.cpp").write_text('#include "ops/sum.h"\nint sum(int a, int b) { return a + b; }\n')
    (csrc / "ops" / "sum.h").write_text("int sum(int a, int b);\n")
    return csrc


def built(sources):
    return SimpleNamespace(__file__="_native.so", version="1.2", sources=stamp(sources))


def test_kernels_of_these_sources_are_taken(sources, package):
    module = built(sources)
    check_made_of(module, package, "1.2")
    (sources / "ops" / "sum.cpp").write_text(
        '// words\n#include "ops/sum.h"\n\nint sum(int a, int b) {\n    return a + b;  // more words\n}\n'
    )
    (sources / "notes.md").touch()
    check_made_of(module, package, "1.2")


@pytest.mark.parametrize(
    "change",
    [
        lambda csrc: (csrc / "ops" / "sum.cpp").write_text("int sum(int a, int b) { return a - b; }"),
        lambda csrc: (csrc / "ops" / "sum.h").write_text("int sum(int b, int a);"),
        lambda csrc: (csrc / "ops" / "sum.h").rename(csrc / "sum.h"),
        lambda csrc: (csrc / "ops" / "sum.h").unlink(),
        lambda csrc: (csrc / "ops" / "more.h").touch(),
    ],
    ids=["a number", "order of arguments", "moved", "removed", "added"],
)
def test_kernels_of_other_sources_are_refused(sources, package, change):
    module = built(sources)
    change(sources)
    said = f"_native.so are of other sources than {sources}: build them anew, in {package.parent}: make native"
    with pytest.raises(ImportError, match=re.escape(said)):
        check_made_of(module, package, "1.2")


def test_kernels_that_do_not_say_what_they_are_of_are_refused(sources, package):
    with pytest.raises(ImportError, match="are of other sources"):
        check_made_of(SimpleNamespace(__file__="_native.so", version="1.2"), package, "1.2")
    with pytest.raises(ImportError, match="are of version unknown"):
        check_made_of(SimpleNamespace(__file__="_native.so"), package, "1.2")


def test_kernels_of_another_version_are_refused(package):
    module = SimpleNamespace(__file__="_native.so", version="1.1")
    said = f"of version 1.1, the package {package} is of 1.2: install or build them anew: pip install --force-reinstall"
    with pytest.raises(ImportError, match=re.escape(said)):
        check_made_of(module, package, "1.2")
    check_made_of(module, package, "1.1")  # an installed package has no sources beside it


def run(code, folder, **environment):
    own = Path(sk.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(own), "PYTHONSAFEPATH": ""} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stderr


def test_python_started_in_a_checkout_says_so(package):
    """The import is silent, a model is not, and what it names is what was imported and what is hidden."""
    shutil.copytree(
        Path(sk.__file__).parent,
        package,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("_native*.so", "__pycache__"),
    )
    code = "import sys, sdas_kernels as sk; print('imported', file=sys.stderr); [sk.nn.SDAS([1]) for _ in range(2)]"
    said = run(code, package.parent)
    assert said.startswith("imported")
    assert said.count("SLOW") == 1
    if native.available()[0]:
        assert f"hides the installed package {Path(sk.__file__).parent}" in said
    else:
        assert "has no compiled kernels" in said


@pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
def test_an_unknown_simd_level_says_so(tmp_path):
    code = "import torch, sdas_kernels as sk; sk.spherical_harmonics(torch.randn(2, 3), 2)"
    said = run(code, tmp_path, SDAS_KERNELS_SIMD="sse9")
    assert "want baseline, avx2 or avx512. What helps: unset the environment variable SDAS_KERNELS_SIMD" in said
