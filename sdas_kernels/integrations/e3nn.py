"""Run an existing e3nn model by the kernels of this library: `accelerate(model)`.

    from sdas_kernels.integrations.e3nn import accelerate
    print(accelerate(model))

What is swapped, in place, keeps its class, parameters, buffers and names, so a state dict passes both ways, optimizers
that hold the parameters go on, and code that reads attributes of a module finds them:

    e3nn.o3.TensorProduct, and subclasses     the generated code becomes `sdas_kernels.tensor_product`
    e3nn.o3.Linear                            the generated code becomes one matrix product per output entry
    e3nn.o3.SphericalHarmonics                becomes `sdas_kernels.spherical_harmonics`
    interaction blocks of MACE                gather, tensor product and sum become `sdas_kernels.tensor_product_conv`

Modules are recognized by what they hold, not by the version of e3nn. A call of the function
`e3nn.o3.spherical_harmonics` inside a model's own code cannot be seen, and stays as it is. An accelerated model cannot
be exported to TorchScript, which does not know these kernels: load its state dict into a fresh model and export that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.dispatch import backend_name
from sdas_kernels.integrations.compiled import (
    Compiled,
    CompiledLinear,
    CompiledTensorProduct,
    LinearPath,
    tensor_product_spec,
)
from sdas_kernels.integrations.convolution import can_fuse_convolution, fuse_convolution
from sdas_kernels.irreps import Irreps


class Change(NamedTuple):
    """One module of the model: its name, its class, and by what it was replaced, or why it was left."""

    module: str
    kind: str
    what: str


@dataclass
class Report:
    """What `accelerate` did: `swapped` and `left`, lists of `Change`. Prints as a table."""

    swapped: list[Change] = field(default_factory=list)
    left: list[Change] = field(default_factory=list)

    def __str__(self) -> str:
        lines = []
        for title, changes in (("swapped", self.swapped), ("left", self.left)):
            lines.append(f"{title} ({len(changes)})")
            width = [max((len(change[column]) for change in changes), default=0) for column in range(2)]
            lines += [f"  {c.module:{width[0]}}  {c.kind:{width[1]}}  {c.what}" for c in changes]
        return "\n".join(lines)


class _Left(Exception):
    """Why a module is left as it is."""


def accelerate(model: nn.Module) -> Report:
    """Swap, in place, what this library has kernels for, and say what was swapped, what was left, and why.

    Call it when the model is on the device and in the dtype where it will run: a module is left where this library has
    no kernel faster than plain PyTorch. Calling it again changes nothing more. Outputs agree to rounding.

    Raises:
        ImportError: e3nn is not installed.
        TypeError: `model` is no `torch.nn.Module`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module, got {type(model).__name__}")
    try:
        from sdas_kernels.integrations import e3nn_classes as classes
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "e3nn":
            raise
        raise ImportError("accelerate: e3nn is not installed, and without it there is no e3nn model") from error
    swaps: list[tuple[type, Callable[[Any, str, torch.dtype], str]]] = [
        (classes.o3.TensorProduct, _swap_tensor_product),
        (classes.o3.Linear, _swap_linear),
        (classes.o3.SphericalHarmonics, partial(_swap_spherical_harmonics, classes)),
    ]
    device, dtype = _place(model)
    report = Report()
    for name, module in list(_modules(model)):
        kind = type(module).__name__
        try:
            if isinstance(module, torch.jit.ScriptModule):
                kind = module.original_name
                raise _Left("compiled by TorchScript, inside which nothing can be swapped")
            swap = next((function for base, function in swaps if isinstance(module, base)), None)
            if swap is not None:
                report.swapped.append(Change(name, kind, swap(module, device, dtype)))
            elif isinstance(module, classes.CodeGenMixin):
                raise _Left("no kernel for it")
        except _Left as reason:
            report.left.append(Change(name, kind, str(reason)))
    for name, module in list(_modules(model)):
        if can_fuse_convolution(module) and _is_swapped_product(classes, module.conv_tp):
            module.conv_tp.__class__ = classes.TensorProductConv
            fuse_convolution(module)
            what = f"its convolution: {_check_backend('tensor_product_conv', device, dtype)}"
            report.swapped.append(Change(name, type(module).__name__, what))
    return report


