"""Replicas that run at once: each as if it ran alone, moved by anything that gives forces, and ended by itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones as LennardJonesOfASE
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixCom, FixedLine, FixedPlane
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.units import fs

from sdas.errors import SdasError
from sdas.md import Replicas, SDASCalculator
from sdas.md.faults import Bonds, Limits
from sdas.md.forces import EnergyFunction, ModelForces, as_forces
from sdas.md.lennard_jones import LennardJones
from sdas.md.systems import Systems
from sdas.md.verlet_list import NoNeighborsError


@pytest.fixture
def argon():
    cell = [[10.6, 0.0, 0.4], [0.5, 10.8, 0.0], [0.0, 0.3, 11.1]]
    grid = np.stack(np.meshgrid(*[[0.0, 1 / 3, 2 / 3]] * 3), -1).reshape(-1, 3)
    atoms = Atoms("Ar27", scaled_positions=grid, cell=cell, pbc=True)
    atoms.rattle(0.3, seed=4)
    return atoms


# as if it ran alone


def test_a_step_is_that_of_ase(pair_potential, crystal):
    replicas = Replicas(pair_potential, [crystal], temperature_k=600.0, timestep_fs=1.0)
    alone = replicas.atoms(0)
    alone.calc = SDASCalculator(pair_potential)
    VelocityVerlet(alone, timestep=1.0 * fs).run(50)
    replicas.run(50)
    np.testing.assert_allclose(replicas.atoms(0).positions, alone.positions, atol=1e-10)
    assert replicas.atoms(0).get_potential_energy() == pytest.approx(alone.get_potential_energy(), abs=1e-9)
    assert replicas.atoms(0).get_kinetic_energy() == pytest.approx(alone.get_kinetic_energy(), abs=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("thermostat", ["langevin", "bussi", "nose-hoover"])
def test_with_one_system_per_call_a_replica_does_not_depend_on_the_others(make_model, systems, thermostat, dtype):
    model, options = make_model(), {"timestep_fs": 0.1, "dtype": dtype, "batch": 1, "limits": Limits(0.0, 1e9)}
    several = [systems[name] for name in ("molecule", "liquid", "small cell", "molecule")]
    together = Replicas(model, several, thermostat, [300.0, 200.0, 100.0, 400.0], seed=[5, 6, 7, 8], **options)
    together.run(12)
    for replica, kelvin in ((1, 200.0), (3, 400.0)):
        alone = Replicas(model, [several[replica]], thermostat, kelvin, seed=5 + replica, **options)
        alone.run(12)
        atoms = together.motion.systems.atoms_of([replica])
        assert torch.equal(together.motion.systems.positions[atoms], alone.motion.systems.positions)
        assert torch.equal(together.motion.velocities[atoms], alone.motion.velocities)
        assert torch.equal(together.results["energy"][[replica]], alone.results["energy"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_in_large_batches_a_replica_does_not_depend_on_the_others(make_model, systems, dtype):
    """On a CPU the kernel of the default model sums by the order of edges, from 257 atoms on."""
    positions = []
    for count in (30, 37):
        options = {"timestep_fs": 0.1, "dtype": dtype, "limits": Limits(0.0, 1e9)}
        replicas = Replicas(make_model(), [systems["molecule"]] * count, "langevin", **options)
        replicas.run(4)
        positions.append(replicas.motion.systems.positions)
    assert torch.equal(positions[0], positions[1][: 30 * 9])


def test_one_call_for_all_gives_the_same_but_for_rounding(make_model, systems):
    several = [systems[name] for name in ("molecule", "liquid", "small cell")]
    runs = []
    for batch in (None, 1, 2):
        limits = Limits(0.0, 1e9)
        runs.append(Replicas(make_model(), several, "bussi", batch=batch, timestep_fs=0.1, limits=limits))
        runs[-1].run(5)
    for other in runs[1:]:
        torch.testing.assert_close(other.motion.systems.positions, runs[0].motion.systems.positions, rtol=0, atol=1e-9)


def test_forces_are_those_of_a_graph_found_anew_while_atoms_cross_the_cutoff(make_model, systems):
    """To the bit, also for the paper's layer, whose energy jumps there."""
    for layer in ("default", "paper"):
        model, edges = make_model(layer=layer, cutoff=3.0), set()
        moving = Systems.of([systems["liquid"]])
        listed, anew = ModelForces(model, skin=0.4), ModelForces(model, skin=0.0)
        for _ in range(15):
            found, wanted = listed(moving, stress=True), anew(moving, stress=True)
            for name in ("energy", "forces", "stress", "closest"):
                assert torch.equal(found[name], wanted[name]), name
            edges.add(anew._lists[0].graph(moving).num_edges)
            moving.positions += 0.03 * torch.randn_like(moving.positions)
        assert len(edges) > 5
        assert listed._lists[0].built < 10 < anew._lists[0].built


