"""A reference's free energies from frames of a model: exact, honest about their errors, and silent without overlap."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.morse import MorsePotential

from sdas.documents import read_document
from sdas.errors import SdasError
from sdas.free_energy import Axis, SinglePoints, free_energy, parse_variable, reweight
from sdas.free_energy.run import Sampling
from sdas.free_energy.single_points import Energies
from sdas.label import LabelStore
from sdas.md.forces import EnergyFunction

KT = units.kB * 300
BINS, BARRIER, LOWER = 20, 3.0, 2.2
EDGES = np.linspace(-1.4, 1.4, BINS + 1)
SAMPLING = Sampling(steps=800, timestep_fs=4.0, replicas=32, walkers=16, every=4, save_every=80, friction_per_ps=20.0)


def tilted(x):
    """k_B T: a lower barrier than the model's, and one well higher."""
    return LOWER * (x**2 - 1) ** 2 + 0.4 * x


def exact_difference(model, reference, weight):
    """F_ref − F_model in bins by quadrature, of curves k_B T and how often the model is at x within a bin."""
    fine = EDGES[:-1, None] + (np.arange(400) + 0.5) / 400 * (EDGES[1] - EDGES[0])
    shares = weight(fine) / weight(fine).sum(1, keepdims=True)
    found = -np.log((shares * np.exp(model(fine) - reference(fine))).sum(1))
    return found - found.mean()


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """The folder of one run of the model, which every test of it goes on from."""
    return tmp_path_factory.mktemp("sampled") / "out"


class Analytic:
    """Energies k_B T of a particle by a formula."""

    name = "a formula"

    def __init__(self, energy, labels=60):
        self.energy, self.labels, self.asked = energy, labels, 0

    def check(self, frame):
        assert frame.energy is None

    def energies(self, frames, folder, progress):
        self.asked += len(frames)
        positions = np.array([frame.positions[0] for frame in frames])
        return Energies(KT * self.energy(*positions.T), 0.0, [])


@pytest.mark.parametrize("together", [0.0, 0.6])
def test_errors_are_honest_whether_frames_of_a_stretch_are_independent_or_alike(together):
    """y is normal at each x, by the model of variance 0.2 and by the reference of variance 0.15 about another mean.

    Its share `together` of the variance is common to a bin's frames of a stretch.
    """
    covered, off, inefficiency = [], [], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        bins, stretches = np.repeat(np.arange(BINS), 120), np.tile(np.repeat(np.arange(40), 3), BINS)
        x = EDGES[bins] + generator.uniform(0, EDGES[1] - EDGES[0], len(bins))
        common = generator.normal(size=(BINS, 40))[bins, stretches]
        z = np.sqrt(together) * common + np.sqrt(1 - together) * generator.normal(size=len(bins))
        y = np.sqrt(0.2) * z
        work = tilted(x) - BARRIER * (x**2 - 1) ** 2 + (y - 0.1) ** 2 / 0.3 - y**2 / 0.4
        found = reweight(work, bins, stretches, (BINS,))
        exact = exact_difference(lambda x: BARRIER * (x**2 - 1) ** 2, tilted, np.ones_like)
        covered.append((found.interval[0] <= exact) & (exact <= found.interval[1]))
        off.append(found.difference - exact)
        inefficiency.append(found.inefficiency)
        assert found.frames.tolist() == [120] * BINS
    assert 0.93 < np.mean(covered) < 0.97
    assert np.abs(off).mean() < 0.05
    assert np.mean(inefficiency) == pytest.approx(1 + 2 * together, rel=0.25)  # 3 frames of a stretch


def test_effective_frames_are_those_of_a_normal_spread():
    """Of n frames whose work is normal with variance σ², n exp(−σ²) count."""
    work = np.random.default_rng(1).normal(0, 0.8, 40_000)
    found = reweight(work, np.zeros(40_000, dtype=int), np.arange(40_000) % 50, (1,))
    assert float(found.effective[0]) == pytest.approx(40_000 * np.exp(-0.64), rel=0.03)
    assert found.spread == pytest.approx(0.8, rel=0.02)


def test_one_double_well_is_reweighted_to_another(well, particle, x_axis, sampled):
    reference = Analytic(lambda x, y, z: tilted(x) + 3.5 * (y - 0.3 * x) ** 2 + 2.5 * z**2)
    found = free_energy(well, particle, [x_axis], SAMPLING, sampled, reference=reference)
    exact = exact_difference(lambda x: BARRIER * (x**2 - 1) ** 2, tilted, np.ones_like)
    reweighting, error = found.reweighting, found.error
    assert np.abs(reweighting.difference - exact).max() < 0.2
    assert np.abs(reweighting.difference - exact).mean() < 0.05
    assert np.mean((reweighting.interval[0] <= exact) & (exact <= reweighting.interval[1])) > 0.8
    assert error.mean_kt == pytest.approx(np.abs(exact).mean(), abs=0.05)
    assert error.noise_kt < 0.06
    written = read_document(sampled / "free_energy.json")
    assert written["reweighting"]["reference"] == "a formula"
    assert written["reweighting"]["overlap"] == "good"
    assert written["cost"]["single_energies"] == reference.asked == reweighting.frames.sum()
    assert reweighting.frames.max() == 60
    assert written["cost"]["dynamics_s"] > 0
    shifted = np.array(written["reweighting"]["free_energy_kt"]) - written["free_energy_kt"]
    np.testing.assert_allclose(shifted, reweighting.difference, atol=1e-9)