def _is_swapped_product(classes: Any, module: Any) -> bool:
    """Whether it is e3nn's own tensor product, run by this library, with a weight for each sample."""
    code = getattr(module, "_compiled_main_left_right", None)
    own = type(module) is classes.o3.TensorProduct and "forward" not in vars(module)
    return own and isinstance(code, CompiledTensorProduct) and not module.shared_weights


def _modules(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module but those inside generated code or TorchScript."""
    yield name or "(model)", model
    if isinstance(model, torch.jit.ScriptModule):
        return
    generated = set(getattr(model, "__codegen__", ()))
    for child_name, child in model.named_children():
        if child_name not in generated and not isinstance(child, Compiled):
            yield from _modules(child, f"{name}.{child_name}" if name else child_name)


def _place(model: nn.Module) -> tuple[str, torch.dtype]:
    """Device and dtype in which a model runs: those of its first floating parameter or buffer."""
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            return tensor.device.type, tensor.dtype
    return "cpu", torch.get_default_dtype()


def _check_backend(op: str, device: str, dtype: torch.dtype) -> str:
    """The backend that `op` would run by; a module is left where it is the reference, which is not faster."""
    backend = backend_name(op, device, dtype)
    if backend == "reference":
        raise _Left(f"{op} has no kernel for {device} tensors of {str(dtype).removeprefix('torch.')}")
    return f"{op} ({backend})"


def _generated(module: Any, name: str) -> nn.Module:
    """The submodule of generated code that is to be replaced."""
    code = getattr(module, name, None)
    if isinstance(code, Compiled):
        raise _Left("already swapped")
    if not isinstance(code, nn.Module) or name not in getattr(module, "__codegen__", ()):
        raise _Left(f"it has no generated code {name}")
    return code


def _exchange(module: Any, name: str, code: Compiled) -> None:
    """Put our code in the place of e3nn's, which pickles generated code in a way of its own."""
    setattr(module, name, code)
    module.__codegen__ = [generated for generated in module.__codegen__ if generated != name]


def _swap_tensor_product(module: Any, device: str, dtype: torch.dtype) -> str:
    name = "_compiled_main_left_right"
    code = _generated(module, name)
    what = _check_backend("tensor_product", device, dtype)
    try:
        spec = tensor_product_spec(module)
    except ValueError as error:
        raise _Left(str(error)) from error
    _exchange(module, name, CompiledTensorProduct(spec, code))
    return what


def _swap_linear(module: Any, device: str, dtype: torch.dtype) -> str:
    name = "_compiled_main"
    code = _generated(module, name)
    if not module.shared_weights:
        raise _Left("each sample brings its own weight")
    if module.weight.ndim > 1:
        raise _Left("it has axes f_in and f_out")
    paths = [LinearPath(i.i_in, i.i_out, i.path_weight) for i in module.instructions if i.i_in != -1]
    biases = [i.i_out for i in module.instructions if i.i_in == -1]
    irreps = Irreps(module.irreps_in), Irreps(module.irreps_out)
    _exchange(module, name, CompiledLinear(*irreps, paths, biases, code))
    return "matrix products of PyTorch"


def _swap_spherical_harmonics(classes: Any, module: Any, device: str, dtype: torch.dtype) -> str:
    if type(module) is classes.SphericalHarmonics:
        raise _Left("already swapped")
    if type(module) is not classes.o3.SphericalHarmonics:
        raise _Left("a subclass with a forward of its own")
    if module._lmax > LMAX:
        raise _Left(f"degree {module._lmax}; the kernels go up to {LMAX}")
    what = _check_backend("spherical_harmonics", device, dtype)
    module.__class__ = classes.SphericalHarmonics
    return what
