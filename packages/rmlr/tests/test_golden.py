"""Arrays that the official code (GitZH-Chen/RMLR @ef16a4e) computed, where it is right."""

from pathlib import Path

import geoopt
import numpy as np
import pytest
import torch
from linalg_kernels import so_log
from rmlr import LieMLR, RiemannianMLR, general_scores, lie_scores, scores
from spd_metrics import (
    AffineInvariant,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    PowerEuclidean,
)

with np.load(Path(__file__).with_name("golden.npz")) as file:
    GOLDEN = {name: torch.from_numpy(file[name]) for name in file.files}

METRICS = {
    "LEM_alpha1_beta1": LogEuclidean(1.0, 1.0),
    "AIM_power0.5_alpha1_beta0.05": AffineInvariant(0.5, 1.0, 0.05),
    "PEM_power0.5_alpha1_beta0.5": PowerEuclidean(0.5, 1.0, 0.5),
    "LCM_power0.5": LogCholesky(0.5),
    "BWM_power0.25": BuresWasserstein(0.25),
    # The official code divides a difference of powers by 0.001.
    "PEM_power0.001_alpha1_beta0": PowerEuclidean(0.001),
}


def close(got, want, rtol):
    assert float((got.detach() - want).abs().max() / want.abs().max()) < rtol


@pytest.mark.parametrize("fn", [scores, general_scores], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("name", METRICS)
def test_scores_and_gradients(name, fn):
    X, P, A = (GOLDEN[f"spd/{k}"].clone().requires_grad_() for k in ("X", "P", "A_sym"))
    got = fn(METRICS[name], X[:, 0], P, A)
    gX, gP, gA = torch.autograd.grad((got * GOLDEN["spd/cotangent"]).sum(), (X, P, A))
    small = "0.001" in name
    close(got, GOLDEN[f"{name}/logits"], 1e-7 if small else 1e-12)
    rtol = 1e-7 if small else 1e-9
    close(gX, GOLDEN[f"{name}/gX"], rtol)
    close((gP + gP.mT) / 2, GOLDEN[f"{name}/gP"], rtol)
    # Of its square parameter the official code reads the lower triangle.
    close(gA.tril() + gA.mT.tril(-1), GOLDEN[f"{name}/gA"], rtol)


@pytest.mark.parametrize("optimiser", ["ramsgrad", "rsgd"])
@pytest.mark.parametrize("name", ["AIM_power0.5_alpha1_beta0.05", "BWM_power0.25"])
def test_three_steps_of_geoopt(name, optimiser):
    manifold = geoopt.SymmetricPositiveDefinite()
    mlr = RiemannianMLR(2, 3, METRICS[name], manifold=manifold, dtype=torch.float64)
    mlr.P, mlr.A = GOLDEN["spd/P"], GOLDEN["spd/A_sym"]
    if optimiser == "rsgd":
        steps = geoopt.optim.RiemannianSGD(mlr.parameters(), lr=1e-2)
    else:
        steps = geoopt.optim.RiemannianAdam(mlr.parameters(), lr=1e-2, amsgrad=True)
    losses = []
    for _ in range(3):
        steps.zero_grad()
        logits = mlr(GOLDEN["spd/X"][:, 0])
        losses.append(torch.nn.functional.cross_entropy(logits, GOLDEN["spd/labels"]))
        losses[-1].backward()
        steps.step()
    A3 = GOLDEN[f"{name}/{optimiser}_A3"]
    close(torch.stack(losses), GOLDEN[f"{name}/{optimiser}_loss"], 1e-10)
    close(mlr.P, GOLDEN[f"{name}/{optimiser}_P3"], 1e-10)
    close(mlr.A, A3.tril() + A3.tril(-1).mT, 1e-10)


def tangential(R, E):
    """skew(R^T E): the part of a Euclidean gradient that the logarithm on SO(3) determines."""
    return (R.mT @ E - E.mT @ R) / 2


def test_products_of_rotations():
    arrays = {k: GOLDEN[f"so3prod_c3/{k}"] for k in ("R", "P", "A", "cotangent", "logits")}
    R, P, A = (arrays[k].clone().requires_grad_() for k in ("R", "P", "A"))
    got = lie_scores(R, P, A)
    close(got, arrays["logits"], 1e-12)
    gradients = torch.autograd.grad((got * arrays["cotangent"]).sum(), (R, P, A))
    for T, gradient, name in zip((R, P), gradients, ("gR", "gP"), strict=False):
        want = tangential(T.detach(), GOLDEN[f"so3prod_c3/{name}"])
        close(tangential(T, gradient), want, 1e-12)
    gA = GOLDEN["so3prod_c3/gA"]
    close(gradients[2] - gradients[2].mT, gA - gA.mT, 1e-12)
    mlr = LieMLR(3, 3, product=(4,), shared=(5,), dtype=torch.float64)
    mlr.P, mlr.A = arrays["P"], arrays["A"]
    close(mlr(arrays["R"]), arrays["logits"], 1e-12)


@pytest.mark.parametrize("angle", ["a1e-10", "a3.14159264359"])
def test_logarithms_near_zero_and_pi(angle):
    R = GOLDEN[f"mlog/{angle}/R"].clone().requires_grad_()
    logs = so_log(R)
    close(logs, GOLDEN[f"mlog/{angle}/log"], 1e-12)
    (gradient,) = torch.autograd.grad((logs * GOLDEN[f"mlog/{angle}/W"]).sum(), R)
    want = tangential(R.detach(), GOLDEN[f"mlog/{angle}/gR"])
    close(tangential(R.detach(), gradient), want, 1e-12)
