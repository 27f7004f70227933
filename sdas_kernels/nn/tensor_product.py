"""Tensor products as modules, with the arguments, defaults, weight order and state dict of e3nn's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod, sqrt
from typing import Any

import torch
from torch import nn

from sdas_kernels.arguments import dense_tensor
from sdas_kernels.clebsch_gordan import VERSION
from sdas_kernels.irreps import Irrep, Irreps, MulIrrep, layout_name, to_layout
from sdas_kernels.nn.meaning import WithMeaning
from sdas_kernels.ops.tensor_product import MODES, Instruction, TensorProductSpec, tensor_product

_COUPLING = re.compile(r"_w3j_(\d+)_(\d+)_(\d+)$")  # a coupling in a state dict of e3nn's generated code


class TensorProduct(WithMeaning):
    """Tensor product along chosen paths, a drop-in for `e3nn.o3.TensorProduct`.

        z_out = Σ_paths a (W x_in1 ⊗ y_in2)_out,     a² = path_weight · out_var[i_out] · n / s

    where n normalizes the coupling tensor and s counts what is summed, N being the products summed into a component:

        irrep_normalization   "component": n = 2 l_out + 1   "norm": n = (2 l_in1 + 1)(2 l_in2 + 1)   "none": n = 1
        path_normalization    "element": s = Σ_{paths to i_out} in1_var in2_var N
                              "path": s = in1_var in2_var N · (number of paths to i_out)               "none": s = 1

    Args:
        irreps_in1, irreps_in2, irreps_out: anything that `Irreps` takes.
        instructions: paths `(i_in1, i_in2, i_out, connection_mode, has_weight[, path_weight])`; the modes are those of
            `sdas_kernels.ops.tensor_product`.
        in1_var, in2_var, out_var: variance per entry of the irreps, one by default.
        irrep_normalization: "component" (default), "norm" or "none".
        path_normalization: "element" (default), "path" or "none".
        internal_weights: whether the module holds the weight as a parameter; by default if it is shared.
        shared_weights: whether one weight serves the whole batch (default) or each sample brings its own.
        normalization: older name of `irrep_normalization`.
        compile_left_right, compile_right, _specialized_code, _optimize_einsums: choices of e3nn's code generator,
            accepted and without effect; there is no method `right`.

        layout: in which features come and go, "mul_ir" (default) or "ir_mul", by name or as cuequivariance's object.
            Kernels work on `mul_ir`; the other is transposed on its way in and out. Weights are e3nn's in both.

    `weight [weight_numel]` is a parameter drawn from N(0, 1) if the weights are internal, else an empty buffer;
    `output_mask [irreps_out.dim]` is 1 where a path leads. A state dict of e3nn's module loads; one of other irreps or
    paths is refused as far as it tells them. Raises `ValueError` for arguments that contradict one another.
    """

    weight: torch.Tensor
    output_mask: torch.Tensor

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        instructions: Iterable[Sequence[Any]],
        in1_var: Sequence[float] | torch.Tensor | None = None,
        in2_var: Sequence[float] | torch.Tensor | None = None,
        out_var: Sequence[float] | torch.Tensor | None = None,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        internal_weights: bool | None = None,
        shared_weights: bool | None = None,
        compile_left_right: bool = True,
        compile_right: bool = False,
        normalization: str | None = None,
        _specialized_code: bool | None = None,
        _optimize_einsums: bool | None = None,
        layout: Any = "mul_ir",
    ) -> None:
        super().__init__()
        self.layout = layout_name(layout)
        if self.layout == "rows":
            raise ValueError("TensorProduct: layout 'rows': choose mul_ir or ir_mul")
        irreps = (Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out))
        variances = [
            _variances(name, var, entries)
            for name, var, entries in zip(("in1", "in2", "out"), (in1_var, in2_var, out_var), irreps, strict=True)
        ]
        paths = [(*path, 1.0) if len(path) == 5 else tuple(path) for path in instructions]
        unscaled = TensorProductSpec.of(*irreps, paths)
        factors = _path_factors(
            unscaled, variances, normalization or irrep_normalization or "component", path_normalization or "element"
        )
        self.spec = TensorProductSpec.of(
            *irreps, [(*path[:5], factor) for path, factor in zip(unscaled.instructions, factors, strict=True)]
        )
        if shared_weights is False and internal_weights:
            raise ValueError("TensorProduct: internal_weights=True needs shared_weights=True")
        self.shared_weights = shared_weights is not False
        if internal_weights is None:
            internal_weights = self.shared_weights and any(path.has_weight for path in self.instructions)
        self.internal_weights = internal_weights
        self.weight_numel = self.spec.weight_numel
        if internal_weights and self.weight_numel > 0:
            self.weight = nn.Parameter(torch.randn(self.weight_numel))
        else:
            self.register_buffer("weight", torch.empty(0))
        self.register_buffer("output_mask", _output_mask(self.spec))
        self.register_load_state_dict_pre_hook(_compare_with_e3nn)

    def meaning(self) -> dict[str, Any]:
        """Irreps and paths, whose factors stand to six digits, and the version of the coefficients."""
        irreps = {name: str(getattr(self, name)) for name in ("irreps_in1", "irreps_in2", "irreps_out")}
        paths = [f"{tuple(path[:4])} {path.path_weight:.6g}" for path in self.instructions]
        return {**irreps, "paths": paths, "clebsch_gordan": VERSION}

    @property
    def irreps_in1(self) -> Irreps:
        """Irreps of x."""
        return self.spec.irreps_in1

    @property
    def irreps_in2(self) -> Irreps:
        """Irreps of y."""
        return self.spec.irreps_in2

    @property
    def irreps_out(self) -> Irreps:
        """Irreps of the output."""
        return self.spec.irreps_out

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The paths; their `path_weight` is the factor a, normalization included."""
        return self.spec.instructions

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """`[.., irreps_in1.dim]`, `[.., irreps_in2.dim]` -> `[.., irreps_out.dim]`; leading axes broadcast.

        `weight` takes the place of the internal one: `[weight_numel]`, or `[.., weight_numel]` without
        `shared_weights`, or a list of tensors `[.., *path_shape]`, one for each path that has a weight. Raises
        `ValueError` where a shape does not fit or a weight is missing.
        """
        x, y = self._from_layout(x, y)
        return self._to_layout(broadcast_tensor_product(x, y, self._flat_weight(weight), self.spec))

    def _from_layout(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The operands in the layout of the operator."""
        irreps = self.irreps_in1, self.irreps_in2
        x, y = (to_layout(t, i, self.layout, "mul_ir") for t, i in zip((x, y), irreps, strict=True))
        return x, y

    def _to_layout(self, z: torch.Tensor) -> torch.Tensor:
        """The result in the layout of the module."""
        return to_layout(z, self.irreps_out, "mul_ir", self.layout)

    def weight_views(
        self, weight: torch.Tensor | Sequence[torch.Tensor] | None = None, yield_instruction: bool = False
    ) -> Iterator[Any]:
        """The weight of each path that has one, `[.., *path_shape]`, views of the flat weight.

        With `yield_instruction`: tuples (number of the path, its `Instruction`, view).
        """
        flat = self._flat_weight(weight)
        for number, (path, where) in enumerate(zip(self.instructions, self.spec.weight_slices, strict=True)):
            if where is not None:
                view = flat[..., where].view(*flat.shape[:-1], *path.path_shape)
                yield (number, path, view) if yield_instruction else view

    def weight_view_for_instruction(
        self, instruction: int, weight: torch.Tensor | Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The weight of path number `instruction`. Raises `ValueError` if that path has none."""
        for number, _, view in self.weight_views(weight, yield_instruction=True):
            if number == instruction:
                return view
        raise ValueError(f"TensorProduct: instruction {instruction} has no weight")

    def _flat_weight(self, weight: torch.Tensor | Sequence[torch.Tensor] | None) -> torch.Tensor:
        """The weight in use, `[weight_numel]` or `[.., weight_numel]`."""
        if weight is None:
            if self.weight_numel and not self.internal_weights:
                raise ValueError("TensorProduct: weight is missing, since the module has no internal weights")
            return self.weight
        if isinstance(weight, (list, tuple)):
            weight = _joined_weights(weight, [path.path_shape for path in self.instructions if path.has_weight])
        dense_tensor("TensorProduct", "weight", weight)
        assert isinstance(weight, torch.Tensor)
        if weight.shape[-1:] != (self.weight_numel,) or (weight.ndim == 1) != self.shared_weights:
            wanted = f"[{self.weight_numel}]" if self.shared_weights else f"[.., {self.weight_numel}]"
            raise ValueError(f"TensorProduct: weight must be {wanted}, got {list(weight.shape)}")
        return weight

    def extra_repr(self) -> str:
        paths = sum(prod(path.path_shape) for path in self.instructions)
        irreps = f"{self.irreps_in1.simplify()} x {self.irreps_in2.simplify()} -> {self.irreps_out.simplify()}"
        return f"{irreps} | {paths} paths | {self.weight_numel} weights"


class FullyConnectedTensorProduct(TensorProduct):
    """Every allowed path, every multiplicity with every other ("uvw"): `e3nn.o3.FullyConnectedTensorProduct`.

    Arguments as in `TensorProduct`.
    """

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        in1, in2, out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
        paths = [
            (i_in1, i_in2, i_out, "uvw", True, 1.0)
            for i_in1, (_, ir1) in enumerate(in1)
            for i_in2, (_, ir2) in enumerate(in2)
            for i_out, (_, ir_out) in enumerate(out)
            if ir_out in ir1 * ir2
        ]
        super().__init__(
            in1,
            in2,
            out,
            paths,
            irrep_normalization=irrep_normalization,
            path_normalization=path_normalization,
            **kwargs,
        )


class FullTensorProduct(TensorProduct):
    """The whole product z_uv = x_u ⊗ y_v, without weights: `e3nn.o3.FullTensorProduct`.

    `filter_ir_out` keeps only the irreps it lists; the output is sorted. Other arguments as in `TensorProduct`.
    """

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        in1, in2 = Irreps(irreps_in1).simplify(), Irreps(irreps_in2).simplify()
        keep = None if filter_ir_out is None else [Irrep(ir) for ir in filter_ir_out]
        ends = [
            (i_in1, i_in2, MulIrrep(mul1 * mul2, ir))
            for i_in1, (mul1, ir1) in enumerate(in1)
            for i_in2, (mul2, ir2) in enumerate(in2)
            for ir in ir1 * ir2
            if keep is None or ir in keep
        ]
        out, place = Irreps([entry for _, _, entry in ends]).sort()
        paths = [(i_in1, i_in2, place[i], "uvuv", False) for i, (i_in1, i_in2, _) in enumerate(ends)]
        super().__init__(in1, in2, out, paths, irrep_normalization=irrep_normalization, **kwargs)


class ElementwiseTensorProduct(TensorProduct):
    """The product of the inputs irrep by irrep, z_u = x_u ⊗ y_u, without weights: `e3nn.o3.ElementwiseTensorProduct`.

    `filter_ir_out` keeps only the irreps it lists. Other arguments as in `TensorProduct`. Raises `ValueError` unless
    both inputs have the same number of irreps.
    """

    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        **kwargs: Any,
    ) -> None:
        in1, in2 = _split_alike(Irreps(irreps_in1).simplify(), Irreps(irreps_in2).simplify())
        keep = None if filter_ir_out is None else [Irrep(ir) for ir in filter_ir_out]
        ends = [
            (i, MulIrrep(mul, ir))
            for i, ((mul, ir1), (_, ir2)) in enumerate(zip(in1, in2, strict=True))
            for ir in ir1 * ir2
            if keep is None or ir in keep
        ]
        out = Irreps([entry for _, entry in ends])
        paths = [(i, i, i_out, "uuu", False) for i_out, (i, _) in enumerate(ends)]
        super().__init__(in1, in2, out, paths, irrep_normalization=irrep_normalization, **kwargs)


