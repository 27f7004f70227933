"""The command ``sdas``. A subcommand is imported when it is asked for, so ``sdas --help`` imports none of them."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sdas.errors import SdasError, describe
from sdas.version import __version__

COMMANDS: dict[str, tuple[str, str, str]] = {
    "data": ("sdas.data.cli", "app", "Fetch, convert, inspect and split data."),
    "train": ("sdas.train.cli", "train", "Train a model, resume a run, or choose loss weights by cross-validation."),
    "scale": ("sdas.scale", "scale", "Train a model that grows where that lowers its error most per FLOP."),
    "inner-cutoff": (
        "sdas.inner_cutoff",
        "inner_cutoff",
        "Let atoms repel that are closer than in training frames.",
    ),
    "active": ("sdas.active_cli", "active", "Label the frames that an ensemble is least sure of, and train on."),
    "evaluate": ("sdas.evaluate.cli", "evaluate", "Errors of a trained model on labeled frames."),
    "report": ("sdas.report.cli", "report", "Write the report of a run."),
    "interpret": ("sdas.interpretation", "interpret", "Show what a model looks at, beside controls."),
    "validate": ("sdas.validation", "validate", "Say whether a model may be trusted, line by line."),
    "md": ("sdas.md.cli", "md", "Run molecular dynamics with a trained model."),
    "free-energy": ("sdas.free_energy.cli", "free_energy", "Free energies along one or two collective variables."),
    "diffusion": ("sdas.diffusion.cli", "diffusion", "Diffusion constants of a trajectory or a model, with intervals."),
    "label": ("sdas.label.cli", "label", "Label frames by quantum chemistry, tight binding or any calculator."),
    "doctor": ("sdas.doctor.cli", "doctor", "Say what is installed, which kernels run here, and how fast."),
    "demo": ("sdas.demo", "demo", "Train, evaluate and run dynamics on the data that comes with the package."),
}
"""Subcommand: module, the function or Typer app in it, and the line in the help of ``sdas``."""

BENEATH: dict[str, dict[str, tuple[str, str]]] = {"data": {"simulate": ("sdas.simulate.cli", "simulate")}}
"""Subcommands of a group that rooms above its own provide: module and function."""


class LazyGroup(TyperGroup):
    """A group whose subcommands stand in :data:`COMMANDS`, and which prints our own errors as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand, imported now, unless only its line in the help is wanted."""
        if cmd_name not in COMMANDS:
            for near in get_close_matches(cmd_name, COMMANDS, 1):
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {near!r}?")
            return None
        module, attribute, summary = COMMANDS[cmd_name]
        if ctx.meta.get("sdas.help"):
            return TyperCommand(cmd_name, help=summary)
        command = _imported(module, attribute, cmd_name)
        for name, (place, function) in BENEATH.get(cmd_name, {}).items():
            command.add_command(_imported(place, function, name), name)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Help from the table alone."""
        ctx.meta["sdas.help"] = True
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; what a user can put right becomes one line on standard error and exit status 1.

        That is an :class:`SdasError`, and an OSError: a full disk, a missing permission. Any other exception is a
        mistake of ours and keeps its traceback.
        """
        _print_any_name()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except (SdasError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            typer.secho(f"error: {describe(error)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(1) from None


def _imported(module: str, attribute: str, name: str) -> Any:
    """The command ``name`` of a function or Typer app in a module."""
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command(name)(function)
    command: Any = typer.main.get_command(found)
    command.name = name
    command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    return command


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning on one line of standard error, without the place in the source that gave it."""
    typer.secho(f"warning: {' '.join(str(message).split())}", err=True, fg=typer.colors.YELLOW)


def _print_any_name() -> None:
    """Let names of files that are not UTF-8 through to the terminal as they are."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdas {__version__}")
        raise typer.Exit


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Machine-learned force fields: data, training, evaluation and dynamics."""


if __name__ == "__main__":
    sys.exit(app())
