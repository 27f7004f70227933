"""The one exception that every part of :mod:`sdas.data` raises for data it will not accept."""


class DataError(ValueError):
    """Data that cannot be used as they are; the message names the file and the frame, and says what would help."""
