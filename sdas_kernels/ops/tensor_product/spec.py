"""What a tensor product computes: its irreps and its paths, as a hashable value and as a string.

The operators take the string, since a schema of `torch.library` holds no Python objects; a string survives compilation,
export and pickling. `parse` is cached, so a program pays for each specification once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

from sdas_kernels.clebsch_gordan import LMAX
from sdas_kernels.irreps import Irrep, Irreps


class _Mode(NamedTuple):
    """How one connection mode treats the multiplicities m1, m2 of the inputs and m3 of the output."""

    path_shape: Callable[[int, int, int], tuple[int, ...]]  # axes of the weight
    summands: Callable[[int, int], int]  # products that are summed into one output component
    fits: Callable[[int, int, int], bool]
    wanted: str  # `fits` in words
    weight_is_optional: bool = True


MODES = {
    "uvw": _Mode(lambda m1, m2, m3: (m1, m2, m3), lambda m1, m2: m1 * m2, lambda m1, m2, m3: True, "anything", False),
    "uvu": _Mode(lambda m1, m2, m3: (m1, m2), lambda m1, m2: m2, lambda m1, m2, m3: m3 == m1, "m3 = m1"),
    "uvv": _Mode(lambda m1, m2, m3: (m1, m2), lambda m1, m2: m1, lambda m1, m2, m3: m3 == m2, "m3 = m2"),
    "uuw": _Mode(lambda m1, m2, m3: (m1, m3), lambda m1, m2: m1, lambda m1, m2, m3: m1 == m2, "m1 = m2"),
    "uuu": _Mode(lambda m1, m2, m3: (m1,), lambda m1, m2: 1, lambda m1, m2, m3: m1 == m2 == m3, "m1 = m2 = m3"),
    "uvuv": _Mode(lambda m1, m2, m3: (m1, m2), lambda m1, m2: 1, lambda m1, m2, m3: m3 == m1 * m2, "m3 = m1 m2"),
    "uvu<v": _Mode(
        lambda m1, m2, m3: (m1 * (m2 - 1) // 2,),
        lambda m1, m2: 1,
        lambda m1, m2, m3: m1 == m2 and m3 == m1 * (m1 - 1) // 2,
        "m1 = m2 and m3 = m1 (m1 - 1) / 2",
    ),
    "u<vw": _Mode(
        lambda m1, m2, m3: (m1 * (m2 - 1) // 2, m3),
        lambda m1, m2: m1 * (m2 - 1) // 2,
        lambda m1, m2, m3: m1 == m2,
        "m1 = m2",
        False,
    ),
}


class Instruction(NamedTuple):
    """One path: entry `i_in1` of the first input times entry `i_in2` of the second, added to entry `i_out`.

    `path_weight` is the factor that multiplies the Clebsch–Gordan tensor; `path_shape` the shape of the learned weight
    (also given where `has_weight` is False: the weight is then ones).
    """

    i_in1: int
    i_in2: int
    i_out: int
    connection_mode: str
    has_weight: bool
    path_weight: float
    path_shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorProductSpec:
    """Irreps of both inputs and of the output, and the paths between them; immutable, hashable, picklable.

    `str(spec)` and `TensorProductSpec.parse` are inverse to each other, bit for bit. Raises `ValueError` for a path
    that the irreps do not allow.
    """

    irreps_in1: Irreps
    irreps_in2: Irreps
    irreps_out: Irreps
    instructions: tuple[Instruction, ...]

    # Made once, and not by properties: a compiler reads plain attributes only.
    dims: tuple[int, int, int] = field(init=False, repr=False, compare=False)  # components of in1, in2, out
    slices_in1: list[slice] = field(init=False, repr=False, compare=False)  # where the entries of each side lie
    slices_in2: list[slice] = field(init=False, repr=False, compare=False)
    slices_out: list[slice] = field(init=False, repr=False, compare=False)
    weight_slices: list[slice | None] = field(init=False, repr=False, compare=False)  # None: the path has no weight
    weight_numel: int = field(init=False, repr=False, compare=False)  # length of the flat weight
    text: str = field(init=False, repr=False, compare=False)  # what `str` gives

    @classmethod
    def of(
        cls,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        paths: list[tuple[int, int, int, str, bool, float]],
    ) -> TensorProductSpec:
        """From paths `(i_in1, i_in2, i_out, connection mode, has weight, factor)`."""
        instructions = []
        for i_in1, i_in2, i_out, mode, has_weight, factor in paths:
            if mode not in MODES:
                raise ValueError(f"tensor_product: connection mode {mode!r}: choose one of {', '.join(MODES)}")
            for name, i, irreps in (("in1", i_in1, irreps_in1), ("in2", i_in2, irreps_in2), ("out", i_out, irreps_out)):
                if not 0 <= i < len(irreps):
                    raise ValueError(f"tensor_product: path entry i_{name} = {i} is out of range for {irreps!r}")
            shape = MODES[mode].path_shape(irreps_in1[i_in1].mul, irreps_in2[i_in2].mul, irreps_out[i_out].mul)
            instructions.append(Instruction(i_in1, i_in2, i_out, mode, bool(has_weight), float(factor), shape))
        return cls(irreps_in1, irreps_in2, irreps_out, tuple(instructions))

    @staticmethod
    def parse(text: str) -> TensorProductSpec:
        """The specification that `str` gave."""
        return _parse(text)

    # What torch.compiler.assume_constant_result does, which would import the compiler: under torch.compile the result
    # counts, not how it was parsed.
    parse.__func__._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def __post_init__(self) -> None:
        for path in self.instructions:
            (m1, ir1), (m2, ir2), (m3, ir3) = self.entries(path)
            name = f"tensor_product: path {m1}x{ir1} * {m2}x{ir2} -> {m3}x{ir3} ({path.connection_mode})"
            if ir3 not in ir1 * ir2:
                raise ValueError(f"{name} breaks |l1 - l2| <= l3 <= l1 + l2 or p1 p2 = p3")
            if max(ir1.l, ir2.l, ir3.l) > LMAX:
                raise ValueError(f"{name}: degrees go up to {LMAX}")
            mode = MODES[path.connection_mode]
            if not mode.fits(m1, m2, m3):
                raise ValueError(f"{name}: the multiplicities must obey {mode.wanted}")
            if not path.has_weight and not mode.weight_is_optional:
                raise ValueError(f"{name} needs a weight")
            if not path.has_weight and path.connection_mode == "uuw" and m3 != 1:
                raise ValueError(f"{name} without a weight needs an output of multiplicity 1")
        numels = [prod(path.path_shape) if path.has_weight else 0 for path in self.instructions]
        stops = list(accumulate(numels, initial=0))
        rows = "|".join(
            f"{p.i_in1},{p.i_in2},{p.i_out},{p.connection_mode},{int(p.has_weight)},{p.path_weight!r}"
            for p in self.instructions
        )
        derived = {
            "dims": (self.irreps_in1.dim, self.irreps_in2.dim, self.irreps_out.dim),
            "slices_in1": self.irreps_in1.slices(),
            "slices_in2": self.irreps_in2.slices(),
            "slices_out": self.irreps_out.slices(),
            "weight_slices": [
                slice(*ends) if path.has_weight else None
                for path, ends in zip(self.instructions, pairwise(stops), strict=True)
            ],
            "weight_numel": stops[-1],
            "text": f"{self.irreps_in1};{self.irreps_in2};{self.irreps_out};{rows}",
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def entries(self, path: Instruction) -> tuple[tuple[int, Irrep], tuple[int, Irrep], tuple[int, Irrep]]:
        """Multiplicity and irrep of a path's two inputs and of its output."""
        return self.irreps_in1[path.i_in1], self.irreps_in2[path.i_in2], self.irreps_out[path.i_out]

    @cached_property
    def weighted(self) -> TensorProductSpec:
        """The same specification with only the paths that have a weight, the part that is linear in the weight."""
        paths = tuple(path for path in self.instructions if path.has_weight)
        return TensorProductSpec(self.irreps_in1, self.irreps_in2, self.irreps_out, paths)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=4096)
def _parse(text: str) -> TensorProductSpec:
    try:
        in1, in2, out, paths = text.split(";")
        rows = [row.split(",") for row in paths.split("|")] if paths else []
        parsed = [(int(a), int(b), int(c), mode, has == "1", float(factor)) for a, b, c, mode, has, factor in rows]
    except ValueError:
        raise ValueError(f"tensor_product: {text!r} is not the string of a TensorProductSpec") from None
    return TensorProductSpec.of(Irreps(in1), Irreps(in2), Irreps(out), parsed)
