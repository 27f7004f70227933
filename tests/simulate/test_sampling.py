"""Samples follow the distribution that statistical mechanics asks for, and bad ones are dropped and counted."""

from __future__ import annotations

import itertools
import sys
from itertools import islice

import numpy as np
import pytest
from ase import Atoms, units

from sdas.config.simulate import SimulationConfig
from sdas.errors import SimulationError
from sdas.simulate import Molecule, from_sequence, from_smiles, simulate_pool
from sdas.simulate.engines import _ForceField, make_engine
from sdas.simulate.sampling import Sampler, normal_modes, rotatable_bonds
from sdas.simulate.screening import Screen

pytest.importorskip("rdkit")
STIFFNESS, REST = 30.0, 1.2


class Bond(_ForceField):
    """½ k (d − d₀)² between two atoms."""

    def energy_and_forces(self, positions):
        along = positions[1] - positions[0]
        length = np.linalg.norm(along)
        pull = STIFFNESS * (length - REST) * along / length
        return 0.5 * STIFFNESS * (length - REST) ** 2, np.array([pull, -pull])


def diatomic():
    return Molecule(np.array([6, 8]), [np.array([[0, 0, 0], [0.1, REST, 0]])], np.array([[0, 1]]), 0, 1, {"start": "x"})


@pytest.mark.parametrize("engine", ["mmff", "uff", "openmm", "tblite"])
def test_forces_are_the_gradient_of_the_energy(engine):
    molecule = from_sequence("ACE-ALA-NME", 1, 0) if engine == "openmm" else from_smiles("CC(=O)O", 1, 0)
    atoms = molecule.atoms()
    atoms.calc = make_engine(engine, molecule)
    atoms.rattle(0.05, seed=3)
    forces, place, energies = atoms.get_forces(), atoms.positions.copy(), []
    direction = np.random.default_rng(0).normal(size=place.shape)
    for sign in (1, -1):
        atoms.positions = place + sign * 1e-4 * direction
        energies.append(atoms.get_potential_energy())
    assert (forces * direction).sum() == pytest.approx((energies[1] - energies[0]) / 2e-4, rel=1e-4)


def test_a_diatomic_has_the_mode_of_the_textbook():
    atoms = diatomic().atoms()
    atoms.positions[1] = [0, REST, 0]
    atoms.calc = Bond()
    stiffness, shapes = normal_modes(atoms)
    m1, m2 = atoms.get_masses()
    assert stiffness == pytest.approx([STIFFNESS * (m1 + m2) / (m1 * m2)], rel=1e-4), "k/μ; one mode, for it is linear"
    stretch = shapes[0].reshape(2, 3)
    assert m1 * stretch[0] == pytest.approx(-m2 * stretch[1]), "the center of mass stays"


def test_water_has_three_modes_with_its_frequencies():
    """GFN2-xTB; measured are 1595, 3657 and 3756 cm⁻¹, and harmonic ones some 4 % higher."""
    pytest.importorskip("tblite")
    molecule = from_smiles("O", 1, 0)
    atoms = molecule.atoms()
    atoms.calc = make_engine("tblite", molecule)
    stiffness, _ = normal_modes(atoms)
    wavenumbers = np.sqrt(stiffness) * units._hbar * units.J * units.s / units.invcm
    assert wavenumbers == pytest.approx([1595, 3657, 3756], rel=0.08)


@pytest.mark.parametrize(("sampling", "count", "within"), [("modes", 4000, 0.1), ("dynamics", 250, 0.3)])
def test_a_spring_is_stretched_by_the_thermal_energy(sampling, count, within):
    config = SimulationConfig(
        sampling=sampling, temperature_k=500, interval_fs=12, equilibration_fs=300, friction_per_ps=50
    )
    found = list(islice(Sampler(diatomic(), Bond(), config), count))
    lengths = np.array([np.linalg.norm(sample.positions[1] - sample.positions[0]) for sample in found])
    assert STIFFNESS * ((lengths - REST) ** 2).mean() == pytest.approx(units.kB * 500, rel=within)


