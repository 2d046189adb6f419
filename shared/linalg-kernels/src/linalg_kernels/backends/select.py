"""Which implementation computes a primitive: by device, dtype, size and the caller's wish.

Each function here is one primitive of `backends.torch`, which defines it. The native library
takes it where it is faster; whatever it cannot settle (a matrix to be reported as an error, an
iteration that did not converge) is computed again, and worded, by the reference.

While a graph is traced, a primitive that the library might take becomes one opaque operator (see
`backends.opaque`), which comes back here when the graph runs.
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


def _smallest_batches(*steps: tuple[int, int]) -> tuple[int, ...]:
    """For each order the smallest batch, from steps (largest order, smallest batch)."""
    return tuple(next(k for last, k in steps if n <= last) for n in range(NATIVE_LIMIT + 1))


# A block costs the same with one matrix in it as with all of its lanes filled. Smallest batch
# for which the native library was measured to be the faster one.
_EIGEN = _smallest_batches((24, 1), (32, 2), (48, 3), (64, 4))
_SPECTRAL = _smallest_batches((32, 1), (48, 2), (64, 3))
_PRODUCT = _smallest_batches((48, 1), (64, 3))
_CHOLESKY = _smallest_batches((32, 1), (48, 3), (64, 4))


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


def _native_takes(least: tuple[int, ...], A: Tensor, *others: Tensor | None) -> bool:
    """Whether the native library computes a primitive of A.

    `least` says from which batch on it is the faster one.
    """
    choice = _choice.get()
    if choice == "torch":
        return False
    n, size, dtype = A.shape[-1], A.numel(), A.dtype
    if not 1 <= n <= NATIVE_LIMIT or size == 0 or dtype not in native.DTYPES:
        return False
    if choice == "auto" and size < least[n] * n * n:
        return False
    for T in (A, *others):
        if T is not None and not _is_plain(T, dtype):
            return False
    return native.available()


def _is_plain(T: Tensor, dtype: torch.dtype) -> bool:
    """Whether T is memory of the CPU, and not a stand-in of a transform."""
    return (
        type(T) in _PLAIN
        and T.is_cpu
        and T.dtype == dtype
        and not torch._C._functorch.is_functorch_wrapped_tensor(T)
        and not torch._C._functorch.is_legacy_batchedtensor(T)
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def is_plain(T: Tensor) -> bool:
    """Whether T is memory of the CPU, of a dtype of the native library."""
    return T.dtype in native.DTYPES and _is_plain(T, T.dtype)


def _opaque(A: Tensor) -> bool:
    """Whether a primitive of A, met while a graph is traced, becomes one operator."""
    if _choice.get() == "torch" or not 1 <= A.shape[-1] <= NATIVE_LIMIT:
        return False
    return A.device.type == "cpu" and A.dtype in native.DTYPES and _available()


@torch.compiler.assume_constant_result
def _available() -> bool:
    return native.available()


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


def _settled(found: int, check: bool) -> bool:
    """Whether native results stand: no error to be worded, nothing left unconverged."""
    return not found or (found == native.NOT_FINITE and not check)


def eigh(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        if _opaque(A):
            return torch.ops.linalg_kernels.eigh(A, symmetrize)
    elif _native_takes(_EIGEN, A):
        w, V, found = native.eigh(A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check))
        if _settled(found, check):
            return w, V
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.eigh(H, finite=finite)


def eigvalsh(A: Tensor, symmetrize: bool, check: bool, name: str) -> Tensor:
    """Ascending eigenvalues of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        if _opaque(A):
            return torch.ops.linalg_kernels.eigvalsh(A, symmetrize)
    elif _native_takes(_EIGEN, A):
        w, found = native.eigvalsh(
            A, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(found, check):
            return w
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.eigvalsh(H, finite=finite)


def spectral(
    A: Tensor, p: Tensor | None, fn: ScalarFunction, symmetrize: bool, check: bool, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """F = V f(w) V^H, w in any order, and V of the Hermitian matrix that A stands for."""
    if torch.compiler.is_compiling():
        known = scalar.encode(fn)
        if known is not None and _opaque(A):
            return torch.ops.linalg_kernels.spectral(A, p, *known, symmetrize)
    elif _native_takes(_SPECTRAL, A, p) and (f := _known(fn, p)) is not None:
        F, w, V, found = native.spectral(
            A, f, symmetrize=symmetrize, tolerance=_tolerance(symmetrize, check)
        )
        if _settled(found, check):
            return F, w, V
    w, V = eigh(A, symmetrize, check, name)
    return evaluate(w, V, p, fn), w, V


def evaluate(w: Tensor, V: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """V f(w) V^H."""
    if torch.compiler.is_compiling():
        known = scalar.encode(fn)
        if known is not None and _opaque(V):
            return torch.ops.linalg_kernels.evaluate(w, V, p, *known)
    elif _native_takes(_PRODUCT, V, w, p):
        f = _known(fn, p)
        if f is None:
            f = native.Function(native.TABLE, fn.value(w, None if p is None else p[..., None]))
        return native.compose(w, V, f)
    return reference.evaluate(w, V, p, fn)


def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^H herm(E) V) V^H."""
    if E.shape == V.shape:
        if torch.compiler.is_compiling():
            known = scalar.encode(fn)
            if known is not None and _opaque(V):
                return torch.ops.linalg_kernels.frechet(w, V, E, p, *known)
        elif _native_takes(_PRODUCT, V, w, E, p):
            f = _known(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return native.frechet(w, V, E, f)
    return reference.frechet(w, V, E, p, fn)


def cholesky(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor | None]:
    """Lower factor and info of the Hermitian matrix that A stands for; info None for all 0."""
    if torch.compiler.is_compiling():
        if _opaque(A):
            return torch.ops.linalg_kernels.cholesky(A, symmetrize)
    elif _native_takes(_CHOLESKY, A):
        tolerance = _tolerance(symmetrize, check)
        L, found = native.cholesky(A, symmetrize=symmetrize, tolerance=tolerance)
        if not found:
            return L, None
        if not found & native.ASYMMETRIC:
            H, _ = reference.read_hermitian(A, symmetrize, check, name)
            info = torch.empty(A.shape[:-2], dtype=torch.int32)
            native.cholesky(A, symmetrize=symmetrize, info=info)
            return L, torch.where(errors.finite_elements(H), info, A.shape[-1] + 1)
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.cholesky(H, finite=finite)


def cholesky_vjp(L: Tensor, G: Tensor) -> Tensor:
    """herm(L^-H Φ(L^H G) L^-1), the adjoint of A -> L; differentiable."""
    differentiable = torch.is_grad_enabled() and (L.requires_grad or G.requires_grad)
    if not differentiable and L.shape == G.shape:
        if torch.compiler.is_compiling():
            if _opaque(L):
                return torch.ops.linalg_kernels.cholesky_vjp(L, G)
        elif _native_takes(_CHOLESKY, L, G):
            return native.cholesky_vjp(L, G)
    return reference.cholesky_vjp(L, G)


def pencil(
    P: Tensor, Q: Tensor, alpha: float, beta: float, root: bool, vectors: bool
) -> native.Pencil | None:
    """Sums over the log spectrum of P^-1 Q and what their gradient needs, natively or not at all.

    None where the native library does not take it, or found something to be worded.
    """
    # Whichever is the larger set says whether it is worth it.
    A, other = (P, Q) if P.numel() >= Q.numel() else (Q, P)
    if torch.compiler.is_compiling() or not _native_takes(_SPECTRAL, A, other):
        return None
    pencil = native.pencil(
        P, Q, alpha=alpha, beta=beta, root=root, vectors=vectors, tolerance=errors.ASYMMETRY
    )
    return None if pencil.found else pencil
