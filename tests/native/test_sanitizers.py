"""The C++ kernels and the thread pool under ThreadSanitizer and AddressSanitizer."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdas_kernels.irreps import Irreps
from sdas_kernels.nn import uvu_paths, uvu_paths_apart
from sdas_kernels.ops.tensor_product import TensorProductSpec
from sdas_kernels.ops.tensor_product.kernel import COMPILED
from sdas_kernels.ops.tensor_product.tables import Tables, parts
from sdas_kernels.ops.tensor_product.tables_dense import dense_tables
from sdas_kernels.ops.tensor_product_conv.tables import tables

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
SOURCES = {path.stem: path for path in (*CSRC.glob("ops/*/*.cpp"), *CSRC.glob("fused_sdas/*.cpp"))}
LEVELS = {"baseline": [], "avx2": ["-mavx2", "-mfma"]}
COMMON = ["-std=c++17", "-w", "-pthread", "-DSDAS_MAX_DEGREE=2", "-DSDAS_MAX_NEIGHBOR_DEGREE=2"]
COMMON += [f"-I{CSRC}"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not CSRC.is_dir(), reason="no C++ sources beside the tests"),
]


def build(operator: str, sanitizer: str, level: str, folder: Path) -> Path:
    """Compile the operator's driver with the kernels of one level."""
    watched = [
        "-O1",
        "-g1",
        f"-fsanitize={sanitizer}",
        "-fno-sanitize=null,object-size,pointer-overflow",  # AddressSanitizer sees these, and sooner compiled
        "-fno-sanitize-recover=all",
        "--param=asan-instrumentation-with-call-threshold=0",  # else the unrolled kernels take minutes
    ]
    driver, kernels = folder / "driver", []
    for part in (operator, *PARTS.get(operator, ())):
        kernels.append(str(folder / f"{part}.o"))
        source = ["-c", str(SOURCES[part]), "-o", kernels[-1]]
        subprocess.run(["g++", *COMMON, *watched, *LEVELS[level], f"-DSDAS_SIMD={level}", *source], check=True)
    source = [str(HERE / f"{operator}_driver.cpp"), *kernels, "-o", str(driver)]
    others = "-Wl,--unresolved-symbols=ignore-all"  # the kernels of other levels, which are not called
    subprocess.run(["g++", *COMMON, *watched, *source, others], check=True)
    return driver


def spec(in1, in2, out, paths):
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), [(*path, 0.7) for path in paths])


def tensor_product_tables():
    """Of every mode that has kernels; entries without paths or channels, two paths to an entry, no weight."""
    in1, in2 = "9x0e+17x1o", "1x0e+1x1o+1x2e"
    channelwise = [
        spec(in1, in2, in1, uvu_paths(in1, in2, in1)),
        spec(
            "3x1o+2x0e+1x2e",
            "2x1o+3x1o+0x2e",
            "3x0e+6x2e+3x1e+3x1e+2x3o+2x1o",
            [
                (0, 0, 0, "uvu", True),
                (0, 0, 0, "uvu", False),
                (0, 0, 1, "uvuv", True),
                (0, 1, 2, "uuu", True),
                (0, 1, 3, "uvv", False),
                (1, 0, 5, "uvv", True),
            ],
        ),
    ]
    paths = [(0, 0, 0, "uuw", True), (0, 1, 1, "uvw", True), (1, 0, 1, "uvw", True)]
    mixing = spec("3x1o+20x0e", "3x1o+1x0e", "2x2e+5x1o", paths)
    products = parts(mixing.text, torch.float64, COMPILED).dense
    weightless = replace(products, sizes=products.sizes | {"weight_numel": 0})  # the matrix product has the weights
    dense = dense_tables(mixing.text, torch.float64)
    matrices = Tables(dense.sizes | {"weight_numel": mixing.weight_numel}, dense.arrays, {})
    channel = [parts(s.text, torch.float64, COMPILED).channel for s in channelwise]
    return [*channel, weightless, dense.inner, dense.outer, matrices]


def tensor_product_conv_tables():
    """To the receivers and to the senders, of NequIP's paths and of unusual ones."""
    features, harmonics = "9x0e+17x1o+2x2e", "1x0e+1x1o+1x2e"
    usual = spec(features, harmonics, *uvu_paths_apart(features, harmonics, "0e+1o+2e"))
    odd = spec(
        "3x1o+2x0e+1x2e+2x3o",
        "2x1o+1x0e+1x2e",
        "3x0e+3x2e+4x1o+2x1o+1x2e+3x1e",
        [
            (0, 0, 0, "uvu", True),
            (0, 0, 1, "uvu", True),
            (0, 0, 1, "uvu", False),
            (0, 0, 5, "uvu", False),
            (1, 0, 3, "uvu", True),
            (2, 1, 4, "uvu", True),
            (2, 2, 4, "uuu", True),
        ],
    )
    both = [tables(s.text, torch.float64) for s in (usual, odd)]
    return [direction for t in both for direction in (t.to_receivers, t.to_senders)]


def write_tables(file: Path, found) -> None:
    """As driver_tables.h reads them."""
    with file.open("w") as out:
        for table in found:
            for name, size in table.sizes.items():
                print(name, 1, size, file=out)
            for name, array in table.arrays.items():
                print(name, array.numel(), *array.flatten().tolist(), file=out)
            print("end", file=out)


TABLES = {"tensor_product": tensor_product_tables, "tensor_product_conv": tensor_product_conv_tables}
PARTS = {"network": ("neighbor_attention", "radial_basis", "spherical_harmonics")}  # operators whose kernels it runs
PLAIN = ("radial_basis", "edge_softmax", "neighbor_tensor_product", "neighbor_attention", "network", *TABLES)
CASES = [
    ("spherical_harmonics", "thread", "without-fork"),
    ("spherical_harmonics", "address", "with-fork"),
    *((operator, sanitizer, None) for operator in PLAIN for sanitizer in ("thread", "address,undefined")),
]


@pytest.mark.parametrize(("operator", "sanitizer", "argument"), CASES)
def test_no_races_and_no_stray_accesses(operator, sanitizer, argument, tmp_path):
    level = "avx2" if "avx2" in Path("/proc/cpuinfo").read_text() else "baseline"
    command = [str(build(operator, sanitizer, level, tmp_path))]
    if operator in TABLES:
        argument = tmp_path / "tables"
        write_tables(argument, TABLES[operator]())
    command += [str(argument)] if argument else []
    environment = os.environ | {"SDAS_KERNELS_SIMD": level}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def test_every_operator_has_a_driver():
    assert {operator for operator, _, _ in CASES} == set(SOURCES)
