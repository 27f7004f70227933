"""``sdas active``: active learning, and the page about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.active.labels import TBLITE
from sdas.active.start import from_nothing, own_start
from sdas.config import Config, load_config
from sdas.config.active import HIDDEN
from sdas.config.label import parse_oracle
from sdas.config.reading import flag_of
from sdas.config.reading_flags import takes_reading_options
from sdas.errors import ConfigError
from sdas.files import as_argument
from sdas.run.folder import CONFIG
from sdas.run.frames import check_files
from sdas.run.start import check_resumed_by, new_run_folder
from sdas.train.cli import CONFIG_SUFFIXES

FROM_NOTHING = "<labeled first, of the pool>"
"""In place of data, where none are given."""
STEPS = 2000
"""Of the first training of a member, where nothing is said: a minute or two for a molecule of 20 atoms."""


@takes_reading_options
def active(
    given: dict[str, Any],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="The pool, a file of frames; a configuration (.yaml); or both.", show_default=False),
    ] = None,
    smiles: Annotated[str | None, typer.Option(help="Make the pool: of a molecule, as CCO.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Make the pool: of a capped peptide, as ACE-ALA-NME.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labeled frames to begin with; else some of the pool are labeled first.")
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(help="pyscf:FUNCTIONAL/BASIS, tblite, ase:MODULE:CLASS, model:RUN, or hidden (in the pool file)."),
    ] = None,
    select: Annotated[str | None, typer.Option(help="topk, random, maxdist or lcmd.")] = None,
    uncertainty: Annotated[
        str | None, typer.Option(help="Whose disagreement counts: ensemble, shallow, dropout or last-layer.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of labels.")] = None,
    labels_per_round: Annotated[int | None, typer.Option(help="Frames that a round selects.")] = None,
    models: Annotated[int | None, typer.Option(help="Models that are trained.")] = None,
    engine: Annotated[str | None, typer.Option(help="local (processes here) or ray (a Ray cluster).")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this directory; its own config.yaml is used.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as active.steps=500.")
    ] = None,
) -> None:
    """Train an ensemble, label the frames of a pool that it is least sure of, train on them, and again.

    What no configuration says has a default: see the section active of 'sdas train --print-config'.
    """
    flags = {
        "smiles": smiles, "sequence": sequence, "oracle": oracle, "select": select,
        "uncertainty": uncertainty, "rounds": rounds, "labels_per_round": labels_per_round, "models": models,
        "resources.engine": engine,
    }  # fmt: skip
    values: dict[str, Any] = {f"active.{name}": value for name, value in flags.items() if value is not None}
    if resume is not None:
        if files or data or given:
            what = files[0] if files else data or flag_of(next(iter(given)))
            raise ConfigError(f"{what}: the run in {resume} has its frames and its configuration: leave it out")
        settings = old_run(resume, set_ or [], values)
    else:
        values |= {f"data.{name}": value for name, value in given.items()}
        settings = new_run(files or [], data, set_ or [], values)
        typer.echo(f"run directory: {settings.run_dir}")
        if settings.active.oracle is None:
            typer.echo(f"oracle: {TBLITE}, as none is named; --oracle names another")

    from sdas.active.rounds import learn
    from sdas.report.active import write_active_report

    result = learn(settings, resume is not None, write_active_report)
    if result.signal is not None:
        typer.echo(f"stopped by signal {result.signal}; go on with", err=True)
        typer.echo(f"    sdas active --resume {as_argument(result.run_dir)}", err=True)
        raise typer.Exit(128 + result.signal)
    typer.echo(f"{result.run_dir}: {result.rounds} rounds, {result.labels} labels")
    if result.errors:
        forces, energy = result.errors["force_mae_mev_per_ang"], result.errors["energy_mae_mev"]
        typer.echo(f"MAE on {result.errors['frames']} frames: forces {forces:.2f} meV/Å, energy {energy:.2f} meV")
    typer.echo(f"model: {result.run_dir / 'model'}")
    typer.echo(f"report: {write_active_report(result.run_dir)}")


def old_run(run: Path, overrides: list[str], values: dict[str, Any]) -> Config:
    """The configuration of a run that goes on, wherever its folder lies by now."""
    check_resumed_by("sdas active", run)
    settings = load_config(run / CONFIG, overrides, values)
    if from_nothing(settings):
        settings.data.path = own_start(str(run))
    settings.run_dir = str(run)
    return settings


def new_run(files: list[Path], data: Path | None, overrides: list[str], values: dict[str, Any]) -> Config:
    """The configuration of a run whose pool and configuration are among ``files``.

    Raises :class:`ConfigError` for what is missing, and for an oracle that there is not.
    """
    configs = [path for path in files if path.suffix.lower() in CONFIG_SUFFIXES]
    pools = [path for path in files if path not in configs]
    if len(configs) > 1 or len(pools) > 1:
        twice, what = (configs, "configuration") if len(configs) > 1 else (pools, "pool")
        raise ConfigError(f"{' and '.join(map(str, twice))}: give one {what}")
    if pools:
        values["active.pool"] = str(pools[0])
    if data is not None:
        values["data.path"] = str(data)
    settings = load_config(
        configs[0] if configs else None, overrides, values, {"data.path": FROM_NOTHING, "train.steps": STEPS}
    )
    chosen = settings.active
    source = chosen.pool or chosen.smiles or chosen.sequence
    if source is None:
        raise ConfigError(
            "no pool to select from: name a file of frames, as in 'sdas active start.yaml pool.extxyz', or a molecule: "
            "--smiles CCO or --sequence ACE-ALA-NME"
        )
    if "run_dir" not in settings.model_fields_set:
        settings.run_dir = str(new_run_folder([source.replace("/", "-") if chosen.pool is None else source]))
    if str(settings.data.path).endswith(FROM_NOTHING):
        settings.data.path = own_start(settings.run_dir)
    else:
        check_files(settings.data)
        if chosen.oracle is None:
            raise ConfigError(
                "active.oracle is not set: name what made the labels of the data (--oracle pyscf:pbe/def2-svp, say), "
                "so that new ones go with them"
            )
    if chosen.oracle not in (None, HIDDEN):
        parse_oracle(chosen.oracle, chosen.oracle_settings)
    return settings