def test_the_seed_of_the_first_replica_counts_on(pair_potential, molecule):
    first = Replicas(pair_potential, [molecule] * 3, "langevin", seed=4)
    other = Replicas(pair_potential, [molecule], "langevin", seed=6)
    torch.testing.assert_close(first.motion.velocities[6:], other.motion.velocities)
    assert not torch.equal(first.motion.velocities[:3], first.motion.velocities[3:6])


# anything that gives forces


def test_lennard_jones_is_that_of_ase(argon):
    wanted = argon.copy()
    wanted.calc = LennardJonesOfASE(sigma=3.4, epsilon=0.01, rc=7.0)
    found = LennardJones(0.01, 3.4, 7.0)(Systems.of([argon, argon]), stress=True)
    assert found["energy"].tolist() == pytest.approx([wanted.get_potential_energy()] * 2, rel=1e-12)
    np.testing.assert_allclose(found["forces"][27:], wanted.get_forces(), atol=1e-12)
    np.testing.assert_allclose(found["stress"][1], wanted.get_stress(voigt=False), atol=1e-12)


def test_the_stress_of_an_energy_function_is_its_derivative(argon):
    def energy(systems):
        inverse = torch.linalg.inv(systems.cells)
        fractional = (systems.positions[:, None, :] @ systems.of_atoms(inverse)).squeeze(1)
        return systems.sum(torch.sin(2 * fractional).sum(1)) + 0.01 * torch.linalg.det(systems.cells)

    found = EnergyFunction(energy, False)(Systems.of([argon]), stress=True)
    # fractional coordinates do not change under strain, so only the volume counts: dV/dε = V
    np.testing.assert_allclose(found["stress"][0], 0.01 * np.eye(3), atol=1e-12)


def test_a_bias_adds_its_energies_and_forces_and_is_told_the_replica(pair_potential, molecule):
    def pull(systems):
        first = systems.positions[torch.tensor(systems.starts[:-1])]
        return 0.5 * systems.replica * first[:, 0]

    plain = Replicas(pair_potential, [molecule] * 3)
    biased = Replicas(pair_potential, [molecule] * 3, bias=EnergyFunction(pull, False))
    push = (biased.results["forces"] - plain.results["forces"]).reshape(3, 3, 3)
    np.testing.assert_allclose(push[:, 0, 0], [0, -0.5, -1.0], atol=1e-12)
    assert float(push[:, 1:].abs().max()) == 0
    torch.testing.assert_close(biased.results["energy"], plain.results["energy"] + biased.results["bias_energy"])
    start = biased.conserved().clone()
    biased.run(40)
    torch.testing.assert_close(biased.conserved(), start, rtol=0, atol=2e-3)
    assert set(plain.motion.freedom.tolist()) == {3.0}
    assert set(biased.motion.freedom.tolist()) == {9.0}, "what the bias does not conserve moves"


def test_what_gives_no_forces_is_refused(pair_potential, molecule):
    with pytest.raises(SdasError, match=r"callable with the attribute 'invariant'.*got function"):
        as_forces(lambda systems, stress=False: {})
    with pytest.raises(SdasError, match="skin: only of a model's forces, got LennardJones"):
        Replicas(LennardJones(), [molecule], skin=0.3)
    with pytest.raises(SdasError, match="does not know Xe"):
        Replicas(pair_potential, [Atoms("Xe")])
    with pytest.raises(SdasError, match="list with a structure for each replica"):
        Replicas(pair_potential, molecule)
    with pytest.raises(SdasError, match=r"temperature_k must be .* for each of 2 replicas"):
        Replicas(pair_potential, [molecule] * 2, temperature_k=[300.0])
    with pytest.raises(SdasError, match=r"seed must be a whole number of 0 or more, .* got 0.5"):
        Replicas(pair_potential, [molecule], seed=0.5)
    with pytest.raises(SdasError, match="NoseHoover: the temperature must be above 0 K; use langevin or bussi"):
        Replicas(pair_potential, [molecule], "nose-hoover", temperature_k=0)
    with pytest.raises(SdasError, match=r"energy function must give \[1\] energies, got \[\]"):
        Replicas(EnergyFunction(lambda systems: systems.positions.sum(), False), [molecule])


