"""The base of everything that is read from a configuration or from flags, and checked before it is used."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections: an unknown key is an error, and so is NaN or infinity."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
