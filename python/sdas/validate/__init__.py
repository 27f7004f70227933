"""May a model be trusted? A short suite in which each line passes or fails against a stated bound."""

from sdas.validate.check import Check
from sdas.validate.suite import validate

__all__ = ["Check", "validate"]
