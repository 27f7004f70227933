"""Triton kernels compiled ahead of time for GPUs that are not here: registers, and nothing spilled.

The backends are called with CPU tensors, but their launches are recorded instead of run, so that what is compiled is
what a GPU would be given.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", "3.6", reason="TRITON ABSENT: its kernels are not compiled")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET is set: kernels are interpreted, not compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from sdas_kernels.irreps import Irreps  # noqa: E402
from sdas_kernels.ops.edge_softmax import triton as softmax  # noqa: E402
from sdas_kernels.ops.neighbor_tensor_product import triton as product  # noqa: E402
from sdas_kernels.ops.radial_basis import triton as radial  # noqa: E402
from sdas_kernels.ops.spherical_harmonics import triton as harmonics  # noqa: E402
from sdas_kernels.ops.tensor_product import TensorProductSpec  # noqa: E402
from sdas_kernels.ops.tensor_product import triton as tensor_product  # noqa: E402
from sdas_kernels.ops.tensor_product_conv import triton as conv  # noqa: E402
from sdas_kernels.paths import Paths  # noqa: E402

SOFTMAX = ("softmax", "softmax_backward", "softmax_double_backward", "to_senders")
PRODUCT = ("tiles", "edge_dot", "to_senders")
RADIAL = ("basis", "basis_backward", "basis_double_backward")
HARMONICS = ("harmonics", "harmonics_backward", "harmonics_double_backward")
TENSOR_PRODUCT = ("results", "operands", "weights")
CONVOLUTION = ("to_receivers", "to_senders", "of_edges")
POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.int64: "*i64"}
INDEX = [torch.zeros(3, dtype=torch.int64)] * 5
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Most registers of a thread. 65536 registers of a multiprocessor over 128 and 32 threads are 16 programs at a time.
SOFTMAX_CASES = {
    "float32": (torch.float32, 128),
    "bfloat16": (torch.bfloat16, 128),
    "float64": (torch.float64, 168),
}
PRODUCT_CASES = {
    "degree 2": (torch.float32, 2, 128),
    "degree 2, bfloat16": (torch.bfloat16, 2, 128),
    "degree 2, float64": (torch.float64, 2, 168),
    "degree 3": (torch.float32, 3, 168),
}

# Channels, degrees of features and harmonics, each path's result apart; the edge's second derivative holds the most.
CONVOLUTION_CASES = {
    "MACE-large, results added": (torch.float32, 128, 2, 3, False, 168),
    "NequIP, degree 3": (torch.float32, 32, 3, 3, True, 168),
    "few channels, bfloat16": (torch.bfloat16, 5, 2, 2, True, 168),
    "float64": (torch.float64, 64, 2, 2, True, 200),
}


class Recorder:
    """Stands for a kernel and keeps what it is launched with."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.launches.append((self.kernel, arguments, constants))


@pytest.fixture
def recorded(monkeypatch):
    """`recorded(module, names, *calls)`: launches of the named kernels in calls of functions with arguments."""

    def launches_of(module, names, *calls):
        launches = []
        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(module, name, Recorder(getattr(module, name), launches))
            for function, arguments in calls:
                function(*arguments)
        return launches

    return launches_of


