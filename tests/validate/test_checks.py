"""A sound potential passes every line, and each line goes red on a potential that is broken in its way."""

from __future__ import annotations

from dataclasses import replace

import ase.units
import numpy as np
import pytest
import torch

from sdas.data import Frame
from sdas.errors import SdasError
from sdas.md import SDASCalculator
from sdas.validate import Check, validate
from sdas.validate.accuracy import errors
from sdas.validate.check import judged
from sdas.validate.derivatives import forces_by_differences, stress_by_differences
from sdas.validate.dynamics import constant_energy
from sdas.validate.locality import crossing, extensivity
from sdas.validate.scans import bonds, dimers, hole, torsion
from sdas.validate.subject import Subject
from sdas.validate.symmetries import symmetries
from sdas.validate.vibrations import frequencies, vibrations

BROKEN = [
    ("place", symmetries, {"translation: energy"}),
    ("axis", symmetries, {"rotation: energy", "rotation: forces", "mirror: energy", "mirror: forces"}),
    ("hand", symmetries, {"mirror: energy", "mirror: forces"}),
    ("order", symmetries, {"renumbering: energy", "renumbering: forces"}),
    ("swirl", forces_by_differences, {"forces = −dE/dx"}),
    ("square", extensivity, {"two copies: energy", "two copies: forces"}),
    ("jump", crossing, {"a neighbor crosses the cutoff: energy"}),
    ("kink", torsion, {"torsion: roughness"}),
    ("hole", dimers, {"pairs of atoms alone: deepest hole"}),
    ("hole", bonds, {"bonds pressed: deepest hole"}),
    ("swirl", vibrations, {"asymmetry of the Hessian"}),
    ("swirl", lambda s: constant_energy(s, 300), {"drift at constant energy"}),
    ("hole", errors, {"forces on labels"}),
]


def lines(found: object) -> list[Check]:
    return found[0] if isinstance(found, tuple) else found  # type: ignore[return-value]


def test_a_sound_potential_passes(pair_potential, frames):
    found = validate(pair_potential(), frames, md_steps=300)
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert {name for name, each in status.items() if each == "skipped"} == {"stress = dE/dε / V"}
    assert found["passed"], [check for check in found["checks"] if check["status"] == "fail"]
    assert len(status) > 20


@pytest.mark.parametrize(("fault", "check", "red"), BROKEN)
def test_a_broken_potential_fails(subject, fault, check, red):
    failed = {line.name for line in lines(check(subject(fault))) if line.status == "fail"}
    assert red <= failed


def test_a_bond_of_two_atoms_alone_is_no_hole(pair_potential):
    """H₂ by its Morse curve, of a model whose frames keep hydrogen atoms 1.5 Å apart."""

    class Hydrogen(pair_potential):
        def energy(self, graph, positions, cells):
            d = graph.edge_vectors(positions, cells).norm(dim=1)
            pair = self.depth * 4.75 * ((1 - torch.exp(-1.94 * (d - 0.741))) ** 2 - 1) / 2
            energy = torch.zeros(graph.num_systems, dtype=d.dtype)
            return energy.index_add(0, graph.system[graph.edges.receivers], pair)

    none = np.zeros(3, dtype=bool)
    apart = Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.5]]), None, none, None, None, None, "apart")
    (line,), _ = dimers(Subject.of(Hydrogen(), [apart]))
    assert line.status == "pass", line


def test_stress_is_compared_with_strained_cells(pair_potential, cell):
    (sound,) = stress_by_differences(Subject.of(pair_potential(), [cell]))
    (broken,) = stress_by_differences(Subject.of(pair_potential("stress"), [cell]))
    assert (sound.status, broken.status) == ("pass", "fail")


def test_cells_side_by_side_are_twice_one_cell(pair_potential, cell):
    assert {line.status for line in extensivity(Subject.of(pair_potential(), [cell]))} == {"pass"}


def test_the_published_layer_jumps_at_the_cutoff_and_the_default_does_not(make_model, frames):
    status = {
        layer: {line.status for line in crossing(Subject.of(make_model(layer=layer), frames))}
        for layer in ("default", "paper")
    }
    assert status == {"default": {"pass"}, "paper": {"fail"}}


@pytest.mark.parametrize("spring", [30.0, -30.0])
def test_two_masses_vibrate_as_the_formula_says(spring):
    """ω = √(k/μ) along the axis; nothing else is left of a linear molecule."""
    along = np.zeros((6, 6))
    along[np.ix_([2, 5], [2, 5])] = spring * np.array([[1, -1], [-1, 1]])
    found = frequencies(along, np.array([1.0, 16.0]), np.array([[0.0, 0, 0], [0, 0, 1.0]]))
    joule_per_m2 = abs(spring) * ase.units._e * 1e20
    omega = np.sqrt(joule_per_m2 / (16 / 17 * ase.units._amu))
    wave_number = omega / (2 * np.pi * ase.units._c * 100)
    assert found.shape == (1,)
    assert found[0] == pytest.approx(np.sign(spring) * wave_number, rel=1e-9)


def test_frequencies_are_compared_with_a_reference(subject, pair_potential):
    same, _ = vibrations(subject(), SDASCalculator(pair_potential()))
    assert same[-1].value == pytest.approx(0, abs=0.01)
    stiff = pair_potential()
    stiff.depth.data *= 2
    other, curves = vibrations(subject(), SDASCalculator(stiff))
    assert other[-1].status == "fail"
    ratio = np.array(curves[0].lines["reference"]) / np.array(curves[0].lines["model"])
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=5e-3)  # minima are found to 1e-3 eV/Å


def test_a_hole_is_as_deep_as_the_energy_falls():
    assert hole(np.array([0.0, 1.0, 2.0, 5.0])) == 0
    assert hole(np.array([0.0, 3.0, 1.0, 2.5, -1.0, 9.0])) == 4.0


def test_what_is_no_number_fails():
    assert judged("g", "n", float("nan"), 1.0, "eV").status == "fail"
    assert judged("g", "n", float("inf"), 1.0, "eV").value is None


def test_a_model_that_gives_no_numbers_fails_and_the_suite_goes_on(pair_potential, frames):
    model = pair_potential()
    model.depth.data *= float("nan")
    found = validate(model, frames, md_steps=10)
    assert not found["passed"]
    assert all(check["status"] != "pass" for check in found["checks"])
    assert any("not finite" in check["note"] for check in found["checks"])


def test_frames_of_other_elements_are_an_error_and_no_verdict(pair_potential, cell):
    strange = replace(cell, numbers=cell.numbers + 5)
    with pytest.raises(SdasError, match="does not know"):
        validate(pair_potential(), [strange])
