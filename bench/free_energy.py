"""Does a model have the free energies of its reference, GFN2-xTB?

    python bench/free_energy.py ethanol               the torsion C–C–O–H
    python bench/free_energy.py malonaldehyde         the proton between the two oxygens of the enol
    python bench/free_energy.py ethanol independent   the same by dynamics of the reference itself
    python bench/free_energy.py ethanol grid          energies along the variable, by GFN2-xTB and PBE/def2-SVP

Frames are labelled by the reference, a model is trained on them for 8000 steps, and the variable is sampled by it. The
reference labels frames of that run, by which its free energy is reweighted. It is compared to that of `independent`,
where that was recorded.

Frames of ethanol are those that come with the package. Those of malonaldehyde are from the reference's dynamics at
500 K, held at places along the variable. Writes `bench/results/free_energy/` and pictures in `docs/pictures/`. What is
computed lies in build/, so an interrupted run goes on. Seconds are of CPU, those of labels by the clock.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.constraints import FixInternals
from ase.optimize import BFGS
from record import _commit, _machine, _versions

from sdas.config.label import ResourcesConfig, parse_oracle
from sdas.data import Frame, read_frames, sample
from sdas.data.writing import write_frames
from sdas.free_energy import Axis, SinglePoints, free_energy, parse_variable
from sdas.free_energy.oracle import OracleForces
from sdas.free_energy.reweighting import Reweighting
from sdas.free_energy.run import PICTURE, FreeEnergy, Sampling
from sdas.label import Label, LabelStore, label_frames
from sdas.md import Replicas
from sdas.md.forces import EnergyFunction
from sdas.md.systems import Systems

ROOT = Path(__file__).resolve().parents[1]
WORK, RESULTS = ROOT / "build" / "bench-free-energy", ROOT / "bench" / "results" / "free_energy"
PICTURES = ROOT / "docs" / "pictures"
ORACLE, DFT, FRAMES, TRAINING = "tblite:GFN2-xTB", "pyscf:pbe/def2-svp", 600, 8000
HELD, HELD_KELVIN, HELD_WIDTH, HELD_STEPS, HELD_EVERY = 16, 500.0, 0.15, 1000, 25
"""Replicas that are held along a variable, how wide they spread about their places in its unit, and their dynamics."""
GRID, BINS, LABELS = 7, 24, 500
MODEL = Sampling(steps=20_000, timestep_fs=1.0, replicas=64, walkers=8, increment=0.1, every=5, save_every=1000)
REFERENCE = Sampling(steps=8000, timestep_fs=1.0, replicas=8, walkers=2, increment=0.1, every=5, save_every=1000)


@dataclass(frozen=True)
class Case:
    """structure: the start. variable, low, high: what is sampled. held: frames for training are made along it."""

    structure: Atoms
    variable: str
    low: float
    high: float
    held: bool


def ethanol() -> Case:
    """The chain C–C–O–H, by bonds."""
    first = next(iter(read_frames(sample("ethanol")[0])))
    atoms = Atoms(first.numbers, first.positions)
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    near = np.argsort(atoms.get_distances(oxygen, range(len(atoms))))
    hydrogen = next(int(atom) for atom in near if atoms.numbers[atom] == 1)
    carbon = next(int(atom) for atom in near if atoms.numbers[atom] == 6)
    other = next(int(atom) for atom in np.flatnonzero(atoms.numbers == 6) if atom != carbon)
    return Case(atoms, f"dihedral:{other},{carbon},{oxygen},{hydrogen}", -180, 180, held=False)


def malonaldehyde() -> Case:
    """The enol with its hydrogen bond, as GFN2-xTB has it. By symmetry its free energy is even."""
    positions = [
        [0.570, -1.697, -0.045], [0.989, -0.627, -0.471], [0.320, 0.630, -0.294], [-0.855, 0.679, 0.384],
        [-1.449, -0.365, 0.908], [1.937, -0.592, -1.031], [0.758, 1.524, -0.701], [-1.390, 1.610, 0.539],
        [-0.880, -1.162, 0.711],
    ]  # fmt: skip
    return Case(Atoms("OCCCOHHHH", positions), "difference:0,8,4", -1.1, 1.1, held=True)


CASES = {"ethanol": ethanol, "malonaldehyde": malonaldehyde}


def structures(case: Case) -> list[Frame]:
    """Frames to be labelled."""
    if not case.held:
        frames = list(read_frames(sample("ethanol")[0]))
        return frames[:: max(1, len(frames) // FRAMES)][:FRAMES]
    variable, places = parse_variable(case.variable), torch.linspace(case.low, case.high, HELD, dtype=torch.float64)
    stiffness = units.kB * HELD_KELVIN / HELD_WIDTH**2

    def held(systems: Systems) -> torch.Tensor:
        return stiffness / 2 * (variable(systems) - places[systems.replica]) ** 2

    replicas = Replicas(
        OracleForces(ORACLE), [case.structure] * HELD, "langevin", HELD_KELVIN, bias=EnergyFunction(held, True)
    )
    frames, nothing = list[Frame](), np.zeros(3, dtype=bool)

    def keep(now: Replicas) -> None:
        for atoms in (now.atoms(replica) for replica in now.running if now.step):
            source = f"step {now.step} of replica {len(frames) % HELD}"
            frames.append(Frame(atoms.numbers, atoms.positions, None, nothing, None, None, None, source))

    replicas.run(HELD_STEPS, keep, every=HELD_EVERY, progress=True)
    return frames


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def trained(case: Case, folder: Path) -> tuple[Path, dict[str, float]]:
    """The run of a model trained on the reference, and the seconds that its parts took."""
    run, bill = folder / "run", folder / "seconds.json"
    if not bill.exists():
        shutil.rmtree(run, ignore_errors=True)  # of a killed training: its seconds are not known
        begin = cpu_seconds()
        frames = structures(case)
        seconds = {"frames": cpu_seconds() - begin}
        with LabelStore.open(folder / "labels") as store:
            done = label_frames(frames, parse_oracle(ORACLE, {}), store, ResourcesConfig())
        outcomes = zip(done.frames, done.outcomes, strict=True)
        labels = [(frame, each) for frame, each in outcomes if isinstance(each, Label)]
        seconds["labels"] = sum(label.facts["seconds"] for _, label in labels)
        labelled = [(replace(frame, energy=label.energy, forces=label.forces), {}) for frame, label in labels]
        write_frames(folder / "frames.extxyz", labelled)
        options = [f"train.steps={TRAINING}", "train.threads=1", f"run_dir={run}"]
        flags = [word for option in options for word in ("--set", option)]
        command = [sys.executable, "-P", "-m", "sdas.cli", "train", str(folder / "frames.extxyz"), *flags]
        begin = cpu_seconds()
        subprocess.run(command, check=True)
        seconds["training"] = cpu_seconds() - begin
        bill.write_text(json.dumps({name: round(value, 1) for name, value in seconds.items()}))
    return run, json.loads(bill.read_text())


def said() -> dict[str, Any]:
    """Of every result."""
    return {"machine": _machine(), "versions": _versions(["tblite", "pyscf", "ase"]), "commit": _commit()}


def axis_of(case: Case) -> Axis:
    """The variable in bins."""
    return Axis(parse_variable(case.variable), case.low, case.high, BINS)


def facts(case: Case, sampling: Sampling) -> dict[str, Any]:
    """Of a run."""
    settings = {name: getattr(sampling, name) for name in ("steps", "timestep_fs", "replicas", "walkers")}
    return {**said(), "oracle": ORACLE, "variable": case.variable, **settings}


def asymmetry(curve: np.ndarray) -> float:
    """|F(ξ) − F(−ξ)| on average, k_B T: zero by the symmetry of both molecules."""
    return float(np.nanmean(np.abs(curve - curve[::-1])))


def symmetry(found: Reweighting) -> dict[str, float]:
    """Whether error bars are honest: the differences at ξ and −ξ should be equal, (apart / error)² 1 on average."""
    half = BINS // 2
    apart = (found.difference - found.difference[::-1])[:half]
    error = np.hypot(found.error, found.error[::-1])[:half]
    return {
        "mean_kt": float(np.abs(apart).mean()),
        "chi_square_per_pair": float(((apart / error) ** 2).mean()),
        "largest_over_error": float(np.abs(apart / error).max()),
    }


def sampled(name: str) -> dict[str, Any]:
    """Free energies of the model, and of the reference by reweighting."""
    case, folder = CASES[name](), WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    run, seconds = trained(case, folder)
    reference = SinglePoints(ORACLE, LABELS)
    found = free_energy(
        str(run), case.structure, [axis_of(case)], MODEL, folder / "model", reference=reference, progress=True,
        dtype="float32",
    )  # fmt: skip
    error, reweighting, landscape = found.error, found.reweighting, found.landscape
    assert error is not None
    assert reweighting is not None
    shutil.copy(folder / "model" / PICTURE, PICTURES / f"free_energy_{name}.svg")
    return {
        "claim": "the model has the free energies of its reference",
        **facts(case, MODEL),
        "training": {"frames": FRAMES if not case.held else HELD * (HELD_STEPS // HELD_EVERY), "steps": TRAINING},
        "seconds": seconds | {"dynamics": round(found.cost["dynamics_s"], 1)}
        | {"single_energies": round(found.cost["single_energies_s"], 1)},
        "single_energies": found.cost["single_energies"],
        "sampling_error": error.as_dict(),
        "asymmetry_kt": {
            "model": asymmetry(landscape.mean),
            "reference": asymmetry(reweighting.reference(landscape)[0]),
        },
        "symmetry": symmetry(reweighting),
        "beside_independent_dynamics": beside(name, found),
        "model": landscape.as_dict() | {"flatness": found.flatness, "increments_kt": found.increments},
        "reference": reweighting.as_dict(landscape),
        "notes": found.notes,
    }  # fmt: skip


def beside(name: str, found: FreeEnergy) -> dict[str, Any] | None:
    """The reference by reweighting less that by its own dynamics, where that was recorded, and their joint errors."""
    path = RESULTS / f"{name}_independent.json"
    if not path.exists():
        return None
    recorded = json.loads(path.read_text())["reference"]
    theirs, their_error = (np.array(recorded[key], dtype=float) for key in ("free_energy_kt", "standard_error_kt"))
    assert found.reweighting is not None
    ours, our_error = found.reweighting.reference(found.landscape)
    assert our_error is not None
    apart, joint = ours - theirs, np.hypot(our_error, their_error)
    apart -= np.nanmean(apart)
    return {
        "difference_kt": apart.tolist(),
        "joint_error_kt": joint.tolist(),
        "mean_kt": float(np.nanmean(np.abs(apart))),
        "noise_kt": float(np.sqrt(2 / np.pi) * np.nanmean(joint)),
        "bins_within_two_errors": int((np.abs(apart) <= 2 * joint).sum()),
        "mean_of_even_part_kt": float(np.nanmean(np.abs(apart + apart[::-1])) / 2),
    }


def independent(name: str) -> dict[str, Any]:
    """Free energies of the reference by its own dynamics."""
    case, folder = CASES[name](), WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    forces, axes = OracleForces(ORACLE), [axis_of(case)]
    found = free_energy(forces, case.structure, axes, REFERENCE, folder / "reference", progress=True)
    return {
        "claim": "what dynamics of the reference itself give in as much time as can be had",
        **facts(case, REFERENCE),
        "seconds": {"dynamics": round(found.cost["dynamics_s"], 1)},
        "single_energies": REFERENCE.steps * REFERENCE.replicas,
        "asymmetry_kt": asymmetry(found.landscape.mean),
        "reference": found.landscape.as_dict() | {"flatness": found.flatness, "increments_kt": found.increments},
        "notes": found.notes,
    }


def held_at(case: Case, value: float) -> Atoms:
    """The structure of lowest energy by the reference with this value of the variable."""
    from tblite.ase import TBLite

    atoms, numbers = case.structure.copy(), [int(word) for word in case.variable.partition(":")[2].split(",")]
    if len(numbers) == 4:
        atoms.set_dihedral(*numbers, value, indices=[numbers[3]])
        kept = FixInternals(dihedrals_deg=[[value % 360, numbers]])
    else:
        i, j, k = numbers
        kept = FixInternals(bondcombos=[[value, [[i, j, 1.0], [j, k, -1.0]]]], epsilon=1e-6)
    atoms.calc = TBLite(method=ORACLE.partition(":")[2], verbosity=0)
    atoms.set_constraint(kept)
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=100)
    atoms.set_constraint()
    return atoms


def grid(name: str) -> dict[str, Any]:
    """Energies of the structures that are lowest by the reference, by it and by density functional theory."""
    case, none = CASES[name](), np.zeros(3, dtype=bool)
    values = np.linspace(0, case.high, GRID) if name == "ethanol" else np.linspace(0, 0.9, GRID)
    relaxed = [held_at(case, value) for value in values]
    frames = [Frame(each.numbers, each.positions, None, none, None, None, None, "grid") for each in relaxed]
    curves = {}
    for word in (ORACLE, DFT):
        with LabelStore.open(WORK / f"{name}-grid-labels") as store:
            labels = label_frames(frames, parse_oracle(word, {}), store, ResourcesConfig()).outcomes
        energies = np.array([label.energy if isinstance(label, Label) else np.nan for label in labels])
        curves[word] = ((energies - np.nanmin(energies)) / (units.kB * 300)).tolist()
    return {"claim": "how far the reference itself is", **said(), "variable": case.variable} | {
        "values": values.tolist(),
        "energy_kt_at_300_k": curves,
    }


def main(name: str, what: str = "") -> None:
    """Measure and write."""
    WORK.mkdir(parents=True, exist_ok=True)
    record = {"": sampled, "independent": independent, "grid": grid}[what](name)
    path = RESULTS / f"{'_'.join(filter(None, (name, what)))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    shown = (
        "sampling_error",
        "asymmetry_kt",
        "symmetry",
        "beside_independent_dynamics",
        "seconds",
        "energy_kt_at_300_k",
        "notes",
    )
    print(json.dumps({key: record[key] for key in shown if key in record}))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["ethanol"])