def test_positions_may_be_changed_from_outside(pair_potential, molecule):
    replicas = Replicas(pair_potential, [molecule] * 2)
    before = replicas.results["energy"].clone()
    replicas.motion.systems.positions[0, 0] += 0.1
    replicas.evaluate()
    other = molecule.copy()
    other.positions[0, 0] += 0.1
    wanted = Replicas(pair_potential, [other, molecule]).results
    assert float((replicas.results["energy"] - before).abs()[0]) > 1e-3
    torch.testing.assert_close(replicas.results["energy"], wanted["energy"], rtol=0, atol=1e-12)
    torch.testing.assert_close(replicas.results["forces"], wanted["forces"], rtol=0, atol=1e-12)


# each ends by itself


def test_a_replica_that_explodes_ends_and_the_others_go_on(pair_potential, molecule):
    close = molecule.copy()
    close.positions[1] = [0.6, 0, 0]
    options = {"thermostat": "langevin", "batch": 1, "timestep_fs": 1.0}
    replicas = Replicas(pair_potential, [molecule, close, molecule], **options)
    ran = replicas.run(60)
    assert ran.steps == 60
    assert replicas.running == [0, 2]
    verdict = replicas.verdicts[1]
    assert 0 < verdict.step < 60
    assert verdict.time_fs == verdict.step
    assert "the temperature is" in verdict.reason
    assert replicas.verdicts[0] is replicas.verdicts[2] is None
    assert len(replicas.atoms(1)) == 3
    assert np.isfinite(replicas.atoms(1).positions).all()
    alone = Replicas(pair_potential, [molecule], seed=2, **options)
    alone.run(60)
    np.testing.assert_array_equal(replicas.atoms(2).positions, alone.atoms(0).positions)


def faulty(fault):
    """A free flight in which the second replica meets a fault at the third step."""
    calls = [0]

    def forces(systems, stress=False):
        calls[0] += 1
        rows = (systems.replica == 1).double() * (calls[0] > 3)
        if fault == "no neighbors" and rows.any():
            raise NoNeighborsError(int(rows.argmax()), "two atoms overlap")
        found = {"energy": 0 * rows, "forces": torch.zeros_like(systems.positions)}
        if fault == "energy":
            found["energy"] = torch.where(rows > 0, torch.nan, 0.0)
        elif fault == "push":
            found["forces"] = systems.of_atoms(1e308 * rows)[:, None] * 1e308 + found["forces"]
        elif fault == "close":
            found["closest"] = 1.0 - 0.9 * rows
        return found

    forces.invariant = True
    return forces


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("energy", "not finite"),
        ("push", "not finite"),
        ("close", "two atoms are 0.100 Å apart"),
        ("no neighbors", "overlap"),
    ],
)
def test_every_fault_ends_its_replica_only(molecule, fault, words):
    replicas = Replicas(faulty(fault), [molecule] * 3)
    replicas.run(10)
    assert replicas.running == [0, 2]
    assert replicas.verdicts[1].step == 3
    assert words in replicas.verdicts[1].reason
    assert replicas.step == 10


def test_a_bond_that_stretches_ends_a_replica_if_that_is_asked_for(molecule):
    def apart(systems):
        return -5.0 * systems.positions[torch.tensor(systems.starts[:-1]) + 1, 0] * (systems.replica == 1)

    forces = EnergyFunction(apart, False)
    replicas = Replicas(forces, [molecule] * 2, limits=Limits(stretch_ang=0.5), temperature_k=10.0)
    replicas.run(60)
    assert replicas.running == [0]
    assert re.match(r"the bond of atoms (0 and 1|1 and 2) is [+-]0\.[56]\d Å from its", replicas.verdicts[1].reason)


