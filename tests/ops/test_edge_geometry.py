"""Edge geometry: harmonics, radial basis and envelope of edge vectors as one operator."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from sdas_kernels.ops.edge_geometry import edge_geometry, reference
from sdas_kernels.ops.radial_basis import polynomial_envelope, radial_basis
from sdas_kernels.ops.spherical_harmonics import spherical_harmonics

OP = "edge_geometry"
F64 = torch.float64
CUTOFF = 4.5


def vectors(place="cpu", dtype=F64, count=25):
    """Of all directions, 0.3 Å long and longer, some beyond the cutoff."""
    drawn = torch.randn(count, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    return (drawn / drawn.norm(dim=1, keepdim=True) * torch.linspace(0.3, 5.0, count)[:, None]).to(place, dtype)


def joined(op, lmax, n, p=6):
    def call(vectors):
        harmonics, radial, envelope = op(vectors, lmax, n, CUTOFF, p)
        return torch.cat([harmonics, radial, envelope[:, None]], 1)

    return call


def test_is_the_three_functions(place):
    v = vectors(place)
    harmonics, radial, envelope = edge_geometry(v, 3, 5, CUTOFF, 7)
    lengths = v.norm(dim=1)
    torch.testing.assert_close(harmonics, spherical_harmonics(v, 3, True, "component"), rtol=0, atol=1e-14)
    torch.testing.assert_close(radial, radial_basis(lengths, 5, CUTOFF, 7), rtol=0, atol=1e-14)
    torch.testing.assert_close(envelope, polynomial_envelope(lengths, CUTOFF, 7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", [0, 1, 100])
@pytest.mark.parametrize(("lmax", "n"), [(0, 1), (2, 8), (4, 3)])
def test_derivative_ladder_is_autograds(place, graph_ops, lmax, n, count):
    o = {"vectors": vectors(place, count=count)}
    found = graph_ops.ladder(joined(edge_geometry, lmax, n), o)
    graph_ops.assert_ladders_agree(found, graph_ops.ladder(joined(reference.edge_geometry, lmax, n), o), 1e-10)


@pytest.mark.parametrize("one", range(3), ids=["harmonics", "radial", "envelope"])
def test_gradients_of_each_result_are_finite_differences(place, graph_ops, one):
    o = {"vectors": vectors(place, count=6)}
    graph_ops.check_gradients(lambda vectors: edge_geometry(vectors, 2, 3, CUTOFF)[one], o, "vectors")


def test_float32_is_close_to_float64(place, graph_ops):
    """Bound of the largest error over the largest entry: 1e-5, twice differentiated too."""
    o = vectors(place, torch.float32, 500)
    found = graph_ops.ladder(joined(edge_geometry, 3, 8), {"vectors": o})
    exact = graph_ops.ladder(joined(reference.edge_geometry, 3, 8), {"vectors": o.double()})
    assert found["value"].dtype == torch.float32
    graph_ops.assert_ladders_agree(found, exact, 1e-5)


def test_a_zero_vector_has_finite_values_and_zero_gradients(place, graph_ops):
    found = graph_ops.ladder(joined(edge_geometry, 2, 3), {"vectors": torch.zeros(2, 3, dtype=F64, device=place)})
    assert found["value"].isfinite().all()
    for name, rung in found.items():
        if name != "value":
            assert (rung == 0).all(), name


def test_non_contiguous_and_repeatable(place):
    v = vectors(place).T.contiguous().T
    assert not v.is_contiguous()
    for found, wanted in zip(edge_geometry(v, 2, 3, CUTOFF), edge_geometry(v.contiguous(), 2, 3, CUTOFF), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("count", [9, 0])
def test_opcheck(place, count):
    v = vectors(place, count=count).requires_grad_()
    grads = [torch.randn_like(t).requires_grad_() for t in edge_geometry(v.detach(), 2, 4, CUTOFF)]
    ops = torch.ops.sdas_kernels
    torch.library.opcheck(ops.edge_geometry.default, (v, 2, 4, CUTOFF, 6))
    torch.library.opcheck(ops.edge_geometry_backward.default, (*grads, v, 2, CUTOFF, 6))
    plain = [t.detach() for t in (*grads, v)]
    tangent = torch.randn_like(plain[-1])
    torch.library.opcheck(ops.edge_geometry_double_backward.default, (tangent, *plain, 2, CUTOFF, 6))


def test_compiles_once_for_every_edge_count(place):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    call = joined(edge_geometry, 2, 4)
    compiled = torch.compile(call, fullgraph=True, backend=counter)
    for count in (11, 12, 300, 5):
        v = vectors(place, count=count).requires_grad_()
        by = [torch.autograd.grad(f(v).square().sum(), v)[0] for f in (compiled, call)]
        torch.testing.assert_close(*by, rtol=1e-13, atol=1e-13)
    assert counter.frame_count <= 2  # first static, then dynamic


def test_errors_name_the_argument():
    v = vectors()
    for call, error, message in (
        (lambda: edge_geometry(v.tolist(), 2, 4, CUTOFF), TypeError, "vectors must be a torch.Tensor, got list"),
        (lambda: edge_geometry(v.long(), 2, 4, CUTOFF), TypeError, "vectors must have a floating dtype"),
        (lambda: edge_geometry(v[:, :2], 2, 4, CUTOFF), ValueError, r"vectors must be \[E, 3\], got \[25, 2\]"),
        (lambda: edge_geometry(v, 9, 4, CUTOFF), ValueError, r"lmax must be 0\.\.8, got 9"),
        (lambda: edge_geometry(v, 2, 0, CUTOFF), ValueError, r"n must be 1\.\.4096, got 0"),
        (lambda: edge_geometry(v, 2, 4, 0.0), ValueError, "cutoff must be positive and finite"),
        (lambda: edge_geometry(v, 2, 4, CUTOFF, 2), ValueError, r"p must be 3\.\.100, got 2"),
    ):
        with pytest.raises(error, match=message):
            call()
