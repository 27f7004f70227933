"""The C++ kernels and the thread pool under ThreadSanitizer and AddressSanitizer."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"],
}
COMMON = ["-std=c++17", "-w", "-pthread", "-DSDAS_MAX_DEGREE=2", f"-I{CSRC / 'include'}"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not CSRC.is_dir(), reason="no C++ sources beside the tests"),
]


def build(operator: str, sanitizer: str, tested: str, folder: Path) -> Path:
    """Compile the operator's driver; of the kernels, only the tested level is watched."""
    watched = [
        "-O1",
        "-g1",
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=all",
        "--param=asan-instrumentation-with-call-threshold=0",  # else the unrolled kernels take minutes
    ]
    objects = []
    for level, flags in FLAGS.items() if platform.machine() == "x86_64" else [("baseline", [])]:
        objects.append(str(folder / f"{level}.o"))
        options = watched if level == tested else ["-O0"]
        source = str(CSRC / "cpu" / f"{operator}.cpp")
        subprocess.run(
            ["g++", *COMMON, *options, *flags, f"-DSDAS_SIMD={level}", "-c", source, "-o", objects[-1]], check=True
        )
    driver = folder / "driver"
    source = str(HERE / f"{operator}_driver.cpp")
    subprocess.run(["g++", *COMMON, *watched, source, *objects, "-o", str(driver)], check=True)
    return driver


CASES = [
    ("spherical_harmonics", "thread", "without-fork"),
    ("spherical_harmonics", "address", "with-fork"),
    ("neighbor_attention", "thread", "without-fork"),
    ("neighbor_attention", "address,undefined", "without-fork"),
]


@pytest.mark.parametrize(("operator", "sanitizer", "fork"), CASES)
def test_no_races_and_no_stray_accesses(operator, sanitizer, fork, tmp_path):
    level = "avx2" if "avx2" in Path("/proc/cpuinfo").read_text() else "baseline"
    driver = build(operator, sanitizer, level, tmp_path)
    environment = os.environ | {"SDAS_KERNELS_SIMD": level}
    result = subprocess.run(
        [str(driver), fork], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
