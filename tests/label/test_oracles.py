"""Oracles give the numbers of the literature, forces that are gradients, and errors that can be acted upon."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as g2

from sdas.config.label import parse_oracle
from sdas.data import Frame
from sdas.data.units import BOHR, HARTREE
from sdas.errors import ConfigError, LabelError, SdasError
from sdas.label import Failure, make_oracle
from sdas.label.oracle import outcome_of


def oracle_of(text, **settings):
    return make_oracle(parse_oracle(text, settings), 1000)


def label_of(oracle, frame):
    return oracle.compute(oracle.prepared(frame))


def frame_of(atoms):
    cell = atoms.cell.array if atoms.pbc.any() else None
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, atoms.pbc, None, None, None, "here")


def slope(oracle, frame, atom, axis, step=1e-3):
    """−∂E/∂r by central differences, eV/Å."""
    energies = []
    for sign in (1, -1):
        positions = frame.positions.copy()
        positions[atom, axis] += sign * step
        energies.append(oracle.compute(replace(frame, positions=positions)).energy)
    return (energies[1] - energies[0]) / (2 * step)


class TestPySCF:
    pytestmark = pytest.mark.filterwarnings("ignore")

    @pytest.fixture(autouse=True)
    def _pyscf(self):
        pytest.importorskip("pyscf")

    def test_hydrogen_has_the_energy_of_the_textbook(self, molecule):
        """Szabo and Ostlund, Modern Quantum Chemistry, table 3.11: −1.1167 Hartree at 1.4 bohr by STO-3G."""
        frame = molecule([1, 1], [[0, 0, 0], [0, 0, 1.4 * BOHR]])
        label = oracle_of("pyscf:hf/sto-3g", density_fitting=False).compute(frame)
        assert label.energy / HARTREE == pytest.approx(-1.1167, abs=5e-5)

    def test_a_frame_says_its_own_spin(self, molecule):
        """Szabo and Ostlund, section 3.5.2: the hydrogen atom has −0.4666 Hartree by STO-3G."""
        label = label_of(oracle_of("pyscf:hf/sto-3g"), replace(molecule([1], [[0, 0, 0]]), spin=2.0))
        assert label.energy / HARTREE == pytest.approx(-0.4666, abs=5e-5)

    def test_forces_are_the_gradient(self):
        frame = frame_of(g2("H2O"))
        frame.positions[1] += [0.05, 0.1, -0.05]
        oracle = oracle_of("pyscf:pbe/sto-3g", conv_tol=1e-11)
        label = oracle.compute(frame)
        assert label.forces[1, 2] == pytest.approx(slope(oracle, frame, 1, 2), abs=2e-3)
        assert abs(label.forces.sum(axis=0)).max() < 5e-3, "of the grid, which does not move with atoms"

    def test_a_radical_is_computed_with_its_unpaired_electron(self):
        label = label_of(oracle_of("pyscf:pbe/sto-3g", spin=2), frame_of(g2("OH")))
        assert label.facts["spin_square"] == pytest.approx(0.75, abs=0.02)

    def test_forces_are_the_gradient_where_levels_cross(self, molecule):
        """Singlet O2 fills one of two degenerate orbitals; PySCF's own gradient after DIIS is 1 eV/Å off."""
        frame = molecule([8, 8], [[0, 0, 0], [0, 0, 1.2]])
        oracle = oracle_of("pyscf:pbe/sto-3g", conv_tol=1e-11)
        label = oracle.compute(frame)
        assert label.forces[1, 2] == pytest.approx(slope(oracle, frame, 1, 2), abs=2e-3)

    def test_what_does_not_converge_at_once_is_tried_by_safer_settings(self):
        frame = frame_of(g2("H2O"))
        usual = oracle_of("pyscf:pbe/sto-3g").compute(frame)
        hasty = oracle_of("pyscf:pbe/sto-3g", max_cycle=1).compute(frame)
        assert (usual.facts["converged_by"], hasty.facts["converged_by"]) == ("DIIS", "Newton")
        assert hasty.energy == pytest.approx(usual.energy, abs=1e-6)
        np.testing.assert_allclose(hasty.forces, usual.forces, atol=1e-3)

    def test_what_does_not_converge_at_all_is_no_label(self, monkeypatch):
        monkeypatch.setattr("sdas.label.pyscf._has_settled", lambda field: False)
        outcome = outcome_of(oracle_of("pyscf:hf/sto-3g"), frame_of(g2("H2")))
        assert isinstance(outcome, Failure)
        assert outcome.kind == "unconverged"

    def test_dispersion_pulls(self, molecule):
        pytest.importorskip("pyscf.dispersion")
        frame = molecule([2, 2], [[0, 0, 0], [0, 0, 3.5]])
        plain, with_d4 = (oracle_of("pyscf:hf/sto-3g", dispersion=d).compute(frame) for d in (None, "d4"))
        assert with_d4.energy < plain.energy
        assert with_d4.forces[0, 2] > plain.forces[0, 2]

    @pytest.mark.parametrize("functional", ["wb97m-v", "b97m-v", "pbe-d4", "b3lyp-d3bj"])
    def test_dispersion_is_added_once(self, functional):
        with pytest.raises(LabelError, match=f"{functional} has dispersion of its own; leave out dispersion d3bj"):
            oracle_of(f"pyscf:{functional}/sto-3g", dispersion="d3bj")

    def test_a_correction_in_the_name_is_the_setting(self, molecule):
        pytest.importorskip("pyscf.dispersion")
        frame = molecule([2, 2], [[0, 0, 0], [0, 0, 3.0]])
        named, set_to = oracle_of("pyscf:pbe-d4/sto-3g"), oracle_of("pyscf:pbe/sto-3g", dispersion="d4")
        assert named.compute(frame).energy == pytest.approx(set_to.compute(frame).energy, abs=1e-9)
        assert named.versions == set_to.versions

    def test_what_cannot_be_computed_is_said_before(self, molecule):
        hydrogens = molecule([1, 1], [[0, 0, 0], [0, 0, 0.7]])
        for frame, settings, words in (
            (
                molecule([1], [[0, 0, 0]], "x: frame 3"),
                {},
                "x: frame 3: 1 electrons at charge 0 have an even",
            ),
            (replace(hydrogens, charge=0.5), {}, "the charge 0.5 is no whole number; the file states charge 0.5"),
            (
                replace(hydrogens, charge=1.0),
                {},
                "got spin 1; the file states charge 1; set the spin",
            ),
            (replace(hydrogens, charge=1.0, spin=1.0), {}, "got spin 1; the file states charge 1 and spin 1$"),
            (hydrogens, {"spin": 2}, "2 electrons at charge 0 have an odd multiplicity"),
            (replace(hydrogens, charge=1.0), {}, "1 electrons at charge 1 have an even multiplicity"),
            (replace(hydrogens, charge=-2.0), {"charge": -1}, "states charge -2, the oracle is set to charge -1"),
            (replace(hydrogens, spin=0.0), {}, "got spin 0"),
            (hydrogens, {"charge": 2}, "leaves it no electron"),
            (molecule([94, 94], [[0, 0, 0], [0, 0, 3]]), {}, "the basis def2-svp has no Pu"),
            (frame_of(bulk("Si")), {}, "is periodic"),
        ):
            with pytest.raises(LabelError, match=words):
                oracle_of("pyscf:pbe/def2-svp", **settings).prepared(frame)
        with pytest.raises(LabelError, match="PySCF has no functional 'bpe'"):
            oracle_of("pyscf:bpe/def2-svp")
        with pytest.raises(LabelError, match="PySCF has no basis 'def3'"):
            oracle_of("pyscf:pbe/def3").prepared(hydrogens)


