"""Which implementation computes a primitive: by device, dtype, size and the caller's wish.

Each function here is one primitive of `backends.torch`, which defines it. The native library
takes it where it is faster; whatever it cannot settle (a matrix to be reported as an error, an
iteration that did not converge) is computed again, and worded, by the reference.
"""

import contextlib
import math
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from linalg_kernels import errors, scalar
from linalg_kernels.backends import native
from linalg_kernels.backends import torch as reference
from linalg_kernels.scalar import ScalarFunction

Choice = Literal["auto", "torch", "native"]

_choice: ContextVar[Choice] = ContextVar("linalg_kernels_backend", default="auto")

# Orders that the native library takes: beyond, blocks outgrow the cache.
NATIVE_LIMIT = 64

# A block costs the same with one matrix in it as with all of its lanes filled. Smallest batch
# for which the native library was measured to be the faster one, up to an order each.
_EIGEN = ((24, 1), (32, 2), (48, 3), (64, 4))
_SPECTRAL = ((32, 1), (48, 2), (64, 3))
_PRODUCT = ((48, 1), (64, 3))
_CHOLESKY = ((32, 1), (48, 3), (64, 4))


@contextlib.contextmanager
def backend(name: Choice) -> Generator[None]:
    """Compute with "torch", with "native" wherever it can, or with the faster one ("auto").

    Holds for the current thread (context), also for the backward pass if it runs inside.

    Raises:
        ValueError: for another name.
        NativeUnavailableError: "native" where there is no native library; says why.
    """
    if name not in get_args(Choice):
        raise ValueError(f"backend must be one of {get_args(Choice)}, got {name!r}")
    if name == "native":
        native.load()
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


@dataclass(frozen=True)
class BackendInfo:
    """What computes, and why; `str()` says it in words.

    Attributes:
        choice: "auto", "torch" or "native", as set by `backend`.
        native: The loaded native library, or None.
        reason: Why there is none; empty if there is.
    """

    choice: Choice
    native: native.NativeInfo | None
    reason: str

    def __str__(self) -> str:
        if self.native is None:
            return f"torch for everything, because there is no native library: {self.reason}"
        found = (
            f"native library (interface {self.native.abi}, instruction set "
            f"{self.native.isa} of {', '.join(self.native.isas)}, up to {self.native.threads} "
            "threads)"
        )
        if self.choice == "torch":
            return f'torch for everything, because of backend("torch"); there is a {found}'
        what = "wherever it can" if self.choice == "native" else "where it is the faster one"
        return (
            f"{found} for real CPU tensors of order <= {NATIVE_LIMIT}, {what}; torch for "
            "everything else"
        )


def backend_info() -> BackendInfo:
    """Which implementations there are and which is used."""
    there = native.available()
    return BackendInfo(
        _choice.get(), native.info() if there else None, "" if there else native.why_unavailable()
    )


def _native_takes(least: tuple[tuple[int, int], ...], *tensors: Tensor | None) -> bool:
    """Whether the native library computes a primitive of A, the first of `tensors`.

    `least` says from which batch on it is the faster one.
    """
    choice = _choice.get()
    if torch.compiler.is_compiling() or choice == "torch":
        return False
    A = tensors[0]
    assert A is not None
    n = A.shape[-1]
    if not 1 <= n <= NATIVE_LIMIT or A.numel() == 0:
        return False
    if choice == "auto":
        batch = A.numel() // (n * n)
        if batch < next(enough for order, enough in least if n <= order):
            return False
    if not all(T is None or _is_plain(T, A.dtype) for T in tensors):
        return False
    return errors.can_read(A) and native.available()


def _is_plain(T: Tensor, dtype: torch.dtype) -> bool:
    """Whether T is memory of the CPU, of a real dtype, and not a stand-in of a transform."""
    return (
        T.is_cpu
        and T.dtype == dtype
        and dtype in native.DTYPES
        and type(T) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(T)
        and not torch._C._functorch.is_legacy_batchedtensor(T)
    )


