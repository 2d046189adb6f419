"""Which implementation computes a primitive: by device, dtype, size and the caller's wish.

Each function here is one primitive of `backends.torch`, which defines it. The native library
takes it on the CPU where it is faster, the Triton kernels on a GPU; whatever they cannot settle
(a matrix to be reported as an error, an iteration that did not converge) is computed again, and
worded, by the reference.

While a graph is traced, a primitive that the library might take becomes one opaque operator (see
`backends.opaque`), which comes back here when the graph runs; on a GPU it becomes an operator
that shows its kernels to the compiler (see `backends.triton.operators`).
"""

import contextlib
import math
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from linalg_kernels import errors, scalar
from linalg_kernels.backends import gpu, native
from linalg_kernels.backends import torch as reference
from linalg_kernels.scalar import ScalarFunction
from linalg_kernels.transforms import needs_rule, transformed

Choice = Literal["auto", "torch", "native", "triton"]

_choice: ContextVar[Choice] = ContextVar("linalg_kernels_backend", default="auto")

# Orders that the native library takes: beyond, blocks outgrow the cache.
NATIVE_LIMIT = 64


def _constant_in_graphs(fn: Callable[..., bool]) -> Callable[..., bool]:
    """As `torch.compiler.assume_constant_result`, which imports Dynamo: most of a second."""
    fn._dynamo_marked_constant = True  # ty: ignore[missing-attribute]
    return fn


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
    """Compute with "torch", with "native" or "triton" wherever they can, or with the fastest.

    "native" serves tensors of the CPU, "triton" those of NVIDIA GPUs; what they do not take, torch
    computes. Holds for the current thread (context), also for the backward pass if it runs inside.

    Raises:
        ValueError: for another name.
        NativeUnavailableError: "native" where there is no native library; says why.
        TritonUnavailableError: "triton" where there is no Triton or nothing that runs it; says why.
    """
    if name not in get_args(Choice):
        raise ValueError(f"backend must be one of {get_args(Choice)}, got {name!r}")
    if name == "native":
        native.load()
    if name == "triton":
        gpu.require()
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


# torch.linalg.eigh of a batch on CUDA. What this package was tested with is said by its version;
# how that chooses among cuSOLVER's routines was read in its issues, not measured.
_CUDA_LOOP = (
    f"torch.linalg beyond, whose eigh is known to solve a batch on a GPU one matrix after the "
    f"other above order {gpu.LIMIT}"
)


@dataclass(frozen=True)
class BackendInfo:
    """What computes, and why; `str()` says it in words.

    Attributes:
        choice: "auto", "torch", "native" or "triton", as set by `backend`.
        native: The loaded native library, or None.
        reason: Why there is none; empty if there is.
        triton: Triton and the GPUs whose tensors its kernels take, or None.
        triton_reason: Why there is none; empty if there is.
    """

    choice: Choice
    native: native.NativeInfo | None
    reason: str
    triton: gpu.TritonInfo | None
    triton_reason: str

    def __str__(self) -> str:
        return f"{self._on_cpu()}; {self._on_gpu()}"

    def _on_cpu(self) -> str:
        if self.native is None:
            return f"torch for everything on the CPU, because of no native library: {self.reason}"
        found = (
            f"native library (interface {self.native.abi}, instruction set "
            f"{self.native.isa} of {', '.join(self.native.isas)}, up to {self.native.threads} "
            "threads)"
        )
        if self.choice in ("torch", "triton"):
            return (
                f'torch for everything on the CPU, because of backend("{self.choice}"); '
                f"there is a {found}"
            )
        what = "wherever it can" if self.choice == "native" else "where it is the faster one"
        return (
            f"{found} for real CPU tensors of order <= {NATIVE_LIMIT}, {what}; torch for "
            "everything else on the CPU"
        )

    def _on_gpu(self) -> str:
        if self.triton is None:
            return f"on GPUs torch alone: {self.triton_reason}"
        where = ", ".join(self.triton.devices)
        found = f"Triton {self.triton.version} ({where})"
        if self.choice in ("torch", "native"):
            return f'on GPUs torch alone, because of backend("{self.choice}"); there is {found}'
        return f"on GPUs {found} for real matrices of order <= {gpu.LIMIT}, {_CUDA_LOOP}"


def backend_info() -> BackendInfo:
    """Which implementations there are and which is used."""
    there, triton = native.available(), gpu.info()
    return BackendInfo(
        _choice.get(),
        native.info() if there else None,
        "" if there else native.why_unavailable(),
        triton,
        gpu.why_unavailable(),
    )