def _joined_weights(weights: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Of weights `[.., *shape]`, one for each path, `[.., weight_numel]`."""
    if len(weights) != len(shapes):
        raise ValueError(f"TensorProduct: weight must be {len(shapes)} tensors, one per path, got {len(weights)}")
    flat = []
    for number, (weight, shape) in enumerate(zip(weights, shapes, strict=True)):
        dense_tensor("TensorProduct", f"weight[{number}]", weight)
        leading = weight.ndim - len(shape)
        if leading < 0 or weight.shape[leading:] != shape:
            raise ValueError(f"TensorProduct: weight[{number}] must be [.., {shape}], got {list(weight.shape)}")
        flat.append(weight.reshape(*weight.shape[:leading], prod(shape)))
    return torch.cat(flat, -1)


def broadcast_tensor_product(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, spec: TensorProductSpec
) -> torch.Tensor:
    """`tensor_product` of `[.., dim1]`, `[.., dim2]` and `[numel]` or `[.., numel]`, whose leading axes broadcast."""
    operands = {"x": x, "y": y, "weight": weight}
    for name, operand in operands.items():
        dense_tensor("tensor_product", name, operand)
        if not operand.ndim:
            raise ValueError(f"tensor_product: {name} must have at least one axis, got a single number")
    try:
        leading = torch.broadcast_shapes(*(operand.shape[:-1] for operand in operands.values()))
    except RuntimeError:
        shapes = ", ".join(str(list(operand.shape)) for operand in operands.values())
        raise ValueError(f"tensor_product: leading axes of x, y and weight must broadcast, got {shapes}") from None
    batch = prod(leading)  # a size of -1 would be ambiguous for irreps of no components
    x = x.expand(*leading, x.shape[-1]).reshape(batch, x.shape[-1])
    y = y.expand(*leading, y.shape[-1]).reshape(batch, y.shape[-1])
    if weight.ndim > 1:
        weight = weight.expand(*leading, weight.shape[-1]).reshape(batch, weight.shape[-1])
    return tensor_product(x, y, weight, spec).reshape(*leading, spec.dims[2])


def _split_alike(first: Irreps, second: Irreps) -> tuple[Irreps, Irreps]:
    """Split entries so that both have the same multiplicities in the same order."""
    if first.num_irreps != second.num_irreps:
        raise ValueError(f"ElementwiseTensorProduct: {first} and {second} have different numbers of irreps")
    ends = sorted({end for irreps in (first, second) for end in _ends(irreps)})
    split = []
    for irreps in (first, second):
        bounds, entries, start = _ends(irreps), [], 0
        for end in ends:
            owner = next(i for i, bound in enumerate(bounds) if bound >= end)
            entries.append(MulIrrep(end - start, irreps[owner].ir))
            start = end
        split.append(Irreps(entries))
    return split[0], split[1]


def _ends(irreps: Irreps) -> list[int]:
    """Number of irreps up to the end of each entry."""
    return [sum(entry.mul for entry in irreps[: i + 1]) for i in range(len(irreps))]


def _variances(name: str, given: Sequence[float] | torch.Tensor | None, irreps: Irreps) -> list[float]:
    if given is None:
        return [1.0] * len(irreps)
    if len(given) != len(irreps):
        raise ValueError(f"TensorProduct: {name}_var has {len(given)} values for {len(irreps)} entries of {irreps}")
    return [float(variance) for variance in given]


def _path_factors(
    spec: TensorProductSpec, variances: list[list[float]], irrep_normalization: str, path_normalization: str
) -> list[float]:
    """The factor a of every path, from the formula in `TensorProduct`; `spec` holds the path weights as given."""
    if irrep_normalization not in ("component", "norm", "none"):
        raise ValueError(f"TensorProduct: irrep_normalization {irrep_normalization!r}: component, norm or none")
    if path_normalization not in ("element", "path", "none"):
        raise ValueError(f"TensorProduct: path_normalization {path_normalization!r}: element, path or none")
    in1_var, in2_var, out_var = variances

    def summed(path: Instruction) -> float:
        (mul1, _), (mul2, _), _ = spec.entries(path)
        return in1_var[path.i_in1] * in2_var[path.i_in2] * MODES[path.connection_mode].summands(mul1, mul2)

    factors = []
    for path in spec.instructions:
        (_, ir1), (_, ir2), (_, ir_out) = spec.entries(path)
        squared = {"component": ir_out.dim, "norm": ir1.dim * ir2.dim, "none": 1}[irrep_normalization]
        alike = [other for other in spec.instructions if other.i_out == path.i_out]
        count = {
            "element": sum(summed(other) for other in alike),
            "path": summed(path) * len(alike),
            "none": 1.0,
        }[path_normalization]
        factors.append(sqrt(path.path_weight * out_var[path.i_out] * squared / (count if count > 0 else 1.0)))
    return factors


def _compare_with_e3nn(module: TensorProduct, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Refuse another module's outputs and couplings; leave out the couplings of e3nn's code, which are constants."""
    generated = [key for key in state_dict if key.startswith(f"{prefix}_compiled_main_")]
    named = {tuple(map(int, found.groups())) for key in generated if (found := _COUPLING.search(key))}
    own = {tuple(ir.l for _, ir in module.spec.entries(path)) for path in module.instructions}
    mask = state_dict.get(f"{prefix}output_mask", module.output_mask)
    other_outputs = mask.shape == module.output_mask.shape and mask.tolist() != module.output_mask.tolist()
    if other_outputs or not named <= own:
        what = "outputs that its paths reach" if other_outputs else f"couplings of degrees {sorted(named - own)}"
        raise RuntimeError(f"{type(module).__name__}: the state dict at {prefix!r} is of a module with other {what}")
    for key in generated:
        del state_dict[key]


def _output_mask(spec: TensorProductSpec) -> torch.Tensor:
    reached = {path.i_out for path in spec.instructions if path.path_weight != 0 and 0 not in path.path_shape}
    parts = [torch.full((entry.dim,), float(i in reached)) for i, entry in enumerate(spec.irreps_out)]
    return torch.cat(parts) if parts else torch.ones(0)
