"""The SDAS potential as compiled graphs: energy and its gradient traced together, so that training compiles too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from sdas_kernels.autocast import in_operand_dtype
from sdas_kernels.electronic_states import of_systems
from sdas_kernels.fused_sdas import flat
from sdas_kernels.graph import EdgeIndex, NeighborGraph
from sdas_kernels.nn.derivatives import differentiate, evaluate, volumes_of
from sdas_kernels.nn.fused import layer_weights
from sdas_kernels.nn.inference import recordable, recording_allowed
from sdas_kernels.nn.sdas import SDAS, check_model
from sdas_kernels.transforms import transformed

# Sizes of the graph that is traced: neither 0 nor 1, nor the size of anything in a model.
_ATOMS, _EDGES, _SYSTEMS = 10007, 20011, 5003


class CompiledPotential:
    """Runs an `SDAS` model as compiled graphs, for any number of atoms and edges, and gives the same numbers.

        compiled = CompiledPotential(model)     # the weights stay the model's, and so does the state dict
        compiled(graph)["forces"]               # as model(graph)["forces"]

    `torch.compile` cannot differentiate a compiled graph twice (pytorch#91469), as a loss of forces needs. So `make_fx`
    traces energy and forces into one graph of plain operators, and the compiler differentiates that once. The operators
    of this library are single nodes of the graph and choose their backend when they run: `use_backend` works as ever.

    A graph is traced and compiled when it is first needed: one each for training and evaluation, with stress and
    without, periodic or not, per dtype and device. It serves every number of atoms, edges and systems. Energies alone,
    graphs without edges, and calls under `torch.func` or forward derivatives are left to the model. Where one kernel
    runs the whole model, as on a CPU by default, nothing is traced for evaluation: that kernel is called at once,
    without the model's look at its own modules.

    Args:
        model: its parameters and buffers are read at every call, `model.train()` and `model.eval()` set the mode.
            After a change of its structure, make a new `CompiledPotential`. One of a subclass with a `forward` of its
            own is refused.
        backend: as of `torch.compile`. "inductor" generates code, on a CPU by a C++ compiler that must be there, which
            takes about a minute per graph; "aot_eager" captures the graph and its gradient only; "eager" runs the
            graph as it was traced. Or a function `(graph, example_inputs) -> callable`.

    Differences to the model: its hooks, and those of the modules inside it, do not run. Except by "eager", a result can
    be differentiated once, without `retain_graph` or `create_graph`.
    """

    def __init__(self, model: SDAS, backend: str | Callable[..., Any] = "inductor") -> None:
        check_model("CompiledPotential", model)
        self.model, self.backend = model, backend
        self._graphs: dict[tuple[Any, ...], Callable[..., Sequence[torch.Tensor]]] = {}
        # where each tensor of the model lies: looked up at each call, as model.to() may put another there
        self._state = list(_tensor_places(model))
        layers = layer_weights(model)
        places = {id(table[key]): (table, key) for _, table, key in self._state}
        whole = [] if layers is None else flat(model.embedding.weight, layers)
        self._whole = [places[id(weight)] for weight in whole]

    @in_operand_dtype
    def __call__(self, batch: NeighborGraph, forces: bool = True, stress: bool = False) -> dict[str, torch.Tensor]:
        """As `SDAS.forward`. Raises what that raises, and `RuntimeError` where compilation fails."""
        model = self.model
        if not (forces or stress) or not (isinstance(batch, NeighborGraph) and batch.num_edges) or transformed():
            return model(batch, forces, stress)
        again = (model.training or batch.positions.requires_grad) and not torch.is_inference_mode_enabled()
        if self._whole and not again:
            model._check_graph(batch)
            evaluated = evaluate(model, batch, [table[key] for table, key in self._whole], stress)
            if evaluated is not None:
                return evaluated if forces else {name: evaluated[name] for name in ("energy", "stress")}
        with recording_allowed():
            found = self._by_graph(recordable(batch), again, stress)
        return found if forces else {name: found[name] for name in ("energy", "stress")}

    def _by_graph(self, batch: NeighborGraph, again: bool, stress: bool) -> dict[str, torch.Tensor]:
        """What the model returns, by the graph for its kind of call."""
        model = self.model
        kinds = model._check(batch)
        tensors = [*batch.edges.tensors(), batch.positions, batch.numbers, batch.cell_shifts, batch.cells]
        tensors += [batch.pbc, batch.system, kinds, of_systems("charge", batch), of_systems("spin", batch)]
        tensors += [volumes_of(batch.cells)] if stress else []
        inputs = [*(table[key] for _, table, key in self._state), *(tensor.contiguous() for tensor in tensors)]
        differentiable = tuple(tensor.requires_grad for tensor in inputs) if again else ()
        kind = (again, stress, batch.periodic, batch.dtype, batch.device, differentiable)
        with torch.set_grad_enabled(again):
            if kind not in self._graphs:
                self._graphs[kind] = self._compile(inputs, again, stress, batch.periodic)
            return dict(zip(("energy", "forces", "stress"), self._graphs[kind](*inputs), strict=False))

    def _compile(
        self, inputs: list[torch.Tensor], again: bool, stress: bool, periodic: bool
    ) -> Callable[..., Sequence[torch.Tensor]]:
        """The graph for inputs like these; gradients are enabled or not as they will be when it runs."""
        from torch._dynamo import lookup_backend
        from torch._guards import TracingContext, tracing

        names = [name for name, _, _ in self._state]
        traced, symbolic = _trace(_Derivatives(self.model, names, again, stress, periodic), inputs)
        if self.backend == "eager":
            return traced
        mode = symbolic[0].fake_mode
        with mode:
            examples = [
                like.detach().requires_grad_(again and tensor.requires_grad)
                for like, tensor in zip(symbolic, inputs, strict=True)
            ]
        compiler = lookup_backend(self.backend) if isinstance(self.backend, str) else self.backend
        with tracing(TracingContext(mode)):
            try:
                if self.backend == "inductor" and inputs[0].device.type == "cpu":
                    _find_cpp_compiler()
                return compiler(traced, examples)
            except Exception as error:
                raise RuntimeError(
                    f"CompiledPotential: backend {self.backend!r} cannot compile the model: {error}\n"
                    '"inductor" needs a C++ compiler for the CPU (g++ or clang++ in PATH, or its path in the '
                    'environment variable CXX) and Triton for a GPU; "aot_eager" and "eager" need neither'
                ) from error


def _find_cpp_compiler() -> None:
    """Raise now where there is none: the generation of code that is in vain takes long."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    get_cpp_compiler()


def _tensor_places(model: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name of every parameter and buffer, and the table and key by which its module holds it."""
    for path, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield f"{path}.{key}" if path else key, table, key


class _Derivatives(nn.Module):
    """`differentiate` as a function of plain tensors: those of the model by `names`, then those of the graph."""

    def __init__(self, model: SDAS, names: list[str], again: bool, stress: bool, periodic: bool) -> None:
        super().__init__()
        self.model, self.names, self.again, self.stress, self.periodic = model, names, again, stress, periodic

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        receivers, senders, row_ptr, sender_order, sender_ptr, positions, numbers, *rest = tensors
        cell_shifts, cells, pbc, system, kinds, charge, spin, *volumes = rest
        graph = NeighborGraph.of_checked(
            positions=positions,
            numbers=numbers,
            edges=EdgeIndex.of_checked(receivers, senders, row_ptr, sender_order, sender_ptr),
            cell_shifts=cell_shifts,
            cells=cells,
            pbc=pbc,
            system=system,
            cutoff=self.model.cutoff,
            periodic=self.periodic,
            charge=charge,
            spin=spin,
        )
        given = volumes[0] if self.stress else None
        found = differentiate(self.model, graph, positions.requires_grad_(), kinds, given, create_graph=self.again)
        return tuple(found.values())

    def joint(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = {f"model.{name}": tensor for name, tensor in zip(self.names, inputs, strict=False)}
        with torch.enable_grad():
            return functional_call(self, state, inputs[len(state) :])


def _trace(module: _Derivatives, inputs: list[torch.Tensor]) -> tuple[torch.fx.GraphModule, list[Any]]:
    """One graph of plain operators, symbolic in atoms, edges and systems; and the symbolic inputs it was made with."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch._dynamo.source import ConstantSource
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
        is_concrete_int,
    )

    mode = FakeTensorMode(shape_env=ShapeEnv())

    def symbolic(index: int, tensor: torch.Tensor, rows: int) -> Any:
        sizes = [DimDynamic.DUCK] + [DimDynamic.STATIC] * (tensor.ndim - 1)
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        example = tensor.new_empty(rows, *tensor.shape[1:])
        return mode.from_tensor(example, symbolic_context=context, source=ConstantSource(f"graph{index}"))

    count = len(module.names)
    rows = [_EDGES, _EDGES, _ATOMS + 1, _EDGES, _ATOMS + 1, _ATOMS, _ATOMS, _EDGES, _SYSTEMS, _SYSTEMS, _ATOMS, _ATOMS]
    rows += [_SYSTEMS] * (2 + module.stress)
    fakes = [mode.from_tensor(tensor.detach(), static_shapes=True) for tensor in inputs[:count]]
    fakes += [symbolic(*one) for one in zip(range(len(rows)), inputs[count:], rows, strict=True)]
    with mode, enable_python_dispatcher():
        traced = make_fx(module.joint)(*fakes)
    if any(is_concrete_int(fake.shape[0]) for fake in fakes[count:]):
        raise RuntimeError("CompiledPotential: the model takes the number of atoms, edges or systems for a constant")
    for node in list(traced.graph.nodes):
        # put there by the tracer around what the inner backward saved; it would cut the second derivative
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.recompile()
    return traced, fakes