def _native_takes(least: tuple[int, ...], A: Tensor, *others: Tensor | None) -> bool:
    """Whether the native library computes a primitive of A.

    `least` says from which batch on it is the faster one.
    """
    choice = _choice.get()
    if choice in ("torch", "triton"):
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
    """Whether T is memory of the CPU, of a dtype of the native library, and nothing is traced."""
    if torch.compiler.is_compiling():
        return False
    return T.dtype in native.DTYPES and _is_plain(T, T.dtype)


def _opaque(A: Tensor) -> bool:
    """Whether a primitive of A, met while a graph is traced, becomes one operator."""
    if _choice.get() in ("torch", "triton") or not 1 <= A.shape[-1] <= NATIVE_LIMIT:
        return False
    return A.device.type == "cpu" and A.dtype in native.DTYPES and _available()


@_constant_in_graphs
def _available() -> bool:
    return native.available()


def _triton_takes(order: int, limit: int, A: Tensor, *others: Tensor | None) -> bool:
    """Whether the Triton kernels compute a primitive of A of this order, in a graph or now."""
    choice, kind = _choice.get(), A.device.type
    if choice in ("torch", "native") or A.dtype not in gpu.DTYPES:
        return False
    if kind != "cuda" and not (kind == "cpu" and choice == "triton"):
        return False
    if not 1 <= order <= limit or not _kernels_run(kind, A.device.index or 0):
        return False
    if torch.compiler.is_compiling():
        return True
    for T in (A, *others):
        if T is not None and not (
            type(T) in (*_PLAIN, FakeTensor)
            and T.device == A.device
            and T.dtype == A.dtype
            and not torch._C._functorch.is_functorch_wrapped_tensor(T)
            and not torch._C._functorch.is_legacy_batchedtensor(T)
        ):
            return False
    return A.numel() > 0


@_constant_in_graphs
def _kernels_run(kind: str, index: int) -> bool:
    return gpu.runs_on(kind, index)


def _kernel(name: str, A: Tensor) -> Callable[..., Any]:
    """A function of `backends.triton.operators`, or where A is traced its operator."""
    if torch.compiler.is_compiling() or _watched(A):
        return getattr(torch.ops.linalg_kernels, f"triton_{name}")
    return getattr(gpu.operators(), name)


def _watched(A: Tensor) -> bool:
    """Whether A has no values, or a dispatch mode sees what is done with it."""
    return type(A) is FakeTensor or _get_current_dispatch_mode() is not None


def _settled_on_gpu(found: Tensor, check: bool, allowed: int = 0) -> bool:
    """Whether results of kernels stand. Waits for the device, if values may be read at all."""
    if not check or not errors.can_read(found):
        return True
    return not bool((found & ~allowed).any())


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
    if _triton_takes(A.shape[-1], gpu.LIMIT, A):
        w, V, told = _kernel("eigh", A)(A, symmetrize, _tolerance(symmetrize, check))
        if _settled_on_gpu(told, check):
            return w, V
    H, finite = reference.read_hermitian(A, symmetrize, check, name)
    return reference.eigh(H, finite=finite)


def eigh_positive(A: Tensor, symmetrize: bool, check: bool, name: str) -> tuple[Tensor, Tensor]:
    """`eigh` of positive definite A to high relative accuracy; LinAlgError where it is not."""
    if not torch.compiler.is_compiling() and _native_takes(_EIGEN, A):
        tolerance = _tolerance(symmetrize, check)
        w, V, found = native.eigh_positive(A, symmetrize=symmetrize, tolerance=tolerance)
        if not found:
            return w, V
    L, info = cholesky(A, symmetrize, check, name)
    if info is not None and errors.can_read(A):
        errors.check_info(info, name)
    return reference.eigh_positive(L)


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
    if _triton_takes(A.shape[-1], gpu.LIMIT, A):
        w, told = _kernel("eigvalsh", A)(A, symmetrize, _tolerance(symmetrize, check))
        if _settled_on_gpu(told, check):
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
    if _triton_takes(A.shape[-1], gpu.LIMIT, A, p) and (f := _known(fn, p)) is not None:
        F, w, V, told = _kernel("spectral", A)(
            A, f.table, f.kind, f.floor, symmetrize, _tolerance(symmetrize, check)
        )
        if _settled_on_gpu(told, check):
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
    if _triton_takes(V.shape[-1], gpu.LIMIT, V, w, p):
        f = _known(fn, p)
        if f is None:
            f = native.Function(native.TABLE, fn.value(w, None if p is None else p[..., None]))
        return _kernel("evaluate", V)(w, V, f.table, f.kind, f.floor)
    return reference.evaluate(w, V, p, fn)


