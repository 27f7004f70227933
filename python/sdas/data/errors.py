"""The one exception that every part of :mod:`sdas.data` raises for data it will not accept."""

from sdas.errors import SdasError


class DataError(SdasError, ValueError):
    """Data that cannot be used as they are; the message names the file and the frame, and says what would help."""
