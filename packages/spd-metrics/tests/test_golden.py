"""Figures of the official code and of independent formulas, two 5 x 5 matrices of each batch.

`golden.npz` holds arrays made by GitZH-Chen/PCM_BWCM, LieBN and SPDNN as released, and by
formulas of their own (keys `reference/…`). Keys are file/operation; means are of all 30 of `P`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from linalg_kernels import lyapunov, triangular_congruence
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    BuresWassersteinCholesky,
    GeneralizedBuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerCholesky,
    PowerEuclidean,
    Pullback,
)
from spd_metrics.affine_invariant import AffineInvariantGeometry

GOLDEN = {
    key: torch.from_numpy(array)
    for key, array in np.load(Path(__file__).with_name("golden.npz")).items()
}


def assert_golden(got, key, rtol=1e-9, where=None):
    want = GOLDEN[key]
    got = got[: len(want)] if got.ndim == want.ndim and got.ndim != 2 else got
    if where is not None:
        got, want = got[where], want[where]
    if want.ndim >= 2:
        error = torch.linalg.matrix_norm(got - want) / torch.linalg.matrix_norm(want)
    else:
        error = (got - want).abs() / want.abs()
    assert got.shape == want.shape, key
    assert bool((error <= rtol).all()), f"{key}: {error.max().item():.2g}"


def points(file):
    """P, Q, V, W in the length of the stored results."""
    return (GOLDEN.get(f"{file}/{name}") for name in "PQVW")


def short(file, length):
    return [None if T is None else T[:length] for T in points(file)]


THETAS = sorted(key.split("theta")[1].split("_")[0] for key in GOLDEN
                if key.startswith("pcm/theta") and key.endswith("_dist"))  # fmt: skip


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("file", ["pcm", "bwcm"])
def test_cholesky_metrics(file, theta):
    key = f"{file}/theta{theta}_"
    length = len(GOLDEN[key + "dist"])
    P, Q, V, W = short(file, length)
    kind = PowerCholesky if file == "pcm" else BuresWassersteinCholesky
    metric = kind(float(theta))
    # The official code takes 1/θ of powers near 1.
    rtol = 1e-9 if abs(float(theta)) > 0.01 else 1e-8
    log = metric.log(P, Q)
    assert_golden(log, key + "log_P_Q", rtol)
    assert_golden(metric.exp(P, log), key + "exp_P_log", rtol)
    assert_golden(metric.transport(P, Q, V), key + "pt_P_to_Q_V", rtol)
    assert_golden(metric.dist(P, Q), key + "dist", rtol)
    assert_golden(metric.inner(P, V, W), key + "inner_P_V_W", rtol)
    for t in ("0", "0.25", "0.5", "1"):
        assert_golden(metric.geodesic(P, Q, float(t)), f"{key}geodesic_t{t}", rtol)
    clamped = GOLDEN[key + "exp_P_V_clamped"].bool()
    outside = metric.exp_domain(P, V) <= 1
    assert torch.equal(clamped, outside)
    within = kind(float(theta), domain="nan").exp(P, V)
    assert torch.equal(within.isnan().all(-1).all(-1), outside)
    assert_golden(within, key + "exp_P_V", rtol, where=~clamped)
    leaf = P.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((metric.dist(leaf, Q) ** 2).sum(), leaf)
    official = GOLDEN[key + "grad_P_sumdist2"]
    want = (official + official.mT) / 2
    error = torch.linalg.matrix_norm(gradient - want) / torch.linalg.matrix_norm(want)
    assert bool((error < rtol).all())
    if file == "bwcm":
        weighted = BuresWassersteinCholesky(float(theta), GOLDEN["bwcm/M"])
        assert_golden(weighted.dist(P, Q), key + "dist_M", rtol)
        assert_golden(weighted.inner(P, V, W), key + "inner_P_V_W_M", rtol)


def test_affine_invariant_of_the_official_code():
    length = len(GOLDEN["aim_lem_lcm_crim/aim_log_P_Q"])
    P, Q, V, _ = short("aim_lem_lcm_crim", length)
    metric = AffineInvariant()
    assert_golden(metric.log(P, Q), "aim_lem_lcm_crim/aim_log_P_Q")
    assert_golden(metric.exp(P, V), "aim_lem_lcm_crim/aim_exp_P_V")
    for t in ("0", "0.25", "0.5", "1"):
        assert_golden(metric.geodesic(P, Q, float(t)), f"aim_lem_lcm_crim/aim_geodesic_t{t}")
    identity = torch.eye(P.shape[-1], dtype=P.dtype)
    for theta, alpha, beta in (("1", "1", "0"), ("0.5", "1", "0"), ("0.5", "2", "0.3")):
        metric = AffineInvariant(float(theta), float(alpha), float(beta))
        key = f"aim_lem_lcm_crim/aim_theta{theta}_a{alpha}_b{beta}_dist2_I"
        assert_golden(metric.dist(P, identity) ** 2, key)


@pytest.mark.parametrize(("alpha", "beta"), [("1", "0"), ("2", "0.3")])
def test_log_euclidean_of_the_official_code(alpha, beta):
    key = f"aim_lem_lcm_crim/lem_a{alpha}_b{beta}_"
    length = len(GOLDEN[key + "dist2"])
    P, Q, _, _ = short("aim_lem_lcm_crim", length)
    metric = LogEuclidean(float(alpha), float(beta))
    assert_golden(metric.dist(P, Q) ** 2, key + "dist2")
    assert_golden(metric.mean(GOLDEN["aim_lem_lcm_crim/P"]), key + "mean")
    for t in ("0", "0.25", "0.5", "1"):
        assert_golden(metric.geodesic(P, Q, float(t)), f"{key}geodesic_t{t}")


@pytest.mark.parametrize("theta", ["1", "0.5"])
def test_log_cholesky_of_the_official_code(theta):
    key = f"aim_lem_lcm_crim/lcm_theta{theta}_"
    length = len(GOLDEN[key + "dist2"])
    P, Q, _, _ = short("aim_lem_lcm_crim", length)
    metric = LogCholesky(float(theta))
    assert_golden(metric.dist(P, Q) ** 2, key + "dist2")
    assert_golden(metric.mean(GOLDEN["aim_lem_lcm_crim/P"]), key + "mean")
    assert_golden(metric.gyro_add(Q, P), key + "prod_Q_P")
    assert_golden(metric.gyro_add(metric.gyro_neg(Q), P), key + "invprod_Q_P")
    for t in ("0", "0.25", "0.5", "1"):
        assert_golden(metric.geodesic(P, Q, float(t)), f"{key}geodesic_t{t}")


@dataclass(frozen=True)
class InverseLocal:
    """The differential of P -> L^-1 L^-T at P = L L^T."""

    L: torch.Tensor
    X: torch.Tensor

    @staticmethod
    def along(L, V):
        half = triangular_congruence(L, V)
        half = half.tril(-1) + torch.diag_embed(half.diagonal(dim1=-2, dim2=-1) / 2)
        inverse = torch.linalg.inv(L)
        Z = half @ inverse
        return -(Z @ inverse.mT) - inverse @ Z.mT

    def push(self, V):
        return self.along(self.L, V)

    def pull(self, W):
        # The chart is its own inverse.
        return self.along(torch.linalg.cholesky(self.X), W)


@dataclass(frozen=True)
class LieCholeskyInverse:
    """The inverse of the group of Cholesky factors."""

    kind: Literal["symmetric"] = "symmetric"

    def __call__(self, P, name="P"):
        return self.at(P, name).X

    def at(self, P, name="P"):  # noqa: ARG002
        L = torch.linalg.cholesky(P)
        inverse = torch.linalg.inv(L)
        return InverseLocal(L, inverse @ inverse.mT)

    def inverse(self, X):
        return self(X)


class RightInvariant(Pullback):
    """CRIM of the LieBN toolbox: affine-invariant after the inverse, as a user would write it."""

    chart = LieCholeskyInverse()
    geometry = AffineInvariantGeometry()


def test_a_metric_of_ones_own_gives_the_official_right_invariant_one():
    key = "aim_lem_lcm_crim/crim_"
    P, Q, V, _ = short("aim_lem_lcm_crim", 2)
    metric = RightInvariant()
    assert_golden(metric.log(P, Q), key + "log_P_Q")
    assert_golden(metric.exp(P, V), key + "exp_P_V")
    for t in ("0.25", "0.5"):
        assert_golden(metric.geodesic(P, Q, float(t)), f"{key}geodesic_t{t}")


def test_bures_wasserstein_of_the_official_code():
    P, Q, V, _ = short("bwm", len(GOLDEN["bwm/bwm_log_P_Q"]))
    metric = BuresWasserstein()
    assert_golden(metric.log(P, Q), "bwm/bwm_log_P_Q")
    identity = torch.eye(P.shape[-1], dtype=P.dtype)
    assert_golden(metric.exp(identity, GOLDEN["bwm/V02"]), "bwm/bwm_exp_I_V02")
    assert_golden(lyapunov(P, V), "bwm/lyap_P_V")


REFERENCE = {
    "lem_a1_b0": LogEuclidean(),
    "lem_a2_b0.3": LogEuclidean(2.0, 0.3),
    "pem_theta0.5": PowerEuclidean(0.5),
    "pem_theta-1": PowerEuclidean(-1.0),
    "aim_theta1": AffineInvariant(),
    "aim_theta0.5_a2_b0.3": AffineInvariant(0.5, 2.0, 0.3),
    "bwm_theta0.5": BuresWasserstein(),
    "bwm_theta0.25": BuresWasserstein(0.25),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_independent_formulas(name):
    metric, key = REFERENCE[name], f"reference/{name}_"
    P, Q, V, W = short("reference", len(GOLDEN[key + "dist2"]))
    assert_golden(metric.log(P, Q), key + "log_P_Q")
    assert_golden(metric.dist(P, Q) ** 2, key + "dist2")
    assert_golden(metric.geodesic(P, Q, 0.3), key + "geodesic_t0.3")
    assert_golden(metric.inner(P, V, W), key + "inner_P_V_W")
    if key + "pt_P_to_Q_V" in GOLDEN:
        assert_golden(metric.transport(P, Q, V), key + "pt_P_to_Q_V")
    if key + "wmean" in GOLDEN:
        assert_golden(
            metric.mean(GOLDEN["reference/P"], GOLDEN["reference/weights"]), key + "wmean"
        )


def test_independent_means():
    X, weights = GOLDEN["reference/P"], GOLDEN["reference/weights"]
    metric = AffineInvariant()
    assert_golden(metric.mean(X), "reference/aim_karcher_mean_uniform")
    assert_golden(metric.mean(X, weights), "reference/aim_karcher_mean_weighted")
    assert_golden(BuresWasserstein().mean(X), "reference/bw_mean_uniform")


def test_independent_weighted_bures_wasserstein():
    metric = GeneralizedBuresWasserstein(GOLDEN["reference/gbwm_M"])
    P, Q, V, W = short("reference", len(GOLDEN["reference/gbwm_dist2"]))
    assert_golden(metric.dist(P, Q) ** 2, "reference/gbwm_dist2")
    assert_golden(metric.log(P, Q), "reference/gbwm_log_P_Q")
    assert_golden(metric.inner(P, V, W), "reference/gbwm_inner_P_V_W")


@pytest.mark.parametrize("theta", ["1", "0.5"])
@pytest.mark.parametrize(
    ("name", "kind"), [("dpm", PowerCholesky), ("dbwm", BuresWassersteinCholesky)]
)
def test_independent_gyro_operations(name, kind, theta):
    metric, key = kind(float(theta), domain="nan"), f"reference/gyro_{name}{theta}_"
    length = len(GOLDEN[key + "add"])
    L, K = GOLDEN["reference/gyro_P"][:length], GOLDEN["reference/gyro_Q"][:length]
    cases = {"add": metric.gyro_add(L, K)}
    cases |= {f"scal{t}": metric.gyro_scale(float(t), L) for t in ("-1", "0.5", "2")}
    for case, got in cases.items():
        defined = GOLDEN[f"{key}{case}_ok"].bool()
        assert torch.equal(~got.isnan().any(-1).any(-1), defined), case
        assert_golden(got, key + case, where=defined)
