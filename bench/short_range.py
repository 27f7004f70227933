"""Does the repulsion of nuclei mend what models do at short distance, and what does it cost in accuracy?

    python bench/short_range.py FRAMES RUN...

FRAMES are labelled frames that no run was trained on. RUN is a run directory; RUN+zbl is its model with the repulsion
added after the training, which changes nothing for atoms that are as far apart as in its frames. Writes
`bench/results/short_range.json`: force errors, and the lines of `sdas validate` on short range.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from record import HERE, _commit, _machine, _versions

from sdas.data import read_frames
from sdas.documents import read_document
from sdas.evaluate import evaluate
from sdas.run.folder import SUMMARY
from sdas.run.model import load_run_model
from sdas.validate.scans import bonds, dimers
from sdas.validate.subject import Subject
from sdas_kernels.nn import SDAS

SCANNED = 60


def with_repulsion(model: Any) -> SDAS:
    """The same weights, and the repulsion."""
    made = SDAS(**model.config | {"repulsion": "zbl"}).to(model.embedding.weight.dtype)
    weights = {name: weight for name, weight in model.state_dict().items() if name != "_extra_state"}
    made.load_state_dict(dict(weights))
    return made.eval()


def main(data: str, words: list[str]) -> None:
    """Measure and write."""
    frames, cases = list(read_frames(data)), []
    for word in words:
        run, added, _ = word.partition("+zbl")
        model = load_run_model(run)
        model = with_repulsion(model) if added else model
        subject = Subject.of(model, frames[:SCANNED])
        cases.append(
            {
                "run": Path(run).name + added,
                "repulsion": model.config.get("repulsion"),
                "added_after_training": bool(added),
                "steps": read_document(Path(run) / SUMMARY)["steps"],
                "force_mae_mev_per_ang": evaluate(model, frames, 50).metrics["force_mae_mev_per_ang"],
                "lines": {
                    check.name: {"eV": check.value, "status": check.status, "worst": check.note}
                    for check in dimers(subject)[0] + bonds(subject)[0]
                },
            }
        )
        print(json.dumps(cases[-1], indent=1))
    record = {"machine": _machine(), "versions": _versions(["ase"]), "commit": _commit(), "data": Path(data).name}
    path = HERE / "results" / "short_range.json"
    path.write_text(json.dumps({**record, "cases": cases}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
