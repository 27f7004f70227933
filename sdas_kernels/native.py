"""The compiled extension ``sdas_kernels._native``, or the reason why there is none.

The extension knows nothing of PyTorch: its functions take addresses, sizes and a thread count. The modules
``ops/<op>/cpp.py`` allocate, check what kernels assume, and call it.
"""

from __future__ import annotations

from types import ModuleType

try:
    import sdas_kernels._native as _module
except ImportError as error:
    _extension: ModuleType | None = None
    _reason = f"extension not built or not loadable: {error}"
else:
    _extension = _module
    _reason = ""


def available() -> tuple[bool, str]:
    """Whether the extension can be used, with the SIMD level of its kernels or the reason why not."""
    if _extension is None:
        return False, _reason
    try:
        return True, f"compiled kernels, {_extension.simd()}"
    except RuntimeError as error:
        return False, str(error)


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
