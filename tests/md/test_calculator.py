import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter

from sdas.errors import SdasError
from sdas.md import SDASCalculator
from sdas.md.systems import Systems
from sdas_kernels.graph import NeighborGraph


def test_forces_are_minus_the_slope_of_the_energy(pair_potential, molecule):
    molecule.calc = SDASCalculator(pair_potential)
    slopes = calculate_numerical_forces(molecule, eps=1e-4)
    np.testing.assert_allclose(molecule.get_forces(), slopes, atol=1e-6)
    assert np.abs(slopes).max() > 0.1


def test_stress_is_the_strain_derivative_in_voigt_order(pair_potential, crystal):
    crystal.calc = SDASCalculator(pair_potential)
    slopes = calculate_numerical_stress(crystal, eps=1e-5, voigt=True)
    np.testing.assert_allclose(crystal.get_stress(), slopes, atol=1e-7)
    assert len(set(np.round(slopes, 4))) == 6, "the test needs six different components to see their order"


def test_energy_is_that_of_the_model_in_ev(pair_potential):
    pair = Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.5]])
    pair.calc = SDASCalculator(pair_potential)
    expected = 4.0 * (1 - np.exp(-2 * 0.3)) ** 2 * (1 - (1.5 / 4) ** 2) ** 3
    assert pair.get_potential_energy() == pytest.approx(expected, rel=1e-12)
    assert pair.get_potential_energy(force_consistent=True) == pair.get_potential_energy()


@pytest.mark.parametrize(("kept", "asked"), [("float32", "float64"), ("float64", "float32"), ("float32", "float32")])
def test_a_model_of_either_dtype_is_taken_in_either(make_model, molecule, kept, asked):
    model = make_model(dtype=getattr(torch, kept))
    model.set_energy_reference({1: -13.6, 6: -1029.1, 8: -2041.8123456789}, 1.0)
    molecule.calc = SDASCalculator(model, asked)
    graph = NeighborGraph.build(molecule.positions, molecule.numbers, model.cutoff, dtype=model.embedding.weight.dtype)
    wanted = float(model(graph)["energy"])
    assert molecule.get_potential_energy() == pytest.approx(wanted, abs=1e-5), "references keep their digits"


def test_neighbors_are_listed_for_many_steps(pair_potential, molecule):
    calculator = molecule.calc = SDASCalculator(pair_potential)
    anew, generator = SDASCalculator(pair_potential, skin=0), np.random.default_rng(0)
    molecule.positions[2] = [3.8, 0.3, 0.0]
    edges = set()
    for _ in range(60):
        molecule.positions += 0.03 * generator.standard_normal((3, 3))
        np.testing.assert_array_equal(molecule.get_forces(), anew.get_forces(molecule))
        edges.add(int(anew.neighbors.graph(Systems.of([molecule])).num_edges))
    assert len(edges) > 1, "the test needs an atom that crosses the cutoff"
    assert calculator.neighbors.built < 10
    assert anew.neighbors.built == 120


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dtype_has_a_name_too(pair_potential, molecule, dtype):
    named = SDASCalculator(pair_potential, dtype=str(dtype).removeprefix("torch."))
    assert named.dtype == named.model.depth.dtype == dtype
    assert named.get_potential_energy(molecule) == SDASCalculator(pair_potential, dtype).get_potential_energy(molecule)


@pytest.mark.parametrize("dtype", ["double", torch.bfloat16, 64, None])
def test_another_dtype_is_refused(pair_potential, dtype):
    with pytest.raises(SdasError, match="SDASCalculator: dtype must be float64 or float32, got"):
        SDASCalculator(pair_potential, dtype=dtype)


def test_single_precision_only_when_asked(pair_potential, molecule):
    exact, rough = molecule.copy(), molecule.copy()
    exact.calc, rough.calc = SDASCalculator(pair_potential), SDASCalculator(pair_potential, dtype=torch.float32)
    difference = np.abs(exact.get_forces() - rough.get_forces()).max()
    assert 0 < difference < 1e-4
    assert pair_potential.depth.dtype == torch.float32, "the caller's model must stay as it was"
    assert pair_potential.depth.requires_grad


def test_results_follow_the_atoms(pair_potential, molecule):
    molecule.calc = SDASCalculator(pair_potential)
    before = molecule.get_potential_energy()
    molecule.positions[0] += 0.1
    assert molecule.get_potential_energy() != before


