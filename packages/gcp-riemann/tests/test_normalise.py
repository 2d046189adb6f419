"""Powers, logarithms and log-Cholesky maps: oracles, identities, singular and bad input."""

import weakref
from typing import Any

import pytest
import torch
from gcp_riemann import (
    LogCholesky,
    MatrixLog,
    MatrixPower,
    covariance_pooling,
    log_cholesky,
    matrix_log,
    matrix_power,
    newton_schulz_root,
    root_residual,
)
from gcp_riemann.newton_schulz import SCALINGS, factors
from linalg_kernels.errors import LinAlgError
from linalg_kernels.testing import exact_function, orthogonal, random_spd, with_spectrum
from spd_metrics import BuresWasserstein, LogEuclidean, PowerEuclidean
from spd_metrics import LogCholesky as LogCholeskyMetric
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def features(batch, channels, positions, dtype=torch.float64):
    return torch.randn(batch, channels, positions, dtype=dtype, generator=seeded()).relu()


def error(got, want):
    got, want = got.detach(), want.detach()
    return float(((got - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))).max())


MODULES: dict[str, Any] = {
    "sqrt": MatrixPower(),
    "power": MatrixPower(0.3),
    "newton_schulz": MatrixPower(method="newton_schulz", iters=8),
    "newton_schulz, trace": MatrixPower(method="newton_schulz", iters=14, scaling="trace"),
    "pade": MatrixPower(method="pade"),
    "log": MatrixLog(),
    "log_cholesky": LogCholesky(),
    "log_cholesky, power": LogCholesky(0.5),
}
ROOTS = [name for name, module in MODULES.items() if getattr(module, "theta", 0) == 0.5][:-1]


def test_the_oracle():
    import mpmath

    A = random_spd(4, cond=50.0, generator=seeded())
    assert error(matrix_power(A), exact_function(A, mpmath.sqrt)) < 1e-14
    assert error(matrix_power(A, 1.7), exact_function(A, lambda x: x**1.7)) < 1e-14
    assert error(matrix_log(A, shift=0.0), exact_function(A, mpmath.log)) < 1e-14


@pytest.mark.parametrize("name", ROOTS)
def test_methods_agree_where_the_condition_number_is_low(name):
    A = random_spd(3, 6, cond=10.0, generator=seeded())
    tolerance = 1e-14 if name == "sqrt" else 1e-6
    assert error(MODULES[name](A) @ MODULES[name](A), A) < tolerance
    assert float(MODULES[name].residual(A).max()) < tolerance


@pytest.mark.parametrize("name", MODULES)
def test_gradients(name):
    A = random_spd(2, 4, cond=20.0, generator=seeded()).requires_grad_()
    assert gradcheck(MODULES[name], A)


