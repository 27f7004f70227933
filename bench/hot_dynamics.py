"""How long does a molecule live that is hotter than its training frames, with inner cutoffs and without?

    python bench/hot_dynamics.py POTENTIAL=TRAINED...

POTENTIAL is the name of a shipped potential, TRAINED the frames near 500 K that it was trained on. Ten replicas of
Langevin dynamics, 20 ps at 0.5 fs, in float32. A replica ends at 20 000 K, or where two atoms are closer than 0.4 Å. It
has been in a hole where its potential energy is more than 1 eV below every training frame. Writes
`bench/results/md/hot_dynamics.json`, where a case takes the place of an older one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from ase import Atoms
from record import HERE, _commit, _machine, _versions
from short_range import with_repulsion

import sdas
from sdas import potentials
from sdas.data import read_frames
from sdas.md import Replicas

COUNT, PS, TIMESTEP_FS = 10, 20.0, 0.5
KELVIN = (1000.0, 1500.0)
HOLE_EV = 1.0


def lived(name: str, trained: list[Any], kind: str | None, kelvin: float) -> dict[str, Any]:
    """Of the replicas, when they ended and which were in a hole."""
    frame, model = potentials.frame(name), with_repulsion(sdas.pretrained(name), kind, trained)
    replicas = Replicas(
        model,
        [Atoms(frame.numbers, frame.positions)] * COUNT,
        "langevin",
        kelvin,
        timestep_fs=TIMESTEP_FS,
        seed=0,
        dtype="float32",
    )
    lowest = np.full(COUNT, np.inf)

    def observe(now: Replicas) -> None:
        rows = now.running
        lowest[rows] = np.minimum(lowest[rows], now.results["energy"].numpy())

    replicas.run(round(1000 * PS / TIMESTEP_FS), observe=observe)
    ends = [None if verdict is None else verdict.time_fs / 1000 for verdict in replicas.verdicts]
    deepest = lowest - min(frame.energy for frame in trained)
    return {
        "potential": name,
        "repulsion": kind,
        "kelvin": kelvin,
        "live_to_the_end": ends.count(None),
        "mean_life_ps": float(np.mean([PS if end is None else end for end in ends])),
        "in_a_hole": int((deepest < -HOLE_EV).sum()),
        "verdicts": [None if verdict is None else verdict.reason for verdict in replicas.verdicts],
        "ends_ps": ends,
        "lowest_ev_above_training": [round(float(value), 2) for value in deepest],
    }


def main(words: list[str]) -> None:
    """Run and write."""
    path = HERE / "results" / "md" / "hot_dynamics.json"
    cases = json.loads(path.read_text())["cases"] if path.exists() else []
    for word in words:
        name, _, data = word.partition("=")
        trained = list(read_frames(data))
        for kind in (None, "inner-cutoff"):
            for kelvin in KELVIN:
                case = lived(name, trained, kind, kelvin)
                keys = ("potential", "repulsion", "kelvin")
                cases = [other for other in cases if any(other[key] != case[key] for key in keys)] + [case]
                print(*(case[key] for key in (*keys, "live_to_the_end", "mean_life_ps", "in_a_hole")), flush=True)
                record = {"machine": _machine(), "versions": _versions(["ase"]), "commit": _commit()}
                record |= {"replicas": COUNT, "ps": PS, "timestep_fs": TIMESTEP_FS, "cases": cases}
                path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
