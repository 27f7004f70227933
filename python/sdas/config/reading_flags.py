"""Flags of a command for the options of :mod:`sdas.config.reading`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from sdas.config.reading import FLAGS_OF_SWITCHES, ReadingOptions, flag_of

P = ParamSpec("P")
R = TypeVar("R")
PARAMETER = "given"
"""The argument of a command that receives the options given as flags: name → value, without those that were not."""


def takes_reading_options(command: Callable[P, R]) -> Callable[..., R]:
    """Give ``command`` a flag for every option of reading, and put what is given into its argument ``given``."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != PARAMETER]
    keyword = inspect.Parameter.KEYWORD_ONLY
    flags = [
        inspect.Parameter(name, keyword, default=None, annotation=_annotation(name))
        for name in ReadingOptions.model_fields
    ]

    @functools.wraps(command)
    def with_flags(**arguments: Any) -> R:
        given = {name: arguments.pop(name, None) for name in ReadingOptions.model_fields}
        arguments[PARAMETER] = {name: value for name, value in given.items() if value is not None}
        return command(**arguments)  # type: ignore[call-arg]

    parameters = [*(parameter.replace(kind=keyword) for parameter in own), *flags]
    with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del with_flags.__wrapped__  # type: ignore[attr-defined]
    return with_flags


def _annotation(name: str) -> Any:
    field = ReadingOptions.model_fields[name]
    flag = "/".join(FLAGS_OF_SWITCHES[name]) if name in FLAGS_OF_SWITCHES else flag_of(name)
    kind: Any = bool if name in FLAGS_OF_SWITCHES else str
    return Annotated[kind | None, typer.Option(flag, help=field.description, show_default=False)]
