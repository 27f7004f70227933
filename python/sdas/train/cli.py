"""``sdas train``."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config import Config, TrainConfig, default_config, load_config, render_config
from sdas.config.load import key_of
from sdas.config.reading import flag_of
from sdas.config.reading_flags import takes_reading_options
from sdas.errors import ConfigError
from sdas.files import as_argument
from sdas.run.folder import CONFIG
from sdas.run.frames import check_files
from sdas.run.start import check_resumed_by, new_run_folder

CONFIG_SUFFIXES = (".yaml", ".yml")
NAMES_OF_DATA = ("data.path", "data.train")


@takes_reading_options
def train(
    given: dict[str, Any],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of training frames, a configuration (.yaml), or both.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as train.steps=1000.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this directory; its own config.yaml is used.")
    ] = None,
    cross_validate: Annotated[
        bool, typer.Option("--cross-validate", help="Choose the loss weights by short runs instead of training.")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Write a commented configuration.")] = False,
) -> None:
    """Train a model on files of frames, or as a configuration says; many processes are started by torchrun.

    What no configuration says has a default. A run that is given no run_dir gets a new one in runs/. Flags about the
    reading of raw files stand for the keys of the same name in the section data.
    """
    overrides, reading = set_ or [], {f"data.{name}": value for name, value in given.items()}
    if print_config and not (files or overrides or given):
        typer.echo(render_config(default_config()), nl=False)
        return
    if resume is None:
        settings = new_run(files or [], overrides, reading)
    else:
        settings = old_run("sdas train", resume, files, overrides, given)
    if print_config:
        typer.echo(render_config(settings), nl=False)
        return
    first = not int(os.environ.get("RANK", 0))
    if resume is None:
        check_files(settings.data)
        if first:
            typer.echo(f"run directory: {settings.run_dir}")
    if cross_validate:
        from sdas.train.cross_validation import cross_validate as choose

        table = choose(settings, resume=resume is not None)
        typer.echo(table.text())
        typer.echo(f"chosen configuration: {table.config_path}")
        return
    from sdas.train.loop import train as run
    from sdas.train.state import describe_errors

    if first and resume is None:
        typer.echo(_outlook(settings.train))
    result = run(settings, resume=resume is not None)
    if not first:
        return
    summary = result.summary
    if summary["status"] == "interrupted":
        typer.echo(f"stopped by signal {summary['signal']} at step {summary['steps']}; go on with", err=True)
        typer.echo(f"    sdas train --resume {as_argument(result.run_dir)}", err=True)
        raise typer.Exit(128 + summary["signal"])
    typer.echo(
        f"{result.run_dir}: {summary['steps']} steps, {summary['train_flops']:.4g} FLOPs, {summary['wall_s']:.1f} s"
    )
    if summary["last_validation"]:
        errors = describe_errors(summary["last_validation"])
        typer.echo(f"validation MAE: {errors}")
    typer.echo(f"model: {result.run_dir / 'model'}")


def new_run(files: list[Path], overrides: list[str], values: dict[str, Any]) -> Config:
    """The configuration of a run on ``files``, of which one may be a configuration."""
    configs = [path for path in files if path.suffix.lower() in CONFIG_SUFFIXES]
    data = [str(path) for path in files if path not in configs]
    if not files and not overrides:
        raise ConfigError(
            "name the frames, as in 'sdas train frames.extxyz', a configuration (.yaml), or --resume RUN_DIR; "
            "'sdas train --print-config' writes a configuration"
        )
    if len(configs) > 1:
        raise ConfigError(f"{' and '.join(map(str, configs))}: give one configuration")
    named = [key for key in map(key_of, overrides) if key in NAMES_OF_DATA]
    if data and named:
        raise ConfigError(f"--set {named[0]}: the training frames are named already, {', '.join(data)}: name them once")
    if data:
        values = {**values, "data.path": data[0] if len(data) == 1 else data}
    settings = load_config(configs[0] if configs else None, overrides, values)
    if "run_dir" not in settings.model_fields_set:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ConfigError("several processes need one folder: name it by --set run_dir=runs/NAME")
        settings.run_dir = str(new_run_folder(settings.data.files()["train"]))
    return settings


def old_run(command: str, run: Path, files: list[Path] | None, overrides: list[str], given: dict[str, Any]) -> Config:
    """The configuration of a run that goes on by ``command``."""
    if files:
        raise ConfigError(f"{files[0]}: the run in {run} has its frames and its configuration: --resume takes no files")
    if given:
        raise ConfigError(f"{flag_of(next(iter(given)))}: the run in {run} has read its files already; start anew")
    if "run_dir" in map(key_of, overrides):
        raise ConfigError(f"--set run_dir: the run that is resumed lies in {run}; move the folder first")
    check_resumed_by(command, run)
    return load_config(run / CONFIG, overrides, {"run_dir": str(run)})


def _outlook(settings: TrainConfig) -> str:
    """How long it will take, and how to have it otherwise."""
    if settings.minutes is None:
        return f"training for {settings.steps} steps; Ctrl-C stops and saves"
    end = datetime.now() + timedelta(minutes=settings.minutes)
    how = "--set train.minutes=N or train.steps=N changes that"
    return f"training for {settings.minutes:g} minutes, until about {end:%H:%M}; {how}; Ctrl-C stops and saves"
