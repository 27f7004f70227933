"""A data set larger than the memory allowed is converted and iterated, in a process that cannot take more."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

ALLOWED = 24 << 20
FRAMES, ATOMS = 5_000, 240

SCRIPT = textwrap.dedent(
    """
    import resource, sys
    import numpy as np
    from sdas.data import FrameCache, read_frames, write_cache
    task, source, target, allowed = sys.argv[1:4] + [int(sys.argv[4])]
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * used + allowed,) * 2)
    if task == "load whole":
        np.load(source)["coords"] + np.load(source)["forces"]
    elif task == "convert":
        print(len(write_cache(read_frames(source), target)))
    else:
        print(sum(frame.energy + frame.positions.sum() for frame in FrameCache.open(target)))
    """
)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """An rMD17 file of 58 MB and the place of its cache."""
    folder = tmp_path_factory.mktemp("big")
    grid = np.stack(np.meshgrid(range(8), range(6), range(5)), axis=-1).reshape(ATOMS, 3) * 1.5
    coords = np.broadcast_to(grid, (FRAMES, ATOMS, 3))
    path = folder / "big.npz"
    charges, energies = np.full(ATOMS, 6, np.uint8), np.arange(FRAMES)
    np.savez(path, nuclear_charges=charges, coords=coords, energies=energies, forces=np.zeros_like(coords))
    assert path.stat().st_size > 2 * ALLOWED
    return path, folder / "cache", grid


def run(task, big):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, task, str(big[0]), str(big[1]), str(ALLOWED)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on private memory is Linux's RLIMIT_DATA")
def test_more_data_than_memory(big):
    control = run("load whole", big)
    assert "MemoryError" in control.stderr, "the limit does not bite, so the test would prove nothing"
    converted = run("convert", big)
    assert converted.stdout.strip() == str(FRAMES), converted.stderr
    iterated = run("iterate", big)
    expected = np.arange(FRAMES).sum() * 0.0433641153087705 + FRAMES * big[2].sum()
    assert float(iterated.stdout) == pytest.approx(expected), iterated.stderr