def test_without_overlap_there_is_a_verdict_and_no_number(well, particle, x_axis, sampled):
    """The reference holds y elsewhere: everywhere, and only where x is positive."""
    few = free_energy(well, particle, [x_axis], SAMPLING, sampled, reference=Analytic(lambda x, y, z: 0 * x, 5))
    assert few.reweighting.overlap(few.landscape) == "too few frames"
    assert any("draw more (--labels)" in note for note in few.notes)
    far = Analytic(lambda x, y, z: 20.0 * (y - x / 2 - 3) ** 2)
    found = free_energy(well, particle, [x_axis], SAMPLING, sampled, reference=far)
    assert found.reweighting.overlap(found.landscape) == "none"
    assert found.error is None
    assert any(note.startswith("the reference is known in 0 of 20 bins") for note in found.notes)
    written = read_document(sampled / "free_energy.json")
    assert written["sampling_error"] is None
    assert written["reweighting"]["difference_kt"] == [None] * BINS
    partly = Analytic(
        lambda x, y, z: 2.5 * ((y - x / 2) ** 2 + z**2) + 40 * np.maximum(x - 0.3, 0) * (y - x / 2 - 2) ** 2
    )
    found = free_energy(well, particle, [x_axis], SAMPLING, sampled, reference=partly)
    known = found.reweighting.known
    assert found.reweighting.overlap(found.landscape) == "partial"
    assert known[:10].all()
    assert not known[-5:].any()
    assert found.error.bins == known.sum()
    assert any("draw more (--labels), or make the model better" in note for note in found.notes)


def test_what_reweighting_cannot_use_is_refused(particle, well, x_axis, tmp_path):
    with pytest.raises(SdasError, match="finite energies"):
        reweight(np.array([0.0, np.nan]), np.zeros(2, dtype=int), np.arange(2), (1,))
    with pytest.raises(SdasError, match="labels of each bin must be 1 at least, got 0"):
        SinglePoints("tblite:GFN2-xTB", 0)
    with pytest.raises(SdasError, match="reference must be a Landscape or SinglePoints, got str"):
        free_energy(well, particle, [x_axis], SAMPLING, tmp_path / "out", reference="tblite:GFN2-xTB")
    short = Sampling(steps=20, timestep_fs=4.0, replicas=2, every=4, save_every=800)
    with pytest.raises(SdasError, match="no frame of the later half of the dynamics lies within the range: run longer"):
        free_energy(well, particle, [x_axis], short, tmp_path / "out", reference=Analytic(lambda x, y, z: x))


def test_a_killed_labelling_goes_on_and_labels_nothing_twice(tmp_path):
    """A bond, harmonic by the model and Morse's by the reference, an oracle of `sdas label`; each a function of r."""
    atoms = Atoms("HF", [[0, 0, 0], [0, 0, 1.0]])
    stiff, depth, steep = 60 * KT, 10 * KT, 3.0

    def spring(systems):
        ends = systems.positions.reshape(-1, 2, 3)
        return stiff * ((ends[:, 1] - ends[:, 0]).norm(dim=1) - 1.0) ** 2

    model, axes = EnergyFunction(spring, True), [Axis(parse_variable("distance:0,1"), 0.8, 1.2, 8)]
    sampling = Sampling(steps=400, timestep_fs=0.5, replicas=16, walkers=8, every=2, save_every=40)
    morse = {"epsilon": depth, "r0": 1.0, "rho0": steep, "rcut1": 5.0, "rcut2": 6.0}
    reference = SinglePoints("ase:ase.calculators.morse:MorsePotential", 25, {"arguments": morse})
    folder = tmp_path / "out"
    child = os.fork()
    if child == 0:
        put, count = LabelStore.put, [0]

        def killing(self, key, frame, label):
            put(self, key, frame, label)
            count[0] += 1
            if count[0] == 20:
                os.kill(os.getpid(), signal.SIGKILL)

        LabelStore.put = killing
        try:
            free_energy(model, atoms, axes, sampling, folder, reference=reference)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with LabelStore.open(folder / "labels") as store:
        assert len(store) == 20
    found = free_energy(model, atoms, axes, sampling, folder, reference=reference)
    frames = found.cost["single_energies"]
    with LabelStore.open(folder / "labels") as store:
        assert len(store) == frames > 20
    r = axes[0].low + axes[0].width * (np.arange(160) + 0.5) / 20
    energies = [MorsePotential(**morse).get_potential_energy(Atoms("HF", [[0, 0, 0], [0, 0, each]])) for each in r]
    work = (np.array(energies) - stiff * (r - 1.0) ** 2).reshape(8, 20) / KT
    exact = -np.log(np.exp(-work).mean(1))
    np.testing.assert_allclose(found.reweighting.difference, exact - exact.mean(), atol=0.1)
