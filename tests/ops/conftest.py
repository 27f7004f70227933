"""What the tests of the operators on graphs share: edge lists, every backend in turn, and the derivative ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from sdas_kernels import dispatch
from sdas_kernels.graph import EdgeIndex

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
GRAPHS = ("usual", "no edges", "one atom", "images", "isolated", "duplicates", "one-way", "crowd")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`place`: each backend of the module's `OP` on each device; `edges`: each kind of edge list."""
    if "place" in metafunc.fixturenames:
        op = metafunc.module.OP
        places = [
            pytest.param((device, name), id=f"{device}-{name}", marks=[pytest.mark.gpu] if device == "cuda" else [])
            for device in DEVICES
            for name in dispatch.backends(op, device, torch.float64)
        ]
        metafunc.parametrize("place", places, indirect=True)
    if "edges" in metafunc.fixturenames:
        metafunc.parametrize("edges", GRAPHS, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device to make tensors on, while the operator runs by the backend in turn and new memory holds NaN."""
    device, name = request.param
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills torch.empty with NaN
    with dispatch.use_backend(name, request.module.OP):
        yield device
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fills `torch.empty` with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def interpreter_bounds_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 2.4 turns no array of one number into an int, which is how the interpreter of Triton 3.6 bounds a loop."""
    from triton.runtime import interpreter  # imported in processes that interpret or have a GPU

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


@pytest.fixture
def edges(request: pytest.FixtureRequest) -> EdgeIndex:
    """An edge list of the kind in turn, on the CPU."""
    return edge_list(request.param)


def edge_list(kind: str) -> EdgeIndex:
    """Edges by kind; the atoms and neighbors are few but for "crowd", where one atom has 1100 neighbors."""
    random = torch.Generator().manual_seed(7)
    if kind == "no edges":
        return from_lists([], [], 3)
    if kind == "one atom":
        return from_lists([], [], 1)
    if kind == "images":
        return from_lists([0, 0, 0], [0, 0, 0], 1)
    if kind == "isolated":
        return from_lists([0, 0, 2, 3, 3], [2, 3, 0, 0, 2], 5)
    if kind == "duplicates":
        return from_lists([0, 0, 0, 1, 1, 2], [1, 1, 1, 0, 0, 2], 3)
    if kind == "one-way":
        return from_lists([0, 0, 0, 3], [1, 2, 3, 1], 4)
    if kind == "crowd":
        senders = torch.randint(1, 40, (1100,), generator=random).tolist()
        return from_lists([0] * 1100 + [1, 1, 17], [*senders, 0, 2, 0], 40)
    receivers = torch.randint(0, 6, (17,), generator=random).sort().values.tolist()
    return from_lists(receivers, torch.randint(0, 6, (17,), generator=random).tolist(), 6)


def from_lists(receivers: list[int], senders: list[int], num_nodes: int) -> EdgeIndex:
    """Edges of pairs already sorted by receiver."""
    return EdgeIndex.from_pairs(
        torch.tensor(receivers, dtype=torch.int64), torch.tensor(senders, dtype=torch.int64), num_nodes
    )


def on(edges: EdgeIndex, device: str) -> EdgeIndex:
    """The same edges on a device."""
    return EdgeIndex(*(t.to(device) for t in edges.tensors()))


def normal(seed: int, device: str, dtype: torch.dtype, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Normal random tensors by name, the same numbers for every device and dtype."""
    random = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: t.to(device=device, dtype=dtype) for name, t in drawn.items()}


Call = Callable[..., torch.Tensor]


def ladder(
    call: Call, operands: dict[str, torch.Tensor], seed: int = 3, threads: int | None = None
) -> dict[str, torch.Tensor]:
    """`ladder_of` with that many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return ladder_of(call, operands, seed)
    finally:
        torch.set_num_threads(before)


def ladder_of(call: Call, operands: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Value, gradient by every operand, and for each gradient its own gradients, operand by operand.

    `call(**operands)` gives the value. The incoming gradient and the tangents are normal and depend on nothing but
    the seed and the shapes, so two implementations can be compared entry by entry.
    """
    leaves = {name: t.detach().clone().requires_grad_() for name, t in operands.items()}
    value = call(**leaves)
    random = torch.Generator().manual_seed(seed)

    def direction(t: torch.Tensor) -> torch.Tensor:
        return torch.randn(t.shape, generator=random, dtype=torch.float64).to(t)

    grad = direction(value).requires_grad_()
    found = {"value": value.detach()}
    grads = torch.autograd.grad(value, list(leaves.values()), grad, create_graph=True, materialize_grads=True)
    for name, by in zip(leaves, grads, strict=True):
        found[f"by {name}"] = by.detach()
        tangent = direction(by)
        if not by.requires_grad:
            continue
        second = torch.autograd.grad(by, [grad, *leaves.values()], tangent, retain_graph=True, materialize_grads=True)
        for other, twice in zip(["grad", *leaves], second, strict=True):
            found[f"by {name} and {other}"] = twice
    return found


def assert_ladders_agree(
    found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = 1e-11
) -> None:
    """Every rung of `wanted` is in `found`, to a tolerance of its largest entry."""
    assert set(wanted) <= set(found)
    for name, exact in wanted.items():
        given = found[name].to(exact)
        assert given.shape == exact.shape, name
        if exact.numel():
            scale = max(1.0, exact.abs().max().item())
            worst = (given - exact).abs().max().item()
            assert worst <= tolerance * scale, f"{name}: off by {worst:.3g}, the largest entry is {scale:.3g}"


def check_gradients(call: Call, operands: dict[str, torch.Tensor], name: str) -> None:
    """First and second derivatives by one operand are those of finite differences, every entry of the Jacobian."""

    def alone(t: torch.Tensor) -> torch.Tensor:
        return call(**{**operands, name: t})

    point = operands[name].detach().clone().requires_grad_()
    assert gradcheck(alone, (point,), eps=1e-6, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(alone, (point,), eps=1e-6, atol=1e-6, rtol=1e-5)


class Shapes(TorchDispatchMode):
    """Collects the shapes of the tensors that PyTorch makes or changes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.found.add(tuple(result.shape))
        return result


@pytest.fixture
def graph_ops() -> SimpleNamespace:
    """The functions above, for the test modules."""
    return SimpleNamespace(
        Shapes=Shapes,
        assert_ladders_agree=assert_ladders_agree,
        check_gradients=check_gradients,
        edge_list=edge_list,
        from_lists=from_lists,
        ladder=ladder,
        normal=normal,
        on=on,
    )
