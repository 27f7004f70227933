"""accelerate(model): the same numbers and the same state dict, and a report that tells the truth."""

from __future__ import annotations

import copy
import importlib.util
import io
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from e3nn import o3

from sdas_kernels import integrations, use_backend
from sdas_kernels.integrations.compiled import Compiled
from sdas_kernels.integrations.e3nn import accelerate

_spec = importlib.util.spec_from_file_location("e3nn_models", Path(__file__).with_name("e3nn_models.py"))
assert _spec is not None
assert _spec.loader is not None
models = importlib.util.module_from_spec(_spec)
sys.modules["e3nn_models"] = models  # so that the models can be pickled
_spec.loader.exec_module(models)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.fixture(params=TOLERANCE, autouse=True)
def dtype(request):
    """e3nn makes its constants in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@cache
def built(name, dtype):
    """Built once, as e3nn takes its time to generate code; a copy, as e3nn's copies have further keys."""
    torch.manual_seed(0)
    return copy.deepcopy(models.MODELS[name]())


@pytest.fixture(params=models.MODELS)
def theirs(request, dtype):
    return copy.deepcopy(built(request.param, dtype))


def assert_close(ours, wanted, tolerance):
    assert (ours - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_energies_forces_and_parameter_gradients_are_the_same(theirs, dtype):
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    given = models.inputs()
    for a, b in zip(models.energy_and_forces(ours, *given), models.energy_and_forces(theirs, *given), strict=True):
        assert_close(a, b, TOLERANCE[dtype])
    gradients = models.parameter_gradients(ours, *given)
    for name, wanted in models.parameter_gradients(theirs, *given).items():
        assert_close(gradients[name], wanted, TOLERANCE[dtype])


def test_under_autocast_only_linear_layers_round(theirs, dtype):
    """They and radial networks give bfloat16; the operators that take from them compute in the dtype of positions."""
    given = models.inputs()
    wanted = models.energy_and_forces(theirs, *given)
    accelerate(theirs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = models.energy_and_forces(theirs, *given)
    for rounded, exact in zip(found, wanted, strict=True):
        assert (rounded - exact).norm() < 0.05 * exact.norm()
        assert rounded.dtype == exact.dtype


def test_every_supported_module_is_swapped_and_runs_by_a_kernel(theirs):
    supported = (o3.TensorProduct, o3.Linear, o3.SphericalHarmonics)
    names = {name for name, module in theirs.named_modules() if isinstance(module, supported)}
    blocks = {name for name, module in theirs.named_modules() if isinstance(module, models.FusingInteraction)}
    report = accelerate(theirs)
    assert {change.module for change in report.swapped} == names | blocks
    assert {change.kind for change in report.left} <= {"Extract"}, "a cut of e3nn's gate, which is no arithmetic"
    assert all("(cpp)" in change.what or "matrix" in change.what for change in report.swapped)
    calls = []
    for name, module in theirs.named_modules():
        if isinstance(module, Compiled):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    theirs(*models.inputs())
    fused = {f"{block}.conv_tp" for block in blocks}
    assert {call.rpartition(".")[0] for call in calls} == names - {"harmonics"} - fused


def test_the_state_dict_passes_both_ways(theirs):
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    before, after = theirs.state_dict(), ours.state_dict()
    assert list(before) == list(after)
    assert any("_w3j_" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    given = models.inputs()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs(*given), ours(*given))
    theirs.load_state_dict(before)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(theirs(*given), ours(*given))


def test_parameters_stay_the_same_objects(theirs):
    before = dict(theirs.named_parameters())
    accelerate(theirs)
    after = dict(theirs.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


def test_copies_and_pickles(theirs):
    accelerate(theirs)
    file = io.BytesIO()
    torch.save(theirs, file)
    file.seek(0)
    given = models.inputs()
    for other in (copy.deepcopy(theirs), torch.load(file, weights_only=False)):
        assert torch.equal(other(*given), theirs(*given))
        assert sum(isinstance(module, Compiled) for module in other.modules()) > 5
        assert type(other.harmonics) is type(theirs.harmonics) is not o3.SphericalHarmonics


def test_a_second_call_changes_nothing(theirs):
    swapped = accelerate(theirs).swapped
    again = accelerate(theirs)
    assert again.swapped == []
    found = [change.module for change in again.left if change.what == "already swapped"]
    assert found == [change.module for change in swapped if change.kind != "FusingInteraction"]


def test_fused_blocks_take_edges_in_any_order_and_notice_new_ones(dtype):
    theirs = copy.deepcopy(built("MACE", dtype))
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    positions, species, pairs = models.inputs()
    by_receiver = pairs[:, torch.argsort(pairs[1])]
    for edges in (pairs, by_receiver, by_receiver.clone(), pairs[:, 5:]):
        assert_close(ours(positions, species, edges), theirs(positions, species, edges), TOLERANCE[dtype])
    by_receiver[0, 3] = by_receiver[0, 7]  # in place: what was remembered of these edges no longer holds
    assert_close(ours(positions, species, by_receiver), theirs(positions, species, by_receiver), TOLERANCE[dtype])


def test_fused_blocks_take_edges_of_any_integers_and_refuse_those_of_no_atom(dtype):
    theirs = copy.deepcopy(built("MACE", dtype))
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    positions, species, pairs = models.inputs()
    strided = pairs.T.contiguous().T
    for edges in (pairs.int(), strided, strided.int()):
        assert_close(ours(positions, species, edges), theirs(positions, species, edges), TOLERANCE[dtype])
    product = next(module.conv_tp for module in ours.modules() if hasattr(module, "conv_fusion"))
    edges = torch.tensor([[1, 0], [0, 1]])
    operands = torch.randn(2, product.irreps_in1.dim), torch.randn(2, product.irreps_in2.dim)
    weight = torch.randn(2, product.weight_numel)
    product(*operands, weight, edges)
    edges[0, 0] = 10**9  # after it was used
    with pytest.raises(ValueError, match=r"senders must be 0\.\.1 for 2 nodes, got 1000000000"):
        product(*operands, weight, edges)


def test_a_block_with_an_unknown_argument_keeps_its_sum(dtype):
    class Interaction(models.FusingInteraction):
        def forward(self, node_attrs, node_feats, edge_attrs, edge_feats, edge_index, charges, conv_fusion=None):
            hasattr(self, "conv_fusion")

    block = Interaction(o3.Irreps("2x0e"), o3.Irreps("0e + 1o"), o3.Irreps("2x0e + 2x1o"))
    assert "Interaction" not in {change.kind for change in accelerate(block).swapped}


def test_no_atoms_and_no_edges(theirs, dtype):
    positions, species, pairs = models.inputs()
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    for given in ((positions, species, pairs[:, :0]), (positions[:0], species[:0], pairs[:, :0])):
        torch.testing.assert_close(ours(*given), theirs(*given), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_root_module_a_subclass_and_weights_of_every_kind(dtype):
    """A module that is itself the model, with its weights shared, given by the caller, and in a list."""

    class Halved(o3.FullyConnectedTensorProduct):
        def forward(self, x, y, weight=None):
            return super().forward(x, y, weight) / 2

    irreps = "3x0e + 2x1o", "2x0e + 1x1o", "2x0e + 3x1o"
    theirs = Halved(*irreps)
    ours = copy.deepcopy(theirs)
    assert accelerate(ours).swapped == [("(model)", "Halved", "tensor_product (cpp)")]
    x, y = theirs.irreps_in1.randn(2, 5, -1), theirs.irreps_in2.randn(5, -1)
    listed = [torch.randn_like(view) for view in theirs.weight_views()]
    for weight in (None, torch.randn(theirs.weight_numel), listed):
        torch.testing.assert_close(ours(x, y, weight), theirs(x, y, weight))


def test_linear_maps_of_every_form():
    """Several entries of one irrep, unsorted, some without a path, biases, given weights, chosen instructions."""
    cases = [
        (("3x0e + 2x0e + 2x1o + 4x0o", "2x0e + 3x1o + 1x0e + 2x2e"), {"biases": True}),
        (("2x1o + 3x0e + 1x1o", "3x1o + 2x0e"), {"biases": [False, True], "path_normalization": "path"}),
        (("3x0e + 2x0e", "3x0e + 2x0e"), {"instructions": [(1, 0), (0, 1), (1, 1)]}),
        (("0x0e + 2x1o", "2x1o + 0x0e + 3x0e"), {}),
        (("2x1o", "3x0e"), {}),
    ]
    for irreps, options in cases:
        theirs = o3.Linear(*irreps, **options)
        with torch.no_grad():
            theirs.bias.normal_()
        ours = copy.deepcopy(theirs)
        assert len(accelerate(ours).swapped) == 1
        for shape in ((4,), (2, 3), (), (0,)):
            x = theirs.irreps_in.randn(*shape, -1)
            torch.testing.assert_close(ours(x), theirs(x))
        if theirs.weight_numel and not theirs.bias_numel:
            weight = torch.randn(theirs.weight_numel)
            torch.testing.assert_close(ours(x, weight), theirs(x, weight))


def test_harmonics_of_every_form():
    for irreps, options in (("2e + 0e + 0e", {}), ([3, 1], {"normalization": "norm"}), (2, {"normalize": False})):
        theirs = o3.SphericalHarmonics(irreps, **{"normalize": True, **options})
        ours = copy.deepcopy(theirs)
        assert len(accelerate(ours).swapped) == 1
        assert isinstance(ours, o3.SphericalHarmonics)
        for shape in ((5,), (2, 3), (0,)):
            x = torch.randn(*shape, 3)
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def left(module):
    """Why it is left, as the only change."""
    before = list(module.state_dict())
    report = accelerate(module)
    assert report.swapped == []
    assert list(module.state_dict()) == before
    return [change.what for change in report.left]


def test_what_has_no_kernel_is_left_and_said():
    assert left(o3.Linear("2x1o", "2x1o", f_in=3, f_out=2)) == ["it has axes f_in and f_out"]
    assert left(o3.Linear("2x1o", "2x1o", shared_weights=False)) == ["each sample brings its own weight"]
    assert "degree 9" in left(o3.SphericalHarmonics([9], True))[0]
    (why,) = left(o3.FullyConnectedTensorProduct("1x9e", "1x0e", "1x9e"))
    assert "degrees go up to 8" in why
    assert left(o3.ReducedTensorProducts("ij=ji", i="1o"))[0] == "no kernel for it"

    class Own(o3.SphericalHarmonics):
        def forward(self, x):
            return 2 * super().forward(x)

    assert left(Own("1o", True)) == ["a subclass with a forward of its own"]


def test_without_a_kernel_for_the_dtype_modules_are_left(dtype):
    model = copy.deepcopy(built("MACE", dtype)).to(torch.bfloat16)
    report = accelerate(model)
    assert {change.kind for change in report.swapped} == {"Linear"}
    assert {c.what for c in report.left} == {
        "tensor_product has no kernel for cpu tensors of bfloat16",
        "spherical_harmonics has no kernel for cpu tensors of bfloat16",
    }
    with use_backend("reference"):
        assert "no kernel" in str(accelerate(copy.deepcopy(built("MACE", dtype))))


def test_scripted_modules_are_left():
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2)))
            self.linear = o3.Linear("2x0e", "2x0e")

    report = accelerate(Outer())
    assert [(change.module, change.kind) for change in report.left] == [("inside", "Sequential")]
    assert "TorchScript" in report.left[0].what
    assert [change.module for change in report.swapped] == ["linear"]


def test_the_report_prints_as_a_table(dtype):
    text = str(accelerate(copy.deepcopy(built("NequIP", dtype))))
    assert text.startswith("swapped (")
    assert "interactions.1.conv_tp" in text
    assert text.endswith("after.1.sc.cut  Extract  no kernel for it")


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="must be a torch"):
        accelerate({})


def test_without_e3nn_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "e3nn", None)
    monkeypatch.delitem(sys.modules, "sdas_kernels.integrations.e3nn_classes", raising=False)
    monkeypatch.delattr(integrations, "e3nn_classes", raising=False)
    with pytest.raises(ImportError, match="e3nn is not installed"):
        accelerate(torch.nn.Linear(2, 2))
