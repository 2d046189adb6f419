"""Batched, differentiable matrix functions and factorisations for PyTorch."""

from linalg_kernels import (
    barycenter,
    congruence,
    daleckii_krein,
    errors,
    inner,
    packed,
    precision,
    scalar,
    transforms,
)
from linalg_kernels.backends import opaque as _opaque  # noqa: F401 (registers operators)
from linalg_kernels.backends.choice import BackendInfo, backend, backend_info
from linalg_kernels.barycenter import ConvergenceWarning
from linalg_kernels.cholesky import (
    CholeskyEx,
    chol_log,
    chol_power,
    cholesky,
    cholesky_ex,
    from_chol_log,
    logdet,
    triangular_congruence,
)
from linalg_kernels.covariance import covariance, shrink_covariance
from linalg_kernels.eigen import Eigh, eigh, eigvalsh
from linalg_kernels.errors import LinAlgError
from linalg_kernels.householder import householder_apply, householder_product
from linalg_kernels.iterative import ApproximateRoot, newton_schulz_sqrtm, pade_sqrtm
from linalg_kernels.karcher import karcher_mean
from linalg_kernels.linear_operator import LinearOperator
from linalg_kernels.logabsdet import logabsdet_sym
from linalg_kernels.lowrank import rank1, remove_rank1, svd_topk, whitened_lowrank
from linalg_kernels.lyapunov import lyapunov, sylvester
from linalg_kernels.means import log_cholesky_mean
from linalg_kernels.pencil import pencil_log_norm, pencil_log_square
from linalg_kernels.polar import polar
from linalg_kernels.rotations import so_exp, so_log
from linalg_kernels.spectral import (
    clamp_eigvals,
    expm,
    frechet,
    inv_sqrtm,
    logm,
    multi_spectral,
    powm,
    spectral_fn,
    sqrtm,
)
from linalg_kernels.trace import TraceEstimate, hutchinson_trace
from linalg_kernels.vech import unvech, vech
from linalg_kernels.wasserstein import wasserstein_mean

__all__ = [
    # Hermitian eigenproblem and functions of it
    "Eigh", "eigh", "eigvalsh", "logm", "expm", "sqrtm", "inv_sqrtm", "powm", "spectral_fn",
    "multi_spectral", "clamp_eigvals", "frechet",
    # pairs of positive definite matrices
    "pencil_log_norm", "pencil_log_square",
    # Cholesky
    "CholeskyEx", "cholesky", "cholesky_ex", "chol_log", "from_chol_log", "chol_power", "logdet",
    "triangular_congruence",
    # linear equations
    "lyapunov", "sylvester",
    # orthogonal matrices
    "so_exp", "so_log", "polar", "householder_product", "householder_apply",
    # low rank
    "LinearOperator", "rank1", "remove_rank1", "svd_topk", "whitened_lowrank",
    # approximate roots
    "ApproximateRoot", "newton_schulz_sqrtm", "pade_sqrtm",
    # determinants and traces
    "logabsdet_sym", "TraceEstimate", "hutchinson_trace",
    # symmetric matrices as vectors
    "vech", "unvech",
    # means
    "karcher_mean", "log_cholesky_mean", "wasserstein_mean", "ConvergenceWarning",
    # what computes
    "BackendInfo", "backend", "backend_info",
    # errors
    "LinAlgError",
    # modules for packages that build operations of their own on these
    "barycenter", "congruence", "daleckii_krein", "errors", "inner", "packed", "precision",
    "scalar", "transforms",
    # covariance
    "covariance", "shrink_covariance",
]  # fmt: skip