def compiled(launch, architecture):
    """A recorded launch for an architecture, e.g. 90."""
    kernel, arguments, constants = launch
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    kinds = dict.fromkeys(constants, "constexpr")
    for name, given in zip(kernel.arg_names, arguments, strict=False):
        kinds[name] = POINTERS[given.dtype] if isinstance(given, torch.Tensor) else "i32"
    signature = {name: kinds[name] for name in kernel.arg_names}
    aligned = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(signature.values()) if kind.startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def assert_fits(launches, architecture, most_registers, folder, most_shared=2048):
    """Each kernel keeps to its registers, spills nothing and adds nothing atomically. Returns the kernels' names."""
    names = set()
    for launch in launches:
        binary = compiled(launch, architecture)
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(binary.asm["cubin"])
        text = subprocess.run([TOOLS / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True)
        used = {name: int(re.search(rf"\b{name}:(\d+)", text.stdout)[1]) for name in ("REG", "STACK", "LOCAL")}
        name = f"{binary.metadata.name} for sm_{architecture}"
        assert used["STACK"] == used["LOCAL"] == 0, f"{name} spills: {used}"
        assert used["REG"] <= most_registers, f"{name} takes {used['REG']} registers"
        assert binary.metadata.shared <= most_shared, f"{name} takes {binary.metadata.shared} bytes of shared memory"
        assert not re.search(r"\b(atom|red)\.", binary.asm["ptx"]), f"{name} adds atomically"
        names.add(binary.metadata.name)
    return names


def softmax_calls(dtype, heads=32, key=8, harmonics=9, radial=8):
    shapes = ((2, heads, key + harmonics + radial), (2, heads, key), (2, heads), (3, harmonics), (3, radial), (3,))
    o = [torch.ones(shape, dtype=dtype) for shape in shapes]
    grad = torch.ones(3, heads, dtype=dtype)
    yield softmax.forward, (*o, INDEX)
    yield softmax.backward, (grad, *o, INDEX)
    yield softmax.double_backward, (*o, grad, *o, INDEX)


def product_calls(dtype, lmax, heads=8, channels=64, radial=8):
    rows, end = (lmax + 1) ** 2, (INDEX, lmax, True)
    shapes = ((3, heads), (3, radial), (heads, lmax + 1, radial), (2, rows, channels), (3, rows))
    o = [torch.ones(shape, dtype=dtype) for shape in shapes]
    grad = torch.ones(2, Paths(lmax, lmax, lmax).rows, channels, dtype=dtype)
    yield product.forward, (*o, *end)
    yield product.backward, (grad, *o, *end)
    yield product.double_backward, (*o, grad, *o, *end)


def convolution(channels, lmax, harmonics, apart):
    """`uvu` paths to all degrees of either operand, each to an entry of its own or added to those of its degree."""
    degrees = range(max(lmax, harmonics) + 1 if not apart else lmax + 1)
    x, y = Irreps([(channels, (l, (-1) ** l)) for l in range(lmax + 1)]), Irreps.spherical_harmonics(harmonics)
    out, paths = [(channels, (l, (-1) ** l)) for l in degrees if not apart], []
    for i, (_, first) in enumerate(x):
        for j, (_, second) in enumerate(y):
            for ir in first * second:
                if ir.p == (-1) ** ir.l and ir.l in degrees:
                    out += [(channels, ir)] if apart else []
                    paths.append((i, j, len(out) - 1 if apart else ir.l, "uvu", True, 0.5 + 0.1 * len(paths)))
    return TensorProductSpec.of(x, y, Irreps(out), paths)


def tensor_product_calls(spec, dtype):
    """A weight per sample, and one for all."""
    for numel in [(2, spec.weight_numel), (spec.weight_numel,)]:
        o = [torch.ones(shape, dtype=dtype) for shape in ((2, spec.dims[0]), (2, spec.dims[1]), numel)]
        grad, rest = torch.ones(2, spec.dims[2], dtype=dtype), len(numel) == 2
        if rest:
            yield tensor_product.forward, (*o, spec.text)
        yield tensor_product.backward, (grad, *o, spec.text, (rest, rest, True))
        yield tensor_product.double_backward, (*o, grad, *o, spec.text, (rest, rest, rest, True))


@pytest.mark.parametrize("case", SOFTMAX_CASES)
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_softmax_fits_in_registers(recorded, tmp_path, architecture, case):
    dtype, most = SOFTMAX_CASES[case]
    launches = recorded(softmax, SOFTMAX, *softmax_calls(dtype))
    assert assert_fits(launches, architecture, most, tmp_path) == set(SOFTMAX)


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_product_fits_in_registers(recorded, tmp_path, architecture):
    launches = recorded(product, PRODUCT, *product_calls(torch.float32, 2))
    most = 144 if architecture == 100 else 128
    assert assert_fits(launches, architecture, most, tmp_path) == set(PRODUCT)


@pytest.mark.slow
@pytest.mark.parametrize("case", PRODUCT_CASES)
def test_product_of_other_kinds_fits_in_registers(recorded, tmp_path, case):
    dtype, lmax, most = PRODUCT_CASES[case]
    assert_fits(recorded(product, PRODUCT, *product_calls(dtype, lmax)), 90, most, tmp_path)


def harmonics_calls(dtype, lmax):
    vectors, grad = torch.ones(3, 3, dtype=dtype), torch.ones(3, (lmax + 1) ** 2, dtype=dtype)
    options = (lmax, True, "component")
    yield harmonics.forward, (vectors, *options)
    yield harmonics.backward, (grad, vectors, *options)
    yield harmonics.double_backward, (vectors, grad, vectors, *options)


# Shared memory: the columns that a program exchanges at a time, of 128 vectors.
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_harmonics_fit_in_registers(recorded, tmp_path, architecture):
    launches = recorded(harmonics, HARMONICS, *harmonics_calls(torch.float32, 2))
    assert assert_fits(launches, architecture, 96, tmp_path, 128 * 16 * 4) == set(HARMONICS)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "lmax"), [(torch.float32, 8), (torch.bfloat16, 4), (torch.float64, 4)])
