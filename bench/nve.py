"""Does a model keep the energy over 100 ps? Ten replicas at 300 K and 0.5 fs, in one batch.

    python bench/nve.py MODEL=FRAMES [PS]

MODEL is a run directory, or the name of a potential that comes with the package. FRAMES is a file whose first frame is
the start. 2 ps of Langevin dynamics come first, so that replicas begin apart and at the temperature. The arithmetic of
the model is float32, where rounding adds to the drift.

Writes `bench/results/md/nve.json`, where a case takes the place of an older one. Dynamics lie in build/, so an
interrupted run goes on; with more picoseconds it is lengthened. Every commit that a part was run at is recorded. On one
idle core 100 ps take five minutes for ethanol and a quarter of an hour for aspirin.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from record import HERE, _commit, _machine, _versions

from sdas import potentials
from sdas.data import read_frames
from sdas.documents import read_document
from sdas.md import Replicas
from sdas.md.drift import energy_drift
from sdas.md.faults import Limits
from sdas.md.replica_run import read_log, run_replicas
from sdas.run.folder import SUMMARY
from sdas.run.model import load_run_model

WORK = HERE.parent / "build" / "bench-nve"
COUNT, KELVIN, TIMESTEP_FS, DTYPE = 10, 300.0, 0.5, "float32"
PS, THERMALIZATION = 100.0, 4000
EVERY, SAVE_EVERY = 100, 10_000
STRETCH_ANG = 0.5
"""A bond that has changed by so much tells a blow-up; no bond breaks at 300 K."""
BOUND = 0.1
"""meV per atom and ps."""


def source(model: str) -> tuple[str, Path, dict[str, Any]]:
    """What to call a model, its folder, and what is known of its training."""
    if model in potentials.NAMES:
        return f"the potential {model!r} of the package", potentials.folder(model), potentials.card(model)["training"]
    return f"the run {Path(model).name!r}", Path(model), read_document(Path(model) / SUMMARY)


def spread(run: Path, start: Atoms) -> list[Atoms]:
    """Starts from 2 ps at the temperature."""
    warm = Replicas(run, [start] * COUNT, "langevin", KELVIN, timestep_fs=TIMESTEP_FS, seed=100, dtype=DTYPE)
    warm.run(THERMALIZATION)
    return [warm.atoms(replica) for replica in range(COUNT)]


def noted_commits(path: Path) -> list[str]:
    """Those that parts of the run were made at, the present one included and noted."""
    commits = path.read_text().split() if path.exists() else []
    if commits[-1:] != [_commit()]:
        commits.append(_commit())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(commits) + "\n")
    return commits


def measured(model: str, data: str, ps: float) -> dict[str, Any]:
    """Drifts, verdicts and the time that it took."""
    name, run, training = source(model)
    first = next(iter(read_frames(data)))
    atoms = len(first.numbers)
    starts = spread(run, Atoms(first.numbers, first.positions))
    replicas = Replicas(
        load_run_model(run),
        starts,
        "nve",
        KELVIN,
        timestep_fs=TIMESTEP_FS,
        limits=Limits(stretch_ang=STRETCH_ANG),
        dtype=DTYPE,
    )
    folder, begin = WORK / run.name, time.process_time()
    commits = noted_commits(folder.with_suffix(".commits"))
    found = run_replicas(
        replicas, round(1000 * ps / TIMESTEP_FS), folder, every=EVERY, save_every=SAVE_EVERY, progress=True
    )
    log = read_log(folder)
    kept = [log["replica"] == replica for replica in range(COUNT)]
    fitted = [energy_drift(log["time_fs"][rows], log["total_ev"][rows], atoms) for rows in kept]
    drifts = [None if each is None else each.drift_mev_per_atom_per_ps for each in fitted]
    largest = max(abs(drift) for drift in drifts if drift is not None)
    stable = all(each.verdict is None for each in found.replicas)
    return {
        "start": Path(data).name,
        "commits": commits,
        "model": name,
        "ps": ps,
        "atoms": atoms,
        "training": {fact: training.get(fact) for fact in ("steps", "wall_s", "train_flops")},
        "drifts_mev_per_atom_per_ps": drifts,
        "largest_drift": largest,
        "fluctuation_mev_per_atom": float(np.mean([each.fluctuation_mev_per_atom for each in fitted if each])),
        "mean_temperatures_k": [each.mean_temperature_k for each in found.replicas],
        "verdicts": [None if each.verdict is None else each.verdict.reason for each in found.replicas],
        "stable_ps": found.stable_fs / 1000,
        "seconds_of_this_call": round(time.process_time() - begin),
        "ns_per_day": found.ns_per_day or None,  # none if all was run before
        "holds": stable and largest <= BOUND,
    }


def main(pair: str, ps: float) -> None:
    """Run and write."""
    path = HERE / "results" / "md" / "nve.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    model, _, data = pair.partition("=")
    case = measured(model, data, ps)
    before = json.loads(path.read_text())["cases"] if path.exists() else []
    record: dict[str, Any] = {
        "claim": f"no drift above {BOUND} meV/atom/ps and no blow-up in {PS:g} ps",
        "machine": _machine(),
        "versions": _versions(["ase"]),
        "timestep_fs": TIMESTEP_FS,
        "temperature_k": KELVIN,
        "replicas": COUNT,
        "dtype": DTYPE,
        "cases": [other for other in before if other["start"] != case["start"]] + [case],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(case, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else PS)
