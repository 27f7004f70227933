"""Kernels on several threads, and in the child of a fork, where the threads of the parent do not exist."""

import subprocess
import sys

import pytest

from sdas_kernels import native

pytestmark = [
    pytest.mark.skipif(not native.available()[0], reason=native.available()[1]),
    pytest.mark.skipif(sys.platform != "linux", reason="NOT LINUX: threads are counted in /proc"),
]

# The child runs kernels only, as PyTorch's own parallel operators cannot run there; an alarm ends it should it hang.
SCRIPT = """
import os, signal, sys
import torch
from sdas_kernels.ops.spherical_harmonics import cpp

def harmonics(threads):
    torch.set_num_threads(threads)
    return cpp.forward(vectors, 4, True, "component").numpy().tobytes()

def count():
    return len(os.listdir("/proc/self/task"))

vectors = torch.randn(100_003, 3)
wanted, before = harmonics(1), count()
torch.set_num_threads(2)
if "kernel" in sys.argv:
    assert harmonics(2) == wanted
if "torch" in sys.argv:
    torch.ones(2000, 2000).exp()
assert (count() > before) == (len(sys.argv) > 1), "threads of the parent"
child = os.fork()
if child == 0:
    signal.alarm(20)
    same = harmonics(2) == wanted and harmonics(2) == wanted
    os._exit(0 if same and count() == 2 else 1)
status = os.waitpid(child, 0)[1]
assert not os.WIFSIGNALED(status), "the child hangs"
assert os.WEXITSTATUS(status) == 0, "the child has other bits, or one thread"
assert harmonics(2) == wanted
"""


@pytest.mark.parametrize("used", [[], ["kernel"], ["torch"], ["kernel", "torch"]], ids=" ".join)
def test_a_forked_child_has_threads_of_its_own(used):
    """Whatever has used threads in the parent: a kernel, PyTorch alone, both or nothing."""
    found = subprocess.run([sys.executable, "-c", SCRIPT, *used], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
