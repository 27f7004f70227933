"""The base of every exception that the drivers raise on purpose.

The command line prints such an exception as one line and exits with 1; ``sdas --debug`` shows the traceback.
"""

from __future__ import annotations

import os


class SdasError(Exception):
    """Something a user can put right; the message names what was given and what is wanted."""


class ConfigError(SdasError, ValueError):
    """A configuration that is not valid; the message gives the path of the key, such as ``train.learning_rate``."""


class CheckpointError(SdasError):
    """A checkpoint that cannot be written or read; the message names the file and what is wrong with it."""


class TrainingError(SdasError):
    """A training run that cannot start or go on."""


class LabelError(SdasError):
    """A structure that an oracle cannot label, or a store of labels that cannot be read or written."""


class SimulationError(SdasError):
    """A molecule that cannot be made or simulated."""


class ScalingError(SdasError):
    """A learning curve, or a state of an adaptive run, that no law can be fitted to or decided by."""


class ActiveError(SdasError):
    """A pool, a selection or a run of active learning that cannot be used or cannot go on."""


def describe(error: SdasError | OSError) -> str:
    """The error on one line, with the file that it is about."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(text.splitlines())
