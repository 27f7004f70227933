"""``sdas train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config import default_config, load_config, render_config
from sdas.config.reading import flag_of
from sdas.config.reading_flags import takes_reading_options
from sdas.errors import ConfigError
from sdas.files import as_argument
from sdas.run.folder import CONFIG


@takes_reading_options
def train(
    given: dict[str, Any],
    config: Annotated[Path | None, typer.Argument(help="Configuration in YAML.", show_default=False)] = None,
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
    """Train a model as a configuration says; many processes are started by torchrun.

    Flags about the reading of raw files stand for the keys of the same name in the section data.
    """
    overrides = set_ or []
    reading = {f"data.{name}": value for name, value in given.items()}
    if print_config:
        if config is None and not overrides and not given:
            typer.echo(render_config(default_config()), nl=False)
        else:
            typer.echo(render_config(load_config(config, overrides, reading)), nl=False)
        return
    if (config is None) == (resume is None):
        raise ConfigError("give a configuration file, or --resume RUN_DIR; 'sdas train --print-config' writes a file")
    if resume is not None and given:
        raise ConfigError(f"{flag_of(next(iter(given)))}: the run in {resume} has read its files already; start anew")
    if resume is not None and any(override.partition("=")[0].strip() == "run_dir" for override in overrides):
        raise ConfigError(f"--set run_dir: the run that is resumed lies in {resume}; move the folder first")
    values = reading if resume is None else {"run_dir": str(resume)}
    settings = load_config(config or Path(str(resume)) / CONFIG, overrides, values)
    if cross_validate:
        from sdas.train.cross_validation import cross_validate as choose

        table = choose(settings)
        typer.echo(table.text())
        typer.echo(f"chosen configuration: {table.config_path}")
        return
    from sdas.train.loop import train as run

    result = run(settings, resume=resume is not None)
    if int(os.environ.get("RANK", 0)):
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
        last = summary["last_validation"]
        errors = f"forces {last['force_mae_mev_per_ang']:.2f} meV/Å, energies {last['energy_mae_mev']:.2f} meV"
        typer.echo(f"validation MAE: {errors}")
    typer.echo(f"model: {result.run_dir / 'model'}")
