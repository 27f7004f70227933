"""`sdas label`: energies and forces for frames, by quantum chemistry or any calculator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from tqdm import tqdm

from sdas.config.label import parse_oracle, parse_resources
from sdas.config.reading import make_reading_options
from sdas.config.reading_flags import takes_reading_options
from sdas.data import Frame, read_frames
from sdas.data.writing import check_place, write_frames
from sdas.documents import write_document
from sdas.errors import ConfigError, LabelError
from sdas.label.labelling import Labelling, label_frames
from sdas.label.oracle import Failure, Label
from sdas.label.store import LabelStore

ADDRESS = "address"
"""Of a label in the store: what the comment line of every labelled frame tells."""
SOME_FAILED = 3
"""Exit status where labels were written, and some frames have none."""


@takes_reading_options
def label(
    frames: Annotated[Path, typer.Argument(help="Any file or folder that 'sdas data' reads.")],
    oracle: Annotated[
        str, typer.Option(help="pyscf:FUNCTIONAL/BASIS, tblite[:METHOD], ase:MODULE:CLASS or model:RUN.")
    ],
    out: Annotated[Path, typer.Option(help="The extended XYZ file of labelled frames to write.")],
    given: dict[str, Any],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the oracle, as dispersion=d4.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder that keeps labels; by default OUT's name with .labels.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local (processes of this machine) or ray (a Ray cluster).")] = "local",
    workers: Annotated[int, typer.Option(help="Frames at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of each worker.")] = 1,
    memory: Annotated[int, typer.Option(help="Memory that a calculation may plan with, MiB.")] = 4000,
    timeout: Annotated[float, typer.Option(help="Seconds after which a frame is given up.")] = 3600.0,
    retries: Annotated[int, typer.Option(help="How often a frame whose worker was killed is tried again.")] = 2,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what did not converge before.")
    ] = False,
) -> None:
    """Label frames; an interrupted run is resumed from the store.

    Frames without a label are left out of OUT and listed in a .failed.json beside it; the exit status is 3 then.
    """
    check_place(out, ADDRESS, frames)
    config = parse_oracle(oracle, read_settings(settings or []))
    resources = parse_resources(
        engine=engine, workers=workers, threads=threads, memory_mib=memory, timeout_s=timeout, retries=retries
    )
    structures = list(read_frames(frames, **make_reading_options(given).model_dump(), require=()))
    failures = out.with_name(f"{out.stem}.failed.json")
    with (
        LabelStore.open(store or out.with_name(f"{out.stem}.labels")) as labels,
        tqdm(total=len(structures), desc="label", unit="frame", disable=None) as bar,
    ):
        done = label_frames(structures, config, labels, resources, retry_failed=retry_failed, progress=bar.update)
    failed = done.failed
    if failed:
        write_document(failures, _failures(done, frames))
    else:
        failures.unlink(missing_ok=True)
    _write(done, out, failures)
    for note in done.notes():
        typer.echo(f"note: {note} (--store)", err=True)
    labelled = len(structures) - len(failed)
    typer.echo(f"{labelled} of {len(structures)} frames labelled, {done.computed} computed now; written to {out}")
    if failed:
        kinds = Counter(outcome.kind for outcome in done.outcomes if isinstance(outcome, Failure))
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        typer.echo(f"{len(failed)} frames have no label ({told}): listed in {failures}", err=True)
        raise typer.Exit(SOME_FAILED)


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` each, the value in YAML; a dot in a name leads into a table, as ``arguments.cutoff=5``."""
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not equals or not name.strip():
            raise ConfigError(f"--set {word}: must read NAME=VALUE, as charge=1")
        *tables, last = name.strip().split(".")
        place = settings
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {word}: {table} is set to a value too")
        place[last] = value
    return settings


def _write(done: Labelling, out: Path, failures: Path) -> None:
    labelled = [
        (_with_label(frame, outcome), _facts(frame, outcome, key))
        for frame, outcome, key in zip(done.frames, done.outcomes, done.keys, strict=True)
        if isinstance(outcome, Label)
    ]
    if not labelled:
        first = next(outcome for outcome in done.outcomes if isinstance(outcome, Failure))
        raise LabelError(
            f"no frame could be labelled; the first one: {first.kind}: {first.reason}; all are listed in {failures}"
        )
    write_frames(out, labelled)


def _with_label(frame: Frame, label: Label) -> Frame:
    return replace(frame, energy=label.energy, forces=label.forces, stress=label.stress)


def _facts(frame: Frame, label: Label, key: str) -> dict[str, Any]:
    """What the comment line tells of a label; the store has the rest under the address."""
    method = {name: value for name, value in label.facts["method"].items() if value not in (None, {})}
    return {
        "method": " ".join(f"{name}={value}" for name, value in method.items()),
        ADDRESS: key,
        "origin": frame.source,
    }


def _failures(done: Labelling, source: Path) -> Mapping[str, Any]:
    rows = []
    for index in done.failed:
        outcome = done.outcomes[index]
        assert isinstance(outcome, Failure)
        rows.append(
            {"index": index, "frame": done.frames[index].source, "kind": outcome.kind, "reason": outcome.reason}
        )
    return {"source": str(source), "frames": len(done.frames), "failed": rows}