def spectral_of_congruence(
    C: Tensor, X: Tensor, fn: ScalarFunction
) -> tuple[Tensor, Tensor] | None:
    """f(C X C^T) and the eigenvalues of C X C^T in any order; natively or not at all.

    None as well where there is something to be worded. Of constants: it has no derivative.
    """
    if needs_rule(C, X) or not _native_takes(_SPECTRAL, X, C) or (f := _known(fn, None)) is None:
        return None
    F, w, found = native.spectral_of_congruence(C, X, f)
    return None if found else (F, w)


def frechet(w: Tensor, V: Tensor, E: Tensor, p: Tensor | None, fn: ScalarFunction) -> Tensor:
    """Daleckii-Krein: V (f[w_i, w_j] ∘ V^H herm(E) V) V^H; batch shapes broadcast."""
    if E.shape == V.shape or V.ndim == 2:
        if torch.compiler.is_compiling():
            known = scalar.encode(fn)
            if known is not None and E.shape == V.shape and _opaque(V):
                return torch.ops.linalg_kernels.frechet(w, V, E, p, *known)
        elif _native_takes(_PRODUCT, E, w, V, p):
            f = _known(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return native.frechet(w, V, E, f)
        if _triton_takes(V.shape[-1], gpu.LIMIT, V, w, E, p):
            V, w = V.expand(E.shape), w.expand(E.shape[:-1])
            p = None if p is None else p.expand(E.shape[:-2])
            f = _known(fn, p)
            if f is None:
                f = native.Function(native.TABLE, reference.kernel(w, p, fn))
            return _kernel("frechet", V)(w, V, E, f.table, f.kind, f.floor)
    return reference.frechet(w, V, E, p, fn)


def eigh_vjp(w: Tensor, V: Tensor, gw: Tensor | None, gV: Tensor | None) -> Tensor | None:
    """The gradient of a loss of eigenvalues and eigenvectors, natively or not at all.

    None also where a derivative of it is asked for.
    """
    if torch.is_grad_enabled() or transformed() or not _native_takes(_PRODUCT, V, w, gw, gV):
        return None
    return native.eigh_vjp(w, V, gw, gV)


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
    if _triton_takes(A.shape[-1], gpu.LIMIT, A):
        L, info, told = _kernel("cholesky", A)(A, symmetrize, _tolerance(symmetrize, check))
        # What is not positive definite is told by info.
        if _settled_on_gpu(told, check, native.NOT_POSITIVE):
            return L, info
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
        if _triton_takes(L.shape[-1], gpu.LIMIT, L, G):
            return _kernel("cholesky_vjp", L)(L, G)
    return reference.cholesky_vjp(L, G)


def cholesky_chart(
    A: Tensor, chart: int, exponent: float, symmetrize: bool, check: bool
) -> tuple[Tensor, Tensor] | None:
    """⌊L⌋ + h(diag L) and L, natively or not at all.

    None also where there is something to be worded. `chart` is of `native`.
    """
    if transformed() or not _native_takes(_CHOLESKY, A):
        return None
    tolerance = _tolerance(symmetrize, check)
    X, L, found = native.cholesky_chart(
        A, chart, exponent, symmetrize=symmetrize, tolerance=tolerance
    )
    return None if found else (X, L)


def from_chol_log(X: Tensor) -> Tensor | None:
    """L L^T with L = ⌊X⌋ + exp diag X, natively or not at all."""
    if transformed() or not _native_takes(_CHOLESKY, X):
        return None
    return native.from_chol_log(X)


def cholesky_distance(
    P: Tensor, Q: Tensor, a: float, weight: Tensor, factors: bool
) -> native.CholeskyDistance | None:
    """A distance of Cholesky factors, natively or not at all (see `native.cholesky_distance`)."""
    if transformed() or P.shape != Q.shape or not _native_takes(_CHOLESKY, P, Q, weight):
        return None
    found = native.cholesky_distance(P, Q, a, weight, factors=factors, tolerance=errors.ASYMMETRY)
    return None if found.found else found


def definite_factor(A: Tensor, symmetrize: bool) -> tuple[Tensor, Tensor]:
    """Lower factor of the Hermitian matrix that A stands for, and which have one.

    What stands for a factor where there is none is not defined.
    """
    if _native_takes(_CHOLESKY, A):
        L, found = native.cholesky(A, symmetrize=symmetrize)
        good = torch.ones(A.shape[:-2], dtype=torch.bool)
        return L, L.diagonal(dim1=-2, dim2=-1).isfinite().all(-1) if found else good
    L, info = torch.linalg.cholesky_ex(reference.hermitian(A) if symmetrize else A)
    return L, info == 0


def cholesky_inverse(L: Tensor) -> Tensor:
    """A^-1 of A = L L^H, exactly Hermitian."""
    if _native_takes(_CHOLESKY, L):
        # The gradient of log det A = 2 Σ log L_ii is the inverse.
        return native.cholesky_vjp(L, torch.diag_embed(2 / L.diagonal(dim1=-2, dim2=-1)))
    return torch.cholesky_inverse(L)


def pencil(
    P: Tensor, Q: Tensor, alpha: float, beta: float, root: bool, vectors: bool
) -> native.Pencil | None:
    """Sums over the log spectrum of P^-1 Q and what their gradient needs, or None.

    None where neither the native library nor a kernel takes it, or something was found that is
    to be worded.
    """
    if torch.compiler.is_compiling():
        return None
    # Whichever is the larger set says whether it is worth it.
    A, other = (P, Q) if P.numel() >= Q.numel() else (Q, P)
    if _native_takes(_SPECTRAL, A, other):
        pencil = native.pencil(
            P, Q, alpha=alpha, beta=beta, root=root, vectors=vectors, tolerance=errors.ASYMMETRY
        )
        return None if pencil.found else pencil
    if _triton_takes(A.shape[-1], gpu.LIMIT, A, other) and not _watched(A):
        logs, U, told = gpu.operators().pencil(P, Q, errors.ASYMMETRY, vectors)
        if _settled_on_gpu(told, True):
            value = _sum_of_logs(logs, alpha, beta, root)
            return native.Pencil(value, logs, U, 0)
    return None


def _sum_of_logs(logs: Tensor, alpha: float, beta: float, root: bool) -> Tensor:
    """α Σ l² + β (Σ l)² of the trace and the rest apart, neither of which is negative."""
    n = logs.shape[-1]
    trace = logs.sum(-1)
    rest = logs - trace[..., None] / n
    value = alpha * rest.square().sum(-1) + (alpha / n + beta) * trace.square()
    return value.sqrt() if root else value


def pencil_vjp(
    of: tuple[Tensor, Tensor, Tensor],
    g: Tensor,
    alpha: float,
    beta: float,
    root: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None] | None:
    """Gradients with respect to P and Q of a loss with gradient g in a value of `pencil`.

    `of` are value, logs and vectors of it. None where g is no plain tensor.
    """
    value, logs, U = of
    if _triton_takes(U.shape[-1], gpu.LIMIT, U, logs, g):
        weights = alpha * logs + beta * logs.sum(-1, keepdim=True)
        # The root has derivative 0 at 0.
        zero = value == 0
        factor = torch.where(zero, 0, g / torch.where(zero, 1, value)) if root else 2 * g
        return gpu.operators().pencil_vjp(factor[..., None] * weights, logs, U, wanted)
    if is_plain(g) and native.available():
        return native.pencil_vjp(of, g, alpha=alpha, beta=beta, root=root, wanted=wanted)
    return None


def leading_triple(A: Tensor, iters: int, tol: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """u (*batch, m), s and v (*batch, n) of A (*batch, m, n) by a kernel, or None.

    As `subspace.leading_eigenvector` of the Gram matrix of the smaller side.
    """
    if not _triton_takes(min(A.shape[-2:]), gpu.RANK_ONE_LIMIT, A):
        return None
    return _kernel("leading_triple", A)(A, iters, tol)


def without_leading_triple(A: Tensor, iters: int, tol: float) -> Tensor | None:
    """A - s u v^T by a kernel, or None."""
    if not _triton_takes(min(A.shape[-2:]), gpu.RANK_ONE_LIMIT, A):
        return None
    return _kernel("without_leading_triple", A)(A, iters, tol)


def prefers_kernels() -> bool:
    """Whether the caller asked for the Triton kernels, as in their interpreter on the CPU."""
    return _choice.get() == "triton"


def reflections(V: Tensor, X: Tensor, adjoint: bool) -> Tensor | None:
    """H_1 ... H_k X, or H_k ... H_1 X, of V (*batch, n, k) and X (*batch, n, m); None if no kernel.

    The reflectors are the columns of V, of any length.
    """
    if V.numel() == 0 or not _triton_takes(V.shape[-2], gpu.LIMIT, X, V):
        return None
    return _kernel("householder", X)(V, X, adjoint)
