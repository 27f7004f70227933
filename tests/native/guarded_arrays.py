"""Run the kernels on arrays between pages that may not be touched. A read or write outside kills the process."""

import ctypes
import mmap
import sys

import torch

from sdas_kernels import native

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

PAGE = mmap.PAGESIZE


class Guarded:
    """Memory of `size` bytes, zero, that touches a forbidden page at its end or at its beginning."""

    def __init__(self, size: int, at_end: bool):
        self.length = (-(-size // PAGE) + 2) * PAGE
        self.base = libc.mmap(None, self.length, mmap.PROT_READ | mmap.PROT_WRITE, 0x22, -1, 0)
        for page in (self.base, self.base + self.length - PAGE):
            if libc.mprotect(page, PAGE, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.address = self.base + (self.length - PAGE - size if at_end else PAGE)

    def free(self) -> None:
        libc.munmap(self.base, self.length)


def run(lmax: int, count: int, dtype: torch.dtype, at_end: bool) -> None:
    suffix, size = str(dtype).removeprefix("torch."), dtype.itemsize
    m = (lmax + 1) ** 2
    scale = torch.ones((lmax + 1) * (lmax + 2) // 2, dtype=dtype)
    vectors, grad, harmonics, grad_grad, gradient = arrays = [
        Guarded(count * n * size, at_end) for n in (3, m, m, 3, 3)
    ]
    end = count, lmax, True, scale.data_ptr(), 1
    extension = native.extension()
    getattr(extension, f"spherical_harmonics_forward_{suffix}")(vectors.address, harmonics.address, *end)
    getattr(extension, f"spherical_harmonics_backward_{suffix}")(grad.address, vectors.address, gradient.address, *end)
    getattr(extension, f"spherical_harmonics_double_backward_{suffix}")(
        grad_grad.address, grad.address, vectors.address, harmonics.address, gradient.address, *end
    )
    for array in arrays:
        array.free()


if __name__ == "__main__":
    for dtype in (torch.float32, torch.float64):
        for lmax in range(9):
            for count in (1, 3, 8, 16, 35):
                for at_end in (True, False):
                    run(lmax, count, dtype, at_end)
    sys.exit(0)
