"""Every public operation under every transformation of PyTorch, and the README's table of it."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import linalg_kernels as lk
import pytest
import torch
from linalg_kernels import testing
from torch import Tensor

COLUMNS = ("batch", "complex", "grad", "gradgrad", "forward mode", "vmap", "compile", "export")


@dataclass(frozen=True)
class Case:
    """An operation, small inputs of a dtype with a leading batch of 2, and what cannot be."""

    fn: Callable
    inputs: Callable[[torch.dtype], tuple[Tensor, ...]]
    not_applicable: dict[str, str] = field(default_factory=dict)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spd(dtype, *shape, seed=0):
    shape = shape or (2, 3)
    return testing.random_spd(*shape, cond=8.0, dtype=dtype, generator=seeded(seed))


def free(dtype, *shape, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed))


def hermitian(dtype, *shape, seed=2):
    A = free(dtype, *shape, shape[-1], seed=seed)
    return (A + A.mH) / 2


def skew(dtype):
    A = free(dtype, 2, 3, 3)
    return A - A.mT


def sets(dtype):
    """Matrices so close that few steps reach the mean: a traced iteration is unrolled."""
    return torch.eye(2, dtype=dtype) + hermitian(dtype, 2, 3, 2) / 30


def exponents(dtype):
    real = dtype.to_real() if dtype.is_complex else dtype
    return torch.tensor([0.4, -1.2], dtype=real)


def quadratic_trace(A: Tensor) -> Tensor:
    z = torch.zeros(*A.shape[:-1], dtype=A.dtype)
    estimate = lk.hutchinson_trace(
        lambda x: (A @ x[..., None])[..., 0], z, samples=2, generator=seeded()
    )
    return estimate.value


def rank_one(A: Tensor) -> Tensor:
    u, s, v = lk.rank1(A)
    return s[..., None, None] * u[..., :, None] * v.conj()[..., None, :]


def rank_two(A: Tensor) -> Tensor:
    U, S, V = lk.svd_topk(A, 2)
    return (U * S[..., None, :]) @ V.mH


REAL = "n/a: real matrices only"
SAMPLES = "n/a: draws numbers; vmap needs its randomness flag"
TRACED = "n/a: draws numbers from a generator of the caller"

CASES = {
    # Eigenvectors by what is defined of them: the projector onto the last one.
    "eigh": Case(
        lambda A: (lk.eigh(A).w, lk.eigh(A).V[..., -1:] @ lk.eigh(A).V[..., -1:].mH),
        lambda t: (spd(t),),
    ),
    "eigvalsh": Case(lk.eigvalsh, lambda t: (spd(t),)),
    "logm": Case(lk.logm, lambda t: (spd(t),)),
    "expm": Case(lk.expm, lambda t: (hermitian(t, 2, 3),)),
    "sqrtm": Case(lk.sqrtm, lambda t: (spd(t),)),
    "inv_sqrtm": Case(lk.inv_sqrtm, lambda t: (spd(t),)),
    "powm": Case(lk.powm, lambda t: (spd(t), exponents(t))),
    "spectral_fn": Case(
        lambda A: lk.spectral_fn(
            A, torch.tanh, lambda x: 1 - torch.tanh(x) ** 2,
            d2f=lambda x: -2 * torch.tanh(x) * (1 - torch.tanh(x) ** 2), length=1.0,
        ),
        lambda t: (hermitian(t, 2, 3),),
    ),
    "multi_spectral": Case(lambda A: lk.multi_spectral(A, ("log", 0.3)), lambda t: (spd(t),)),
    "clamp_eigvals": Case(lambda A: lk.clamp_eigvals(A, 2.0), lambda t: (spd(t),)),
    "frechet": Case(
        lambda A, E: lk.frechet(A, E, "log"),
        lambda t: (spd(t), hermitian(t, 2, 3)),
        {"gradgrad": "n/a: in E only, it is a second derivative in A itself"},
    ),
    "cholesky": Case(lk.cholesky, lambda t: (spd(t),)),
    "cholesky_ex": Case(lambda A: lk.cholesky_ex(A).L, lambda t: (spd(t),)),
    "chol_log": Case(lk.chol_log, lambda t: (spd(t),)),
    "from_chol_log": Case(lk.from_chol_log, lambda t: (free(t, 2, 3, 3).tril(),)),
    "chol_power": Case(lk.chol_power, lambda t: (spd(t), exponents(t))),
    "logdet": Case(lk.logdet, lambda t: (spd(t),)),
    "triangular_congruence": Case(
        lk.triangular_congruence,
        lambda t: (torch.linalg.cholesky(spd(t)), hermitian(t, 2, 3)),
    ),
    "pencil_log_norm": Case(
        functools.partial(lk.pencil_log_norm, alpha=0.7, beta=0.3),
        lambda t: (spd(t), spd(t, seed=3)),
    ),
    "pencil_log_square": Case(
        functools.partial(lk.pencil_log_square, alpha=0.7, beta=0.3),
        lambda t: (spd(t), spd(t, seed=3)),
    ),
    "lyapunov": Case(lk.lyapunov, lambda t: (spd(t), free(t, 2, 3, 3))),
    "sylvester": Case(
        lk.sylvester, lambda t: (spd(t), spd(t, 2, 2, seed=3), free(t, 2, 3, 2))
    ),
    "karcher_mean": Case(
        functools.partial(lk.karcher_mean, tol=1e-13, max_iter=5), lambda t: (sets(t),)
    ),
    "wasserstein_mean": Case(
        functools.partial(lk.wasserstein_mean, tol=1e-13, max_iter=6), lambda t: (sets(t),)
    ),
    "log_cholesky_mean": Case(lk.log_cholesky_mean, lambda t: (sets(t),)),
    "so_exp": Case(lk.so_exp, lambda t: (skew(t),), {"complex": REAL}),
    # Only derivatives along the rotations are defined, so the input is a path among them.
    "so_log": Case(
        lambda S: lk.so_log(lk.so_exp(S) @ lk.so_exp(S.mT / 3)), lambda t: (skew(t),),
        {"complex": REAL},
    ),
    "polar": Case(lk.polar, lambda t: (free(t, 2, 3, 2),)),
    "householder_product": Case(lk.householder_product, lambda t: (free(t, 2, 3, 2),)),
    "householder_apply": Case(
        lk.householder_apply, lambda t: (free(t, 2, 3, 2), free(t, 2, 3, 2, seed=4))
    ),
    # Singular vectors by what is defined of them: their product.
    "rank1": Case(rank_one, lambda t: (free(t, 2, 3, 4),)),
    "remove_rank1": Case(
        lambda X: lk.remove_rank1(X, detach=False), lambda t: (free(t, 2, 3, 4),)
    ),
    "svd_topk": Case(rank_two, lambda t: (free(t, 2, 3, 4),)),
    "whitened_lowrank": Case(
        lambda W, S: torch.matmul(*lk.whitened_lowrank(W, S, 2)),
        lambda t: (free(t, 2, 3, 4), free(t, 2, 4, 4, seed=5)),
    ),
    "newton_schulz_sqrtm": Case(
        lambda A: tuple(lk.newton_schulz_sqrtm(A))[:2], lambda t: (spd(t),)
    ),
    "pade_sqrtm": Case(lambda A: tuple(lk.pade_sqrtm(A))[:2], lambda t: (spd(t),)),
    "logabsdet_sym": Case(lk.logabsdet_sym, lambda t: (hermitian(t, 2, 3),)),
    "hutchinson_trace": Case(
        quadratic_trace,
        lambda t: (hermitian(t, 2, 3),),
        {
            "batch": "n/a: draws other numbers for another shape", "vmap": SAMPLES,
             "compile": TRACED, "export": TRACED,
        },
    ),
    "vech": Case(functools.partial(lk.vech, weighted=True), lambda t: (hermitian(t, 2, 3),)),
    "unvech": Case(
        functools.partial(lk.unvech, weighted=True), lambda t: (free(t, 2, 6).real.to(t),)
    ),
    "covariance": Case(
        functools.partial(lk.covariance, ddof=0, shrinkage="oas"), lambda t: (free(t, 2, 3, 7),)
    ),
    "shrink_covariance": Case(lambda C: lk.shrink_covariance(C, 0.3), lambda t: (spd(t),)),
}  # fmt: skip


def applicable(column):
    """The cases that this column holds for."""
    return pytest.mark.parametrize(
        "case", [c for c in CASES.values() if column not in c.not_applicable],
        ids=[name for name, c in CASES.items() if column not in c.not_applicable],
    )  # fmt: skip


@applicable("batch")
def test_batch(case):
    inputs = case.inputs(torch.float64)
    together = testing.outputs(case.fn(*inputs))
    for i in range(2):
        alone = testing.outputs(case.fn(*(x[i] for x in inputs)))
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one, all_[i], rtol=1e-10, atol=1e-11)


@applicable("complex")
def test_complex(case):
    testing.check_grad(case.fn, case.inputs(torch.complex128))


@applicable("grad")
def test_grad(case):
    testing.check_grad(case.fn, case.inputs(torch.float64))


@applicable("gradgrad")
def test_gradgrad(case):
    testing.check_gradgrad(case.fn, case.inputs(torch.float64))


@applicable("forward mode")
def test_forward_mode(case):
    batched = "vmap" not in case.not_applicable
    testing.check_forward_mode(case.fn, case.inputs(torch.float64), batched)


@applicable("vmap")
def test_vmap(case):
    testing.check_vmap(case.fn, case.inputs(torch.float64))


@applicable("vmap")
def test_func(case):
    if "gradgrad" in case.not_applicable:
        pytest.skip(case.not_applicable["gradgrad"])
    testing.check_func(case.fn, tuple(x[0] for x in case.inputs(torch.float64)))


@pytest.mark.compile
@applicable("compile")
def test_compile(case):
    testing.check_compile(case.fn, case.inputs(torch.float64), backend="aot_eager")


@pytest.mark.compile
@applicable("export")
def test_export(case):
    testing.check_export(case.fn, case.inputs(torch.float64))


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize("name", ["logm", "powm", "cholesky", "eigh", "householder_apply"])
def test_inductor(name):
    case = CASES[name]
    testing.check_compile(case.fn, case.inputs(torch.float64), backend="inductor")


def table():
    lines = ["| op | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, case in CASES.items():
        cells = (case.not_applicable.get(column, "✓") for column in COLUMNS)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_every_function_has_a_row():
    skipped = {"backend", "backend_info"}
    functions = {name for name in lk.__all__ if name.islower() and callable(getattr(lk, name))}
    assert functions - skipped == set(CASES)


def test_table_in_the_readme():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    found = re.search(r"<!-- transformations -->\n(.*?)\n<!-- /transformations -->", readme, re.S)
    assert found is not None
    assert found.group(1) == table(), f"the table is now:\n{table()}"
