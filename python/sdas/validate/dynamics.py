"""A short run at constant energy keeps its energy."""

from __future__ import annotations

from sdas.interpret.bonds import atoms_of
from sdas.md import Replicas
from sdas.md.drift import energy_drift
from sdas.validate.check import Check, Curve, failed, judged, skipped
from sdas.validate.subject import Subject

TIMESTEP_FS, TEMPERATURE_K = 0.5, 300.0
DRIFT_MEV_PER_ATOM_PER_PS = 0.1
FLUCTUATION_MEV_PER_ATOM = 2.0
FEWEST_STEPS = 200
"""100 fs, a few periods of the slower vibrations: of less a slope says nothing."""


def constant_energy(subject: Subject, steps: int) -> tuple[list[Check], list[Curve]]:
    """Drift and fluctuation of the total energy from the first frame at 300 K.

    In a short run a line through mere oscillation has a slope too, about the fluctuation over the duration: the bound
    of the drift is 0.1 meV/atom/ps and twice that.
    """
    group = "dynamics"
    if steps < FEWEST_STEPS:
        return [skipped(group, "drift at constant energy", f"{steps} steps are too few: wanted are {FEWEST_STEPS}")], []
    run = Replicas(subject.exact, [atoms_of(subject.first)], "nve", TEMPERATURE_K, timestep_fs=TIMESTEP_FS)
    times, energies = list[float](), list[float]()

    def observe(now: Replicas) -> None:
        if len(now):
            times.append(now.time_fs)
            energies.append(float(now.conserved()[0]))

    run.run(steps, observe=observe)
    verdict = run.verdicts[0]
    if verdict is not None:
        return [failed(group, "drift at constant energy", f"ended after step {verdict.step}: {verdict.reason}")], []
    atoms = len(subject.first)
    drift = energy_drift(times, energies, atoms)
    assert drift is not None
    spread = drift.fluctuation_mev_per_atom
    bound = DRIFT_MEV_PER_ATOM_PER_PS + 2 * spread / (drift.to_ps - drift.from_ps)
    checks = [
        judged(
            group,
            "drift at constant energy",
            abs(drift.drift_mev_per_atom_per_ps),
            bound,
            "meV/atom/ps",
            f"{steps} steps of 0.5 fs",
        ),
        judged(group, "fluctuation about the drift", spread, FLUCTUATION_MEV_PER_ATOM, "meV/atom"),
    ]
    change = [1000 * (energy - energies[0]) / atoms for energy in energies]
    return checks, [Curve("Total energy", "time (fs)", "change (meV/atom)", times, {"total": change})]
