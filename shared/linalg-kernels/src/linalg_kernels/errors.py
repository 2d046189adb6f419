"""The one place where input is looked at and errors are worded.

Shapes and dtypes are always checked. Values (NaN, Inf, asymmetry, definiteness) are checked
with `check=True`, which reads a few numbers back from the device: it is therefore off while
a graph is traced or captured, where the affected elements come out as NaN instead. With
`check=False` nothing at all is read back from a GPU, neither to check nor to stop an iteration.
"""

import cmath
import contextlib
from collections.abc import Generator
from contextvars import ContextVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from linalg_kernels.backends import plain

LinAlgError = torch.linalg.LinAlgError

# A matrix is refused as "not symmetric" beyond this relative difference. It is far above
# rounding (also of half precision) and above the steps of finite differences, and far below
# what a matrix has that was never meant to be symmetric.
ASYMMETRY = 0.02


def require_float(A: object, name: str) -> None:
    """TypeError unless A is a tensor of float32, float64, complex64 or complex128."""
    if not isinstance(A, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(A).__name__}")
    if A.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} must be float32, float64, complex64 or complex128, got {A.dtype}; "
            "pass upcast=True to compute in float32 and get the result in its own dtype"
        )
    if A.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"{name} must be float32, float64, complex64 or complex128, got {A.dtype}")


def require_real(A: Tensor, name: str) -> None:
    """TypeError if A is complex."""
    if A.is_complex():
        raise TypeError(f"{name} must be real, got {A.dtype}")


def require_square(A: Tensor, name: str, n: int | None = None) -> None:
    """ValueError unless A is (..., n, n)."""
    wanted = "" if n is None else f" with n={n}"
    square = A.ndim >= 2 and A.shape[-1] == A.shape[-2] and n in (None, A.shape[-1])
    if not square:
        raise ValueError(f"{name} must be (..., n, n){wanted}, got {tuple(A.shape)}")


def require_matrix(A: Tensor, name: str, m: int | None = None, n: int | None = None) -> None:
    """ValueError unless A is (..., m, n), with the sizes that are given."""
    fits = A.ndim >= 2 and m in (None, A.shape[-2]) and n in (None, A.shape[-1])
    if not fits:
        sizes = [f"{k}={size}" for k, size in (("m", m), ("n", n)) if size is not None]
        wanted = f" with {' and '.join(sizes)}" if sizes else ""
        raise ValueError(f"{name} must be (..., m, n){wanted}, got {tuple(A.shape)}")


def require_same_kind(A: Tensor, B: Tensor, names: tuple[str, str]) -> None:
    """TypeError unless A and B have one dtype, ValueError unless they are on one device."""
    if A.dtype != B.dtype:
        raise TypeError(
            f"{names[0]} and {names[1]} must have one dtype, got {A.dtype} and {B.dtype}"
        )
    if A.device != B.device:
        raise ValueError(
            f"{names[0]} and {names[1]} must be on one device, got {A.device} and {B.device}"
        )


def broadcast_batch(tensors: dict[str, tuple[Tensor, int]]) -> torch.Size:
    """Common batch shape; each tensor comes with the number of its trailing matrix dimensions."""
    shapes = {name: T.shape[: T.ndim - k] for name, (T, k) in tensors.items()}
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"batch shapes must broadcast, got {told}") from None


_may_wait: ContextVar[bool] = ContextVar("linalg_kernels_may_wait", default=True)


def may_wait() -> bool:
    """Whether Python may wait for a device here; see `waiting`."""
    return _may_wait.get()


@contextlib.contextmanager
def waiting(allowed: bool) -> Generator[None]:
    """Whether `can_read` allows values of a GPU to be read, which waits for it."""
    token = _may_wait.set(allowed)
    try:
        yield
    finally:
        _may_wait.reset(token)


def can_read(A: Tensor, *, asked: bool = False) -> bool:
    """Whether values of A may be read by Python now: not while tracing or capturing.

    Nor from a device that must not be waited for, unless the caller was `asked` to read.
    """
    if torch.compiler.is_compiling() or isinstance(A, FakeTensor) or A.is_meta:
        return False
    if A.is_cpu:
        return True
    if not (asked or _may_wait.get()):
        return False
    return not (A.is_cuda and torch.cuda.is_current_stream_capturing())


def element(bad: Tensor) -> str:
    """'' or '[2, 0]': where the first True of a batch-shaped mask lies, to follow a name."""
    if bad.ndim == 0:
        return ""
    index = [int(i) for i in torch.nonzero(bad)[0]]
    return f"[{', '.join(map(str, index))}]"


def finite_elements(A: Tensor) -> Tensor:
    """Mask of the batch: which matrices hold no NaN or Inf."""
    return torch.isfinite(A).flatten(-2).all(-1)


def check_finite(A: Tensor, name: str) -> None:
    """LinAlgError naming the first matrix of A that holds NaN or Inf."""
    # One pass in the usual case: a sum is finite unless an entry is not (or it overflows).
    if cmath.isfinite(A.detach().sum().item()):
        return
    finite = finite_elements(A)
    if not bool(finite.all()):
        raise LinAlgError(f"{name}{element(~finite)} contains NaN or Inf")


def is_hermitian(A: Tensor) -> bool:
    """Whether A, on the CPU, is finite and its own conjugate transpose, entry by entry.

    False as well where a sum overflows, on a GPU, which is not waited for, and while a graph is
    traced: then the thorough checks decide.
    """
    return A.is_cpu and can_read(A) and torch.equal(A, A.mH) and cmath.isfinite(A.sum().item())


def check_hermitian(A: Tensor, name: str) -> None:
    """ValueError naming the first matrix of A that is far from its conjugate transpose."""
    if A.numel() == 0:
        return
    difference = (A - A.mH).abs().amax((-2, -1))
    size = A.abs().amax((-2, -1))
    bad = difference > ASYMMETRY * size
    if bool(bad.any()):
        kind = "Hermitian" if A.is_complex() else "symmetric"
        worst = (difference[bad] / size[bad]).flatten()[0].item()
        raise ValueError(
            f"{name}{element(bad)} must be {kind}, but differs from its transpose by "
            f"{worst:.2g} of its largest entry; if its {kind} part is meant, take "
            f"({name} + {name}.mH) / 2"
        )


def check_matrices(A: Tensor, name: str) -> None:
    """`check_finite` and `check_hermitian`."""
    if plain.seen_clean(A, ASYMMETRY):
        return
    check_finite(A, name)
    check_hermitian(A, name)


_SHRINK = "add shrinkage, as shrink_covariance does"


def check_positive(w: Tensor, name: str, what: str, remedy: str = _SHRINK) -> None:
    """LinAlgError naming the first matrix whose eigenvalues `w` are not all positive."""
    positive = w > 0
    if bool(positive.all()):
        return
    bad = ~positive.all(-1)
    if bool(bad.any()):
        smallest = w[bad][0].min().item()
        raise LinAlgError(
            f"{what} needs positive eigenvalues, but {name}{element(bad)} has {smallest:.3g}; "
            f"{remedy}"
        )


def check_info(info: Tensor, name: str) -> None:
    """LinAlgError naming the first matrix whose Cholesky factorisation failed."""
    bad = info != 0
    if bool(bad.any()):
        order = int(info[bad].flatten()[0])
        raise LinAlgError(
            f"{name}{element(bad)} must be positive definite, but its leading minor of order "
            f"{order} is not; {_SHRINK}"
        )