def test_torsions_turn_what_turns_freely():
    molecule = from_sequence("ACE-ALA-NME", 1, 0)
    bonds = {frozenset(torsion[1:3]) for torsion in rotatable_bonds(molecule.chemistry)}
    heavy = [tuple(sorted(bond)) for bond in bonds]
    # CH3-C(=O)-N-CA(-CB)-C(=O)-N-CH3 in the order of its SMILES: 0 1 (2) 3 4 (5) 6 (7) 8 9
    assert sorted(heavy) == [(0, 1), (3, 4), (4, 5), (4, 6), (8, 9)], "φ, ψ and methyls; neither amide"
    config = SimulationConfig(sampling="torsions", engine="mmff", interval_fs=5)
    found = list(islice(Sampler(molecule, make_engine("mmff", molecule), config), 12))
    torsions = [Atoms(molecule.numbers, s.positions).get_dihedral(1, 3, 4, 6) for s in found]
    assert len({int(angle // 90) for angle in torsions}) >= 3, "φ is everywhere"


def test_a_screen_sees_what_no_molecule_does():
    molecule = from_smiles("CC", 1, 0)
    rest = molecule.conformers[0]
    screen = Screen(molecule)
    assert screen.fault(rest) is None
    torn, close, none = rest.copy(), rest.copy(), rest.copy()
    torn[1] += 1.2 * (rest[1] - rest[0])
    close[2] = rest[3] + 0.1
    none[0, 0] = np.nan
    assert [screen.fault(place) for place in (torn, close, none)] == ["broken bond", "overlap", "not finite"]


def test_bad_frames_are_dropped_and_counted(monkeypatch):
    verdicts = iter(["overlap", None, "broken bond", "overlap", None, None])
    monkeypatch.setattr(Screen, "fault", lambda self, positions: next(verdicts))
    pool = simulate_pool(from_smiles("C", 1, 0), SimulationConfig(frames=3, interval_fs=1, equilibration_fs=0))
    assert (len(pool.frames), pool.dropped) == (3, {"overlap": 2, "broken bond": 1})
    monkeypatch.setattr(Screen, "fault", lambda self, positions: "overlap")
    with pytest.raises(SimulationError, match=r"30 frames were dropped \(30 overlap\) while 0 were kept: lower"):
        simulate_pool(from_smiles("C", 1, 0), SimulationConfig(frames=3, interval_fs=1, equilibration_fs=0))


@pytest.mark.parametrize("sampling", ["dynamics", "torsions"])
def test_an_engine_that_fails_costs_a_frame(sampling):
    molecule = from_smiles("CCO", 1, 0)
    engine = make_engine("mmff", molecule)
    compute, calls = engine.calculate, iter(range(10**6))

    def failing(*arguments):
        if next(calls) == 0:
            raise RuntimeError("SCF not converged")
        compute(*arguments)

    engine.calculate = failing
    config = SimulationConfig(sampling=sampling, interval_fs=1, equilibration_fs=0)
    assert [sample.fault for sample in islice(Sampler(molecule, engine, config), 3)] == ["engine failed", None, None]


def test_modes_need_a_molecule_at_rest(monkeypatch):
    monkeypatch.setattr("sdas.simulate.sampling.RELAXATION_STEPS", 1)
    molecule = from_smiles("CCO", 1, 0)
    with pytest.raises(SimulationError, match="conformer 0 does not come to rest in 1 steps"):
        next(Sampler(molecule, make_engine("uff", molecule), SimulationConfig(sampling="modes")))


def test_the_seed_decides_every_frame():
    first, again, other = (
        simulate_pool(
            from_smiles("CO", 2, seed), SimulationConfig(frames=3, interval_fs=5, equilibration_fs=0, seed=seed)
        )
        for seed in (0, 0, 1)
    )
    for (a, _), (b, _) in zip(first.frames, again.frames, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
    assert not np.array_equal(first.frames[0][0].positions, other.frames[0][0].positions)


@pytest.mark.parametrize("sampling", ["dynamics", "modes", "torsions"])
def test_a_killed_simulation_goes_on_with_the_same_frames(sampling, tmp_path, monkeypatch, capsys):
    """From what it last wrote, with a frame that is dropped before and one after; more frames may be wanted then."""
    monkeypatch.setattr("sdas.simulate.kept.SECONDS", 0.0)
    monkeypatch.setattr("sdas.simulate.kept.PART", 1e9)
    molecule, keep = from_smiles("CCO", 2, 0), tmp_path / "made.json"
    config = SimulationConfig(sampling=sampling, frames=8, interval_fs=3, equilibration_fs=2, temperature_k=700)
    fault, asked = Screen.fault, itertools.count()
    monkeypatch.setattr(Screen, "fault", lambda self, at: "overlap" if next(asked) in (1, 7) else fault(self, at))
    wanted = simulate_pool(molecule, config, labels=True)
    assert wanted.dropped == {"overlap": 2}

    def killed(told):
        if told and next(frames) == 5:
            raise SystemExit

    asked, frames = itertools.count(), itertools.count(1)
    with pytest.raises(SystemExit):
        simulate_pool(molecule, config.model_copy(update={"frames": 6}), labels=True, progress=killed, keep=keep)
    told: list[int] = []
    found = simulate_pool(molecule, config, labels=True, progress=told.append, keep=keep)
    assert told == [5, 1, 1, 1]
    assert "goes on from 5 frames that an interrupted command made" in capsys.readouterr().err
    assert found.dropped == wanted.dropped
    for (ours, facts), (theirs, known) in zip(found.frames, wanted.frames, strict=True):
        assert np.array_equal(ours.positions, theirs.positions)
        assert np.array_equal(ours.forces, theirs.forces)
        assert (ours.source, ours.energy, facts) == (theirs.source, theirs.energy, known)


def test_what_other_settings_made_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sdas.simulate.kept.SECONDS", 0.0)
    molecule, keep, config = from_smiles("O", 1, 0), tmp_path / "made.json", SimulationConfig(frames=2, interval_fs=1)
    config.equilibration_fs = 0
    simulate_pool(molecule, config, keep=keep)
    other = simulate_pool(molecule, config.model_copy(update={"seed": 1}), keep=keep)
    assert "is of other settings and will be written over" in capsys.readouterr().err
    assert np.array_equal(
        other.frames[1][0].positions,
        simulate_pool(molecule, config.model_copy(update={"seed": 1})).frames[1][0].positions,
    )
    keep.write_text(keep.read_text().replace('"count"', '"amount"'))
    with pytest.raises(SimulationError, match="remove it to begin anew"):
        simulate_pool(molecule, config, keep=keep)


def test_a_program_that_is_missing_is_named_with_its_extra(monkeypatch):
    molecule = from_sequence("ACE-ALA-NME", 1, 0)
    for engine, module in (("openmm", "openmm"), ("tblite", "tblite.ase")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SimulationError, match=rf"the engine {engine} needs .*sdas-kernels\[label\]"):
            make_engine(engine, molecule)


def test_a_molecule_without_parameters_is_an_error():
    for engine, words in (
        ("mmff", "mmff has no parameters for all atoms of .*try uff"),
        ("openmm", "knows amino acids"),
    ):
        with pytest.raises(SimulationError, match=words):
            make_engine(engine, from_smiles("[He]", 1, 0))