def test_the_most_stretched_bond_of_each_system_is_found(pair_potential, molecule):
    """By distances of ASE, across the cell too, while fewer run; a system may have no bonds."""
    chain = Atoms("O2", positions=[[0.2, 0, 0], [2.1, 0, 0]], cell=[3.1, 9, 9], pbc=True)
    starts = [molecule, chain, Atoms("O", positions=[[0, 0, 0]]), molecule]
    replicas, bonds = Replicas(pair_potential, starts), Bonds(starts)
    for ending in (None, 0):
        if ending is not None:
            replicas._end({ending: "enough"})
        systems = replicas.motion.systems
        systems.positions += 0.2 * torch.randn_like(systems.positions)
        wanted = {}
        for row, replica in enumerate(replicas.running):
            start, now, changes = starts[replica], replicas.atoms(replica), [0.0]
            for i, j, d, shift in zip(*neighbor_list("ijdS", start, natural_cutoffs(start, 1.15)), strict=True):
                if i < j:
                    changes.append(np.linalg.norm(now.positions[j] - now.positions[i] + shift @ now.cell.array) - d)
            if abs(worst := max(changes, key=abs)) > 0.05:
                wanted[row] = worst
        found = bonds.stretched(replicas.motion, 0.05)
        assert {row: change for row, (change, _, _) in found.items()} == pytest.approx(wanted, rel=1e-12)
        assert len(wanted) >= 2


def test_a_run_ends_when_all_replicas_have(pair_potential, molecule):
    molecule.positions[1] = [0.6, 0, 0]
    replicas = Replicas(pair_potential, [molecule] * 2)
    ran = replicas.run(500)
    assert len(replicas) == 0
    assert ran.steps == max(verdict.step for verdict in replicas.verdicts) < 100


def test_a_start_that_makes_no_sense_is_refused(pair_potential, molecule):
    bad = molecule.copy()
    bad.positions[1] = bad.positions[0]
    with pytest.raises(SdasError, match=r"replica 1 cannot start like this: .*overlap"):
        Replicas(pair_potential, [molecule, bad])
    with pytest.raises(SdasError, match="replica 0 cannot start like this: the temperature is"):
        Replicas(pair_potential, [molecule, molecule], temperature_k=5e5)


# what is held stays


@pytest.mark.parametrize("thermostat", ["nve", "langevin"])
def test_constraints_hold_and_are_no_degrees_of_freedom(pair_potential, thermostat):
    atoms = Atoms("O5", [[0, 0, 0], [1.3, 0, 0], [0, 1.3, 0], [1.3, 1.3, 0.1], [0.6, 0.6, 1.0]])
    held = [
        FixAtoms([0]),
        FixCartesian([1], [True, False, True]),
        FixedLine([2], [1, 1, 0]),
        FixedPlane([3], [1, 2, 3]),
    ]
    fixed = atoms.copy()
    fixed.set_constraint(held)
    free = atoms.copy()
    free.set_constraint(FixCom())
    replicas = Replicas(pair_potential, [fixed, free, atoms], thermostat)
    start = replicas.motion.systems.positions.numpy().copy()
    replicas.run(20)
    moved = replicas.motion.systems.positions.numpy() - start
    assert np.abs(moved[0]).max() == 0
    assert np.abs(moved[1, [0, 2]]).max() == 0
    assert abs(moved[1, 1]) > 1e-3
    assert np.abs(np.cross(moved[2], [1, 1, 0])).max() < 1e-12
    assert abs(moved[3] @ [1, 2, 3]) < 1e-12
    assert np.abs(moved[5:10].mean(axis=0)).max() < 1e-12
    by_hand = {"nve": [7, 15 - 6, 15 - 6], "langevin": [15 - 3 - 2 - 2 - 1, 15 - 3, 15]}
    assert replicas.motion.freedom.tolist() == by_hand[thermostat]


def test_fixed_bonds_are_refused(pair_potential, molecule):
    molecule.set_constraint(FixBondLength(0, 1))
    with pytest.raises(SdasError, match="replicas cannot keep FixBondLengths"):
        Replicas(pair_potential, [molecule])
