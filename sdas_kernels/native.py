"""The compiled extension ``sdas_kernels._native``, or the reason why there is none.

The extension knows nothing of PyTorch: its functions take addresses, sizes and a thread count. The modules
``ops/<op>/cpp.py`` allocate, check what kernels assume, and call it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

from sdas_kernels.missing_native import Missing, check_made_of, missing_native
from sdas_kernels.version import __version__

_PACKAGE = Path(__file__).resolve().parent

try:
    import sdas_kernels._native as _module
except ImportError as error:
    _extension: ModuleType | None = None
    _missing = missing_native(error, _PACKAGE)
else:
    check_made_of(_module, _PACKAGE, __version__)
    _extension = _module
    _missing = Missing("", "")

_warned = False


class SlowOperatorsWarning(UserWarning):
    """Operators run by plain PyTorch on a CPU, since the compiled kernels cannot be used."""


def available() -> tuple[bool, str]:
    """Whether the extension can be used, with the SIMD level of its kernels or the reason why not."""
    if _extension is None:
        return False, _missing.why
    try:
        return True, f"compiled kernels, {_extension.simd()}"
    except RuntimeError as error:
        return False, str(error)


def cure() -> str:
    """What to do where it cannot be used."""
    if _extension is None:
        return _missing.cure
    return "unset the environment variable SDAS_KERNELS_SIMD: the widest level of this processor is then taken"


def warn_unless_available() -> None:
    """Say once in a process, as `SlowOperatorsWarning`, that operators run without it, why, and what to do."""
    global _warned
    usable, why = available()
    if usable or _warned:
        return
    _warned = True
    warnings.warn(
        f"SLOW: operators run by plain PyTorch, at a small part of the speed of compiled kernels: {why}. "
        f"What helps: {cure()}",
        SlowOperatorsWarning,
        stacklevel=3,
    )


def extension() -> ModuleType:
    """The loaded extension.

    Raises:
        RuntimeError: it was not built, or cannot run here.
    """
    usable, reason = available()
    if _extension is None or not usable:
        raise RuntimeError(f"sdas_kernels._native cannot be used: {reason}")
    return _extension


def simd() -> str:
    """The SIMD level of the kernels: ``baseline``, ``avx2`` or ``avx512``.

    It is the widest that the processor has, or the one named by the environment variable
    ``SDAS_KERNELS_SIMD`` when the first kernel runs.
    """
    return extension().simd()


def version() -> str:
    """The version of sdas-kernels from which the extension was built."""
    return extension().version