_KINDS = {
    "log": native.LOG,
    "exp": native.EXP,
    "sqrt": native.SQRT,
    "inv_sqrt": native.INV_SQRT,
    "inv": native.INVERSE,
}


def _known(fn: ScalarFunction, p: Tensor | None) -> native.Function | None:
    """The library's own form of a function of eigenvalues, if it has one."""
    floor = -math.inf
    if isinstance(fn, scalar.Clamp):
        return native.Function(native.IDENTITY, floor=fn.floor)
    if isinstance(fn, scalar.Floored):
        fn, floor = fn.base, fn.floor
    if isinstance(fn, scalar.Elementary):
        kind = _KINDS.get(fn.name)
        return None if kind is None else native.Function(kind, floor=floor)
    if isinstance(fn, scalar.Power) and fn.order == 0:
        return native.Function(native.POWER, p, floor)
    return None


def _tolerance(symmetrize: bool, check: bool) -> float:
    return errors.ASYMMETRY if symmetrize and check else math.inf


def _settled(info: Tensor, report: native.Report, check: bool) -> bool:
    """Whether native results stand: no error to be worded, nothing left unconverged."""
    if report.asymmetric >= 0:
        return False
    return report.failed < 0 or not (check or bool((info > 0).any()))


def eigh(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of the Hermitian matrix that A stands for."""
    if _native_takes(_EIGEN, A):
        w, V, info, report = native.eigh(
            A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(info, report, check):
            return w, V
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.eigh(H, finite=finite)


def eigvalsh(A: Tensor, symmetrize: bool, check: bool, name: str) -> Tensor:
    """Ascending eigenvalues of the Hermitian matrix that A stands for."""
    if _native_takes(_EIGEN, A):
        w, info, report = native.eigvalsh(
            A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(info, report, check):
            return w
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.eigvalsh(H, finite=finite)


def spectral(
    A: Tensor, p: Tensor | None, fn: ScalarFunction, symmetrize: bool, check: bool, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """F = V f(w) V^H, w in any order, and V of the Hermitian matrix that A stands for."""
    f = _known(fn, p)
    if f is not None and _native_takes(_SPECTRAL, A, p):
        F, w, V, info, report = native.spectral(
            A, f, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(info, report, check):
            return F, w, V
    w, V = eigh(A, symmetrize, check, name)
    return evaluate(w, V, p, fn), w, V


def evaluate(w: Tensor, V: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """V f(w) V^H."""
    if not _native_takes(_PRODUCT, V, w, p):
        return reference.evaluate(w, V, p, fn)
    f = _known(fn, p)
    if f is None:
        f = native.Function(native.TABLE, fn.value(w, None if p is None else p[..., None]))
    return native.compose(w, V, f)


def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^H herm(E) V) V^H."""
    if not (E.shape == V.shape and _native_takes(_PRODUCT, V, w, E, p)):
        return reference.frechet(w, V, E, p, fn)
    f = _known(fn, p)
    if f is None:
        f = native.Function(native.TABLE, reference.kernel(w, p, fn))
    return native.frechet(w, V, E, f)


def cholesky(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """Lower factor and info of the Hermitian matrix that A stands for."""
    if _native_takes(_CHOLESKY, A):
        L, info, report = native.cholesky(
            A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if report.asymmetric < 0:
            if report.failed >= 0:
                H, _ = reference.read_hermitian(A, symmetrize, check, name)
                info = torch.where(errors.finite_elements(H), info, A.shape[-1] + 1)
            return L, info
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.cholesky(H, finite=finite)


def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    """herm(L^-H Φ(L^H G) L^-1), the adjoint of A -> L; differentiable."""
    differentiable = torch.is_grad_enabled() and (L.requires_grad or G.requires_grad)
    if not differentiable and L.shape == G.shape and _native_takes(_CHOLESKY, L, G):
        return native.cholesky_vjp(L, G)
    return reference.cholesky_vjp(L, G)
