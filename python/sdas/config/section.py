"""The base of everything that is read from a configuration or from flags, and checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sdas.errors import ConfigError


class Section(BaseModel):
    """Base of the sections: an unknown key is an error, and so is NaN or infinity."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def validated(section: type[S], values: Mapping[str, Any], source: str) -> S:
    """A section of these values; raises :class:`ConfigError` with the ``source`` and the first key at fault."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            keys = ", ".join(section.model_fields)
            raise ConfigError(f"{source}: {name} is no setting; there are: {keys}") from None
        raise ConfigError(f"{source}: {name}: {message_of(first)}, got {first.get('input')!r}") from None


def message_of(error: Any) -> str:
    """What one of pydantic's errors says, to stand after a colon."""
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