class TestTBLite:
    @pytest.fixture(autouse=True)
    def _tblite(self):
        pytest.importorskip("tblite.interface")

    @pytest.mark.parametrize(("name", "energy"), [("H2O", -137.96777625229421), ("CH4", -113.60956621093894)])
    def test_energies_are_those_of_its_manual(self, name, energy):
        assert oracle_of("tblite").compute(frame_of(g2(name))).energy == pytest.approx(energy, abs=1e-5)

    def test_forces_are_the_gradient(self):
        frame = frame_of(g2("CH3CH2OH"))
        oracle = oracle_of("tblite", accuracy=1e-3)
        assert oracle.compute(frame).forces[2, 1] == pytest.approx(slope(oracle, frame, 2, 1), abs=1e-4)

    def test_stress_is_the_derivative_by_strain(self):
        atoms = Atoms("H2", [[0, 0, 0], [0.7, 0.3, 0.2]], cell=[4.0, 5.0, 5.0], pbc=True)
        oracle, step, energies = oracle_of("tblite", accuracy=1e-3), 1e-3, []
        for sign in (1, -1):
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * np.diag([1, 0, 0])), scale_atoms=True)
            energies.append(oracle.compute(frame_of(strained)).energy)
        expected = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert oracle.compute(frame_of(atoms)).stress[0, 0] == pytest.approx(expected, rel=1e-3)

    def test_what_does_not_converge_is_tried_by_slower_mixing_and_then_no_label(self, monkeypatch):
        frame, attempts = frame_of(g2("H2O")), "sdas.label.tblite.ATTEMPTS"
        monkeypatch.setattr(attempts, {"fast": {"max-iter": 1}, "slow": {}})
        assert oracle_of("tblite").compute(frame).facts["converged_by"] == "slow"
        monkeypatch.setattr(attempts, {"fast": {"max-iter": 1}, "slow": {"max-iter": 2}})
        assert outcome_of(oracle_of("tblite"), frame).kind == "unconverged"

    def test_an_element_that_it_lacks_is_named(self, molecule):
        with pytest.raises(LabelError, match="GFN2-xTB has no Fr"):
            oracle_of("tblite").prepared(molecule([87, 1], [[0, 0, 0], [0, 0, 3]]))


