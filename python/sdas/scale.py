"""``sdas scale``: adaptive scaling, and the page about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sdas.config.reading_flags import takes_reading_options
from sdas.errors import ConfigError
from sdas.files import as_argument
from sdas.run.frames import check_files
from sdas.train.cli import new_run, old_run


@takes_reading_options
def scale(
    given: dict[str, Any],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of training frames, a configuration (.yaml), or both.", show_default=False),
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Budget of the whole run in FLOPs, as 3e12.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the budget should buy; train nothing.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Follow the published rules, in place of the section scaling.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this directory; its own config.yaml is used.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as scaling.epsilon=0.1.")
    ] = None,
) -> None:
    """Train a model that grows where that lowers its force error most per FLOP; many processes are started by torchrun.

    The learning rate is constant until it falls to zero at the end: train.steps, minutes and schedule are not used.
    """
    overrides, values = set_ or [], {f"data.{name}": value for name, value in given.items()}
    if resume is not None and (flops is not None or published):
        raise ConfigError(f"--flops and --published: the run in {resume} has its own; start another run")
    if published and flops is None:
        raise ConfigError("--published needs the budget, as in --flops 3e12")

    from sdas.scaling.plan import plan as made_plan
    from sdas.scaling.settings import published_values

    if flops is not None:
        values["scaling.flops"] = flops
    if published and flops is not None:
        values |= published_values(flops)
    if resume is None:
        settings = new_run(files or [], overrides, values)
    else:
        settings = old_run("sdas scale", resume, files, overrides, given)
    check_files(settings.data)
    if plan:
        typer.echo(made_plan(settings).text())
        return

    from sdas.scaling.loop import scale as run

    first = not int(os.environ.get("RANK", 0))
    if first and resume is None:
        typer.echo(f"run directory: {settings.run_dir}")
    result = run(settings, resume=resume is not None)
    if not first:
        return
    if result.signal is not None:
        typer.echo(f"stopped by signal {result.signal}; go on with", err=True)
        typer.echo(f"    sdas scale --resume {as_argument(result.run_dir)}", err=True)
        raise typer.Exit(128 + result.signal)
    content = result.content
    sizes = ", ".join(f"{value} {name}" for name, value in content["sizes"].items())
    typer.echo(content["reason"])
    typer.echo(f"{result.run_dir}: {content['spent']:.4g} FLOPs, {content['lost']:.3g} of them in lost trials; {sizes}")
    typer.echo(f"validation MAE: forces {1000 * content['force_mae_ev_per_ang']:.2f} meV/Å")
    typer.echo(f"model: {result.run_dir / 'model'}")
    from sdas.report.scaling import write_scaling_page

    typer.echo(f"page: {write_scaling_page(result.run_dir)}")