@pytest.mark.parametrize("name", ["sqrt", "power", "newton_schulz", "newton_schulz, trace"])
def test_second_gradients(name):
    A = random_spd(3, cond=8.0, generator=seeded()).requires_grad_()
    assert gradgradcheck(MODULES[name], A, atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_zero_gives_zero(name):
    P = torch.stack([torch.zeros(4, 4), torch.eye(4)]).requires_grad_()
    X = MODULES[name](P)
    assert X[0].abs().max() == 0
    (gradient,) = torch.autograd.grad(X[0].sum(), P)
    assert gradient.abs().max() == 0
    assert X[1].isfinite().all()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("unit", [1e-12, 1e6])
def test_unit_of_the_features_does_not_matter(name, unit):
    P = covariance_pooling(features(2, 6, 9))
    small, large = MODULES[name](P), MODULES[name](unit * P)
    if "log" in name:
        identity = torch.eye(6, dtype=P.dtype)
        logarithm = torch.tensor(unit, dtype=torch.float64).log()
        if name == "log":
            assert torch.allclose(large - small, logarithm * identity, rtol=1e-7, atol=1e-9)
        else:
            assert torch.allclose(
                (large - small).diagonal(dim1=-2, dim2=-1), logarithm.expand(2, 6), atol=1e-7
            )
    else:
        assert error(large, unit ** MODULES[name].theta * small) < 1e-9


@pytest.mark.parametrize("name", ["sqrt", "power", "newton_schulz", "log"])
def test_equivariance(name):
    P = covariance_pooling(features(2, 6, 9))
    Q = orthogonal(6, generator=seeded(1))
    X = MODULES[name](P)
    assert error(MODULES[name](Q @ P @ Q.mT), Q @ X @ Q.mT) < 1e-9
    assert float((X @ P - P @ X).norm() / (X.norm() * P.norm())) < 1e-12


# --- singular covariances -------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.3, 0.5, 1.5])
def test_power_of_a_singular_covariance_is_differentiated_along_its_rank(theta):
    X = features(2, 6, 4).requires_grad_()
    assert torch.linalg.matrix_rank(covariance_pooling(X)).tolist() == [3, 3]
    assert gradcheck(lambda X: matrix_power(covariance_pooling(X), theta), X)


def test_float32_keeps_its_digits_where_rank_is_deficient():
    exact, X = features(2, 64, 49).requires_grad_(), features(2, 64, 49).float().requires_grad_()
    G = torch.randn(2, 64, 64, dtype=torch.float64, generator=seeded(2))
    reference = matrix_power(covariance_pooling(exact))
    root = matrix_power(covariance_pooling(X))
    assert error(root, reference) < 1e-5
    (want,) = torch.autograd.grad(reference, exact, G)
    (got,) = torch.autograd.grad(root, X, G.float())
    assert float((got - want).detach().norm() / want.norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", [MatrixLog(), LogCholesky()], ids=["log", "log_cholesky"])
def test_shift_makes_every_covariance_definite(module, dtype):
    for positions in (2, 9, 49):
        X = 1e3 * features(3, 64, positions, dtype)
        assert module(covariance_pooling(X)).isfinite().all()


def test_gradient_at_repeated_eigenvalues():
    A = with_spectrum([1.0, 1.0, 4.0, 4.0], orthogonal(4, generator=seeded()))
    A = A.requires_grad_()
    assert gradcheck(matrix_power, A)
    identity = torch.eye(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(matrix_power(identity).sum(), identity)
    assert torch.allclose(gradient, torch.full((3, 3), 0.5, dtype=torch.float64))


# --- Newton-Schulz --------------------------------------------------------------------------


def test_the_official_five_steps_are_far_from_the_root():
    P = covariance_pooling(features(1, 256, 196))
    root = matrix_power(P)
    assert error(newton_schulz_root(P, 5, scaling="trace"), root) == pytest.approx(0.42, abs=0.01)
    assert error(newton_schulz_root(P, 10, scaling="trace"), root) == pytest.approx(0.02, abs=0.01)
    assert error(newton_schulz_root(P, 4), root) < 0.01
    assert error(newton_schulz_root(P, 5), root) < 0.01


@pytest.mark.parametrize("scaling", SCALINGS)
def test_iteration_converges_to_the_root_of_a_singular_covariance(scaling):
    P = covariance_pooling(features(2, 8, 6))
    errors = [error(newton_schulz_root(P, n, scaling=scaling), matrix_power(P)) for n in (4, 8, 16)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9


def test_spectrum_needs_half_the_steps():
    P = covariance_pooling(features(4, 64, 196))
    plain = root_residual(P, newton_schulz_root(P, 10, scaling="trace")).max()
    assert root_residual(P, newton_schulz_root(P, 5)).max() < 2e-3
    assert root_residual(P, newton_schulz_root(P, 3)).max() < 0.03
    assert root_residual(P, newton_schulz_root(P, 5, scaling="trace")).min() > 0.2
    assert plain < 1e-3


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_number_has_its_root_at_once(scaling):
    P = torch.tensor([[[4.0]], [[9.0]]])
    root = newton_schulz_root(P, 1, scaling=scaling)
    # One step with a factor above 1 does not have 1 as its fixed point.
    want = torch.tensor([2.0, 3.0]) if scaling == "trace" else None
    if want is not None:
        assert torch.allclose(root.flatten(), want)
    assert torch.allclose(
        newton_schulz_root(P, 8, scaling=scaling).flatten(), torch.tensor([2.0, 3.0])
    )


@pytest.mark.parametrize("iters", [1, 2, 3, 4])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_derivative_is_that_of_the_polynomial_however_far(iters, scaling):
    P = covariance_pooling(features(2, 5, 4)).requires_grad_()

    def root(P):
        return newton_schulz_root(P, iters, scaling=scaling)

    assert gradcheck(root, P)
    # Autograd of the plain operations is another way to the same derivative.
    G = torch.randn(2, 5, 5, dtype=torch.float64, generator=seeded(3))
    (fast,) = torch.autograd.grad(root(P), P, G)
    pullback = torch.func.vjp(root, P)[1]
    assert torch.allclose(fast, pullback(G)[0], rtol=1e-10)


class PeakMemory(TorchDispatchMode):
    """Most entries that were alive at once in what operations gave."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.alive = [ref for ref in self.alive if ref() is not None]
        self.alive += [weakref.ref(T) for T in tree_leaves(out) if isinstance(T, torch.Tensor)]
        self.peak = max(self.peak, sum(T.numel() for ref in self.alive if (T := ref()) is not None))
        return out


def test_memory_of_evaluation_does_not_grow_with_the_steps():
    P = covariance_pooling(features(1, 32, 40, torch.float32))
    peaks = []
    for iters in (4, 16):
        with torch.no_grad(), PeakMemory() as memory:
            newton_schulz_root(P, iters, check=False)
        peaks.append(memory.peak)
    assert peaks[0] == peaks[1] < 12 * 32 * 32


def test_training_keeps_two_matrices_a_step():
    P = covariance_pooling(features(1, 8, 20, torch.float32)).requires_grad_()

    def kept(iters):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda T: saved.append(T) or T, lambda T: T):
            newton_schulz_root(P, iters)
        return sum(T.numel() for T in saved if T.ndim == 3)

    assert kept(7) - kept(6) == 2 * 64


def test_factors():
    assert factors(3, "trace") == (1.0, 1.0, 1.0)
    assert all(1 <= alpha <= 3**0.5 for alpha in factors(7))
    assert factors(7)[-2:] == (1.0, 1.0)
    assert factors(7)[0] > 1.6


# --- identities with metrics ----------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0])
def test_log_cholesky_is_the_logarithm_at_the_identity(theta):
    P = random_spd(3, 5, cond=30.0, generator=seeded())
    identity = torch.eye(5, dtype=P.dtype)
    want = LogCholeskyMetric(theta).log(identity, P)
    assert error(log_cholesky(P, theta, shift=0.0), want) < 1e-13


@pytest.mark.parametrize("theta", [0.25, 0.5, 1.0])
def test_tangent_power_is_the_logarithm_at_the_identity(theta):
    P = random_spd(3, 5, cond=30.0, generator=seeded())
    identity = torch.eye(5, dtype=P.dtype)
    tangent = (matrix_power(P, theta) - identity) / theta
    assert error(tangent, PowerEuclidean(theta).log(identity, P)) < 1e-13
    assert error(tangent, BuresWasserstein(theta).log(identity, P)) < 1e-12
    assert error(matrix_log(P, shift=0.0), LogEuclidean().log(identity, P)) < 1e-13


def test_powers_go_over_into_the_logarithm():
    P = random_spd(3, 5, cond=30.0, generator=seeded())
    logarithm = matrix_log(P, shift=0.0)
    identity = torch.eye(5, dtype=P.dtype)
    errors = [error((matrix_power(P, t) - identity) / t, logarithm) for t in (1e-1, 1e-2, 1e-3)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 5e-3


# --- precision, input -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_autocast_and_half_precision(name):
    P = covariance_pooling(features(2, 4, 9, torch.float32))
    want = MODULES[name](P)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(MODULES[name](P), want)
    assert MODULES[name](P.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", MODULES)
def test_bad_values_are_named(name):
    P = torch.eye(3).repeat(3, 1, 1)
    P[1, 0, 0] = float("inf")
    with pytest.raises(LinAlgError, match=r"P\[1\] contains NaN or Inf"):
        MODULES[name](P)
    P[1] = torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"P\[1\] must be symmetric"):
        MODULES[name](P)


@pytest.mark.parametrize("name", ["sqrt", "power", "log", "log_cholesky"])
def test_indefinite_matrices_are_named(name):
    P = torch.eye(3).repeat(3, 1, 1)
    P[2, 0, 0] = -0.5
    with pytest.raises(LinAlgError, match=r"P\[2\]"):
        MODULES[name](P)


@pytest.mark.bad_input
def test_what_errors_say():
    with pytest.raises(ValueError, match="theta must be > 0 and finite, got -1"):
        MatrixPower(-1.0)
    with pytest.raises(ValueError, match=r"theta must be 0.5 for method='pade', got 0.3"):
        MatrixPower(0.3, "pade")
    with pytest.raises(ValueError, match="method must be one of 'eigh', 'newton_schulz', 'pade'"):
        MatrixPower(method="svd")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="iters must be >= 1, got 0"):
        MatrixPower(iters=0)
    with pytest.raises(ValueError, match="iters must be >= 1, got 0"):
        newton_schulz_root(torch.eye(2), 0)
    with pytest.raises(ValueError, match="scaling must be one of"):
        newton_schulz_root(torch.eye(2), scaling="norm")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="shift must be >= 0 and finite, got -1"):
        MatrixLog(-1.0)
    with pytest.raises(ValueError, match=r"P must be \(..., n, n\), got \(2, 3\)"):
        matrix_power(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="P must be real"):
        matrix_power(torch.eye(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"theta must be 0.5 for a residual"):
        MatrixPower(0.3).residual(torch.eye(2))