def test_harmonics_of_other_kinds_fit_in_registers(recorded, tmp_path, dtype, lmax):
    """Up to degree 8; in float64, of two registers each, up to degree 4."""
    launches = recorded(harmonics, HARMONICS, *harmonics_calls(dtype, lmax))
    assert_fits(launches, 90, 255, tmp_path, 128 * 32 * 8)


def radial_calls(dtype, n):
    lengths, grad, end = torch.ones(3, dtype=dtype), torch.ones(3, n, dtype=dtype), (5.0, 6)
    yield radial.forward_with_envelope, (lengths, n, *end)
    yield radial.backward_with_envelope, (grad, lengths, lengths, *end)
    yield radial.double_backward_with_envelope, (lengths, grad, lengths, lengths, *end)


@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 128), (torch.float64, 224)])
def test_radial_basis_fits_in_registers(recorded, tmp_path, architecture, dtype, most):
    launches = recorded(radial, RADIAL, *radial_calls(dtype, 8))
    assert assert_fits(launches, architecture, most, tmp_path, 4096) == set(RADIAL)


def test_float64_coefficients_are_exact(recorded):
    """The interpreter does not show how a constant is compiled: a float32 in between would lose half its digits."""
    call = next(product_calls(torch.float64, 2))
    for launch in recorded(product, PRODUCT, call):
        found = set(re.findall(r"0d([0-9A-F]{16})", compiled(launch, 90).asm["ptx"]))
        wanted = {abs(value) for entries in launch[2]["PIECE"].of_row for _, value in entries} - {1.0}
        assert wanted
        for value in wanted:
            assert found & {struct.pack(">d", sign * value).hex().upper() for sign in (1, -1)}, value


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_tensor_product_fits_in_registers(recorded, tmp_path, architecture):
    """MACE-large's set: all paths of a rung in one launch."""
    calls = tensor_product_calls(convolution(128, 2, 3, False), torch.float32)
    launches = recorded(tensor_product, TENSOR_PRODUCT, *calls)
    assert [kernel.fn.__name__ for kernel, *_ in launches] == ["results", "operands"] * 2 + ["weights"] * 2
    assert assert_fits(launches, architecture, 168, tmp_path) == set(TENSOR_PRODUCT)


def test_tensor_product_of_small_multiplicities_fits_in_registers(recorded, tmp_path):
    """Several samples to a program, and a loop over the members of the second operand."""
    irreps = Irreps("5x1o+3x0e"), Irreps("4x1o"), Irreps("5x1e+4x1o")
    spec = TensorProductSpec.of(*irreps, [(0, 0, 0, "uvu", True, 1.0), (1, 0, 1, "uvv", True, 1.0)])
    launches = recorded(tensor_product, TENSOR_PRODUCT, *tensor_product_calls(spec, torch.float32))
    assert assert_fits(launches, 90, 128, tmp_path) == set(TENSOR_PRODUCT)


def convolution_calls(spec, dtype):
    shapes = (2, spec.dims[0]), (3, spec.dims[1]), (3, spec.weight_numel)
    o, grad = [torch.ones(shape, dtype=dtype) for shape in shapes], torch.ones(2, spec.dims[2], dtype=dtype)
    yield conv.forward, (*o, INDEX, spec.text)
    yield conv.backward, (grad, *o, INDEX, spec.text, (True,) * 3)
    yield conv.double_backward, (*o, grad, *o, INDEX, spec.text, (True,) * 4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_convolution_fits_in_registers(recorded, tmp_path, architecture):
    """MACE-large's set: all paths in one launch of each contraction, and again along the steps."""
    launches = recorded(conv, CONVOLUTION, *convolution_calls(convolution(128, 2, 3, True), torch.float32))
    assert [kernel.fn.__name__ for kernel, *_ in launches] == [CONVOLUTION[n] for n in (0, 1, 2, 0, 1, 2)]
    # A quarter of a multiprocessor has 512 registers for each lane: two programs at a time of 169 to 255.
    most = 184 if architecture == 100 else 176
    assert assert_fits(launches, architecture, most, tmp_path) == set(CONVOLUTION)


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVOLUTION_CASES)
def test_convolution_of_other_kinds_fits_in_registers(recorded, tmp_path, case):
    dtype, *sizes, most = CONVOLUTION_CASES[case]
    assert_fits(recorded(conv, CONVOLUTION, *convolution_calls(convolution(*sizes), dtype)), 90, most, tmp_path)
