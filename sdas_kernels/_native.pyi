version: str
spherical_harmonics_max_degree: int
subnormals_are_zeros: int

def simd() -> str: ...
def lend_pages(array: int, bytes: int) -> bool: ...
def has_pages(array: int, bytes: int) -> bool: ...
def controls(threads: int) -> list[int]: ...
def set_controls(controls: list[int]) -> None: ...
def spherical_harmonics_forward_float32(
    vectors: int, harmonics: int, count: int, lmax: int, normalize: bool, scale: int, threads: int
) -> None: ...
def spherical_harmonics_forward_float64(
    vectors: int, harmonics: int, count: int, lmax: int, normalize: bool, scale: int, threads: int
) -> None: ...
def spherical_harmonics_backward_float32(
    grad: int, vectors: int, grad_vectors: int, count: int, lmax: int, normalize: bool, scale: int, threads: int
) -> None: ...
def spherical_harmonics_backward_float64(
    grad: int, vectors: int, grad_vectors: int, count: int, lmax: int, normalize: bool, scale: int, threads: int
) -> None: ...
def spherical_harmonics_double_backward_float32(
    grad_grad: int,
    grad: int,
    vectors: int,
    grad_of_grad: int,
    grad_of_vectors: int,
    count: int,
    lmax: int,
    normalize: bool,
    scale: int,
    threads: int,
) -> None: ...
def spherical_harmonics_double_backward_float64(
    grad_grad: int,
    grad: int,
    vectors: int,
    grad_of_grad: int,
    grad_of_vectors: int,
    count: int,
    lmax: int,
    normalize: bool,
    scale: int,
    threads: int,
) -> None: ...
