"""A model of mace-torch as it is against the same model after `sdas_kernels.integrations.e3nn.accelerate`.

Random weights, float32: 128x0e + 128x1o, harmonics to lmax 3, correlation 3, two layers, cutoff 5 Å. Both run in turn
within one process on the same batch; a figure is the median of the ratios MACE / accelerated, with the quartiles.
Before a case is timed, energies and forces are compared.

    energy and forces    one evaluation
    training step        energy and forces, and the gradients of a loss of both by all parameters

Needs mace-torch, which wants an environment of its own: there, `python -m pytest bench/bench_accelerate.py` with
OMP_NUM_THREADS for the threads of both; the result goes to bench/results/.
"""

import copy
import statistics

import numpy as np
import pytest
import record
import torch

from sdas_kernels.integrations.e3nn import accelerate

modules = pytest.importorskip("mace.modules", reason="mace-torch is not installed, so there is nothing to accelerate")
data = pytest.importorskip("mace.data")
tools = pytest.importorskip("mace.tools")
o3 = pytest.importorskip("e3nn.o3")
build = pytest.importorskip("ase.build")

ROUNDS = 3
SPECIES = [1, 6, 8]


def water_box(per_side):
    """Molecules of water, turned at random, on a cubic grid of 3.1 Å."""
    random = np.random.default_rng(0)
    molecule, box = build.molecule("H2O"), None
    for place in np.ndindex(per_side, per_side, per_side):
        one = molecule.copy()
        one.euler_rotate(*random.uniform(0, 360, 3), center="COM")
        one.translate(3.1 * np.array(place))
        box = one if box is None else box + one
    box.set_cell([3.1 * per_side] * 3)
    box.pbc = True
    return box


SYSTEMS = {"ethanol, 9 atoms": lambda: build.molecule("CH3CH2OH"), "water, 192 atoms": lambda: water_box(4)}


def models():
    """MACE's and the accelerated one."""
    torch.manual_seed(0)
    theirs = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=len(SPECIES),
        hidden_irreps=o3.Irreps("128x0e + 128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(SPECIES)),
        avg_num_neighbors=50.0,
        atomic_numbers=SPECIES,
        correlation=3,
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    ours = copy.deepcopy(theirs)
    accelerate(ours)
    return theirs, ours


def batch(atoms):
    """What MACE takes, of one system."""
    configuration = data.config_from_atoms(atoms)
    graph = data.AtomicData.from_config(configuration, z_table=tools.AtomicNumberTable(SPECIES), cutoff=5.0)
    return next(iter(tools.torch_geometric.dataloader.DataLoader([graph], batch_size=1))).to_dict()


def energy_and_forces(model, given):
    """One evaluation."""
    return model(given)


def training_step(model, given):
    """Energy and forces, and the gradients of a loss of both."""
    model.zero_grad()
    result = model(given, training=True)
    (result["energy"].pow(2).sum() + result["forces"].pow(2).sum()).backward()


WORK = {"energy and forces": energy_and_forces, "training step": training_step}


@pytest.fixture(scope="module")
def report():
    record.set_threads()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    rows = []
    yield rows
    torch.set_default_dtype(before)
    unit = "milliseconds; ratios are MACE / accelerated, [lower quartile, median, upper quartile]"
    record.write_result("accelerate", rows, unit, ["mace-torch", "e3nn"])


@pytest.mark.parametrize("what", WORK)
@pytest.mark.parametrize("system", SYSTEMS)
def test_mace(benchmark, report, system, what):
    theirs, ours = models()
    given = batch(SYSTEMS[system]())
    wanted, found = theirs(given), ours(given)
    worst = max(((found[k] - wanted[k]).abs().max() / wanted[k].abs().max()).item() for k in ("energy", "forces"))
    assert worst <= 1e-5
    functions = {"accelerated": lambda: WORK[what](ours, given), "mace": lambda: WORK[what](theirs, given)}
    times = benchmark.pedantic(record.in_turn, (functions, ROUNDS), rounds=1)
    row = {"system": system, "edges": given["edge_index"].shape[1], "what": what, "dtype": "float32"}
    row |= {f"{name}_ms": round(1e3 * statistics.median(seconds), 1) for name, seconds in times.items()}
    row |= {"mace_over_accelerated": record.quartiles(times["mace"], times["accelerated"])}
    row |= {"largest_relative_difference": float(f"{worst:.1e}")}
    benchmark.extra_info.update(row)
    report.append(row)