def test_a_calculator_of_ase_gives_its_own_numbers():
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    label = oracle_of("ase:ase.calculators.emt:EMT").compute(frame_of(atoms))
    atoms.calc = EMT()
    assert label.energy == atoms.get_potential_energy()
    np.testing.assert_array_equal(label.forces, atoms.get_forces())
    np.testing.assert_allclose(label.stress, atoms.get_stress(voigt=False), atol=1e-15)


def test_frames_that_differ_in_charge_alone_have_labels_of_their_own(molecule, monkeypatch):
    from ase.calculators.lj import LennardJones

    class Charged(LennardJones):
        def calculate(self, atoms=None, *arguments):
            super().calculate(atoms, *arguments)
            self.results["free_energy"] = atoms.info["charge"]

    monkeypatch.setattr("ase.calculators.lj.Charged", Charged, raising=False)
    oracle, frame = oracle_of("ase:ase.calculators.lj:Charged"), molecule([1, 1], [[0, 0, 0], [0, 0, 1]])
    assert [oracle.compute(replace(frame, charge=charge)).energy for charge in (1.0, -1.0)] == [1.0, -1.0]


def test_a_model_is_an_oracle_whose_address_follows_its_weights(make_model, molecule, tmp_path):
    from sdas.run.checkpoint import save_model

    methods = []
    for seed, name in enumerate(("a", "b")):
        model = make_model(channels=4, heads=4, lmax=1, layers=1)
        model.readout.weight.data.mul_(1 + seed) if hasattr(model, "readout") else next(model.parameters()).data.add_(
            seed
        )
        save_model(tmp_path / name, model)
        oracle = oracle_of(f"model:{tmp_path / name}")
        methods.append(oracle.method)
    save_model(tmp_path / "copy", model)
    assert methods[0] != methods[1] == oracle_of(f"model:{tmp_path / 'copy'}").method
    assert methods[1] != oracle_of(f"model:{tmp_path / 'b'}", dtype="float32").method
    frame = molecule([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    label = oracle.compute(frame)
    assert label.forces[1, 1] == pytest.approx(slope(oracle, frame, 1, 1, 1e-4), abs=1e-6)
    with pytest.raises(LabelError, match="here: the model does not know Fe"):
        oracle.prepared(molecule([26], [[0, 0, 0]]))


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("orca", {}, "oracle 'orca': must read pyscf:FUNCTIONAL/BASIS"),
        ("pyscf:pbe", {}, "must read pyscf:FUNCTIONAL/BASIS"),
        ("pyscf:pbe/sto-3g", {"basis": "x"}, "basis is set to 'x' too"),
        ("pyscf:pbe/sto-3g", {"dispersion": "d9"}, "dispersion: input should be 'd3bj'"),
        ("tblite", {"chrge": 1}, "chrge is no setting; there are: charge, spin"),
        ("tblite:GFN9-xTB", {}, "got 'GFN9-xTB'"),
        ("ase:EMT", {}, "must read ase:MODULE:CLASS"),
        ("model:", {}, "must read"),
    ],
)
def test_an_oracle_that_cannot_be_read_is_an_error(text, settings, words):
    with pytest.raises(ConfigError, match=words):
        parse_oracle(text, settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ase:no_such:Thing", "No module named 'no_such'"),
        ("ase:ase:Nothing", "no attribute 'Nothing'"),
        ("ase:ase.atoms:Atoms", "gives no energy and no forces"),
        ("model:nowhere", "nowhere: neither a run directory"),
    ],
)
def test_a_calculator_that_cannot_be_made_is_an_error(text, words):
    with pytest.raises(SdasError, match=words):
        oracle_of(text)