def test_forces_of_fixed_atoms_are_not_hidden_from_the_results(pair_potential, molecule):
    from ase.constraints import FixAtoms

    molecule.set_constraint(FixAtoms([0]))
    molecule.calc = SDASCalculator(pair_potential)
    assert np.abs(molecule.get_forces(apply_constraint=False)[0]).max() > 0


def test_a_cell_can_be_relaxed(pair_potential, crystal):
    from ase.optimize import BFGS

    crystal.calc = SDASCalculator(pair_potential)
    before = crystal.get_potential_energy()
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=0.02, steps=60)
    assert crystal.get_potential_energy() < before


def test_unknown_elements_are_named(pair_potential):
    water = Atoms("OH2", positions=[[0, 0, 0], [0, 0, 1], [0, 1, 0]], calculator=SDASCalculator(pair_potential))
    with pytest.raises(SdasError, match=r"does not know H; it was trained on O"):
        water.get_potential_energy()


def test_stress_of_a_molecule_is_an_error(pair_potential, molecule):
    molecule.calc = SDASCalculator(pair_potential)
    with pytest.raises(SdasError, match="periodic along all three axes"):
        molecule.get_stress()


def test_closest_pair(pair_potential, molecule):
    calculator = SDASCalculator(pair_potential)
    molecule.calc = calculator
    molecule.get_potential_energy()
    distance, i, j = calculator.closest_pair()
    assert distance == pytest.approx(molecule.get_distance(i, j))
    assert distance == pytest.approx(min(molecule.get_all_distances()[np.triu_indices(3, 1)]))
    lonely = Atoms("O", positions=[[0, 0, 0]], calculator=calculator)
    lonely.get_potential_energy()
    assert calculator.closest_pair()[0] == np.inf


def test_one_calculator_serves_many_structures(pair_potential, molecule, crystal):
    calculator = SDASCalculator(pair_potential)
    values = []
    for atoms in (molecule, crystal, molecule):
        atoms.calc = calculator
        values.append(atoms.get_potential_energy())
    assert values[0] == values[2] != values[1]


def test_a_compiled_model_gives_the_same_results(make_model, systems):
    model = make_model()
    for name in ("molecule", "liquid", "slab"):
        atoms, again = systems[name], systems[name].copy()
        atoms.calc, again.calc = SDASCalculator(model), SDASCalculator(model, compile="eager")
        assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-11)
    crystal, again = systems["small cell"], systems["small cell"].copy()
    crystal.calc, again.calc = SDASCalculator(model), SDASCalculator(model, compile="eager")
    np.testing.assert_allclose(again.get_stress(), crystal.get_stress(), atol=1e-12)


@pytest.mark.parametrize("config", [{}, {"lmax": 5, "channels": 4, "layers": 1}, {"layer": "paper"}], ids=str)
def test_in_inference_mode_it_gives_the_same_results(make_model, systems, config):
    atoms, model = systems["liquid"], make_model(**config)
    calculator = SDASCalculator(model)
    wanted = [calculator.get_property(name, atoms) for name in ("energy", "forces", "stress")]
    with torch.inference_mode():
        for tried in (calculator, SDASCalculator(model)):
            tried.reset()
            found = [tried.get_property(name, atoms) for name in ("energy", "forces", "stress")]
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_any_change_that_a_model_reads_is_seen(pair_potential, crystal):
    calculator = crystal.calc = SDASCalculator(pair_potential)
    assert calculator.check_state(crystal) == list(all_changes)
    crystal.get_forces()
    assert calculator.check_state(crystal) == []
    for change, name in (
        (lambda atoms: atoms.positions.__setitem__((0, 0), np.nextafter(atoms.positions[0, 0], 9)), "positions"),
        (lambda atoms: atoms.set_cell(1.01 * atoms.cell.array), "cell"),
        (lambda atoms: atoms.set_pbc([True, True, False]), "pbc"),
        (lambda atoms: atoms.set_atomic_numbers([8, 16]), "numbers"),
    ):
        changed = crystal.copy()
        change(changed)
        assert calculator.check_state(changed) == [name]
    before = calculator.neighbors.built
    assert crystal.get_potential_energy() == calculator.results["energy"]
    assert calculator.neighbors.built == before
    longer = crystal.repeat((2, 1, 1))
    assert set(calculator.check_state(longer)) == {"positions", "numbers", "cell"}
