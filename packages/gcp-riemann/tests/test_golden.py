"""Figures of the official code, two images of a batch of five channels on a 4 x 4 grid.

`golden.npz` holds arrays made by GitZH-Chen/RiemGCP and KingJamesSong/DifferentiableSVD as
released. Gradients for cotangents that are not symmetric are compared by their symmetric part;
whole modules were cast to float32 by the official code.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gcp_riemann import (
    ChoTMLR,
    CovariancePooling,
    PowEMLR,
    PowTMLR,
    ScalePowEMLR,
    log_cholesky,
    newton_schulz_root,
)
from gcp_riemann.network import reduction

GOLDEN = {
    key: torch.from_numpy(array)
    for key, array in np.load(Path(__file__).with_name("golden.npz")).items()
}
OFFICIAL: dict[str, Any] = {"method": "newton_schulz", "iters": 5, "scaling": "trace"}


def golden(key, case="C5_H4"):
    return GOLDEN[f"{case}/{key}"]


def error(got, want):
    return float((got - want).detach().norm() / want.norm())


@pytest.mark.parametrize("case", ["C5_H4", "C2_H4"])
def test_covariance(case):
    Sigma = CovariancePooling()(golden("x", case))
    assert error(Sigma, golden("cov", case)) < 1e-15


@pytest.mark.parametrize("cotangent", ["cot", "cot_sym"])
@pytest.mark.parametrize("iters", [1, 2, 3, 5, 7, 10])
def test_newton_schulz(iters, cotangent):
    P = golden("cov").clone().requires_grad_()
    root = newton_schulz_root(P, iters, scaling="trace")
    assert error(root, golden(f"ns{iters}/out")) < 1e-14
    (gradient,) = torch.autograd.grad(root, P, golden(cotangent))
    official = golden(f"ns{iters}/gcov_{cotangent}")
    assert error(gradient, (official + official.mT) / 2) < 1e-14


def test_log_cholesky():
    P = golden("cov").clone().requires_grad_()
    X = log_cholesky(P, shift=0.0, absolute_shift=1e-6)
    assert error(X, golden("LogI_LCM/out")) < 1e-14
    (gradient,) = torch.autograd.grad(X, P, golden("cot_sym"))
    official = golden("LogI_LCM/gcov")
    assert error(gradient, (official + official.mT) / 2) < 1e-12


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("PowEMLR", PowEMLR(5, 3, **OFFICIAL)),
        ("ScalePowEMLR", ScalePowEMLR(5, 3, **OFFICIAL)),
        ("PowTMLR", PowTMLR(5, 3, **OFFICIAL)),
        ("ChoTMLR", ChoTMLR(5, 3, shift=0.0, absolute_shift=1e-6)),
        ("SVD_Original", PowEMLR(5, 3)),
        ("SVD_Pade", PowEMLR(5, 3)),
        ("SVD_Trunc", PowEMLR(5, 3)),
    ],
)
def test_modules(name, head):
    x = golden("x").float().requires_grad_()
    features = head.features(CovariancePooling()(x))
    assert error(features, golden(f"{name}/feat")[..., 0]) < 1e-6
    (gradient,) = torch.autograd.grad(features, x, golden(f"{name}/cot")[..., 0])
    assert error(gradient, golden(f"{name}/gx")) < 2e-6


def test_reduction():
    reduce = reduction(2, 2)
    convolution, norm = reduce[0], reduce[1]
    convolution.load_state_dict({"weight": golden("dr/conv_weight", "C2_H4")})
    x = golden("x", "C2_H4").float().requires_grad_()
    head = PowEMLR(2, 3, **OFFICIAL)
    features = head.features(CovariancePooling()(reduce(x)))
    assert error(features, golden("dr/feat", "C2_H4")[..., 0]) < 1e-6
    features.backward(golden("dr/cot", "C2_H4")[..., 0])
    for key, got in {
        "gx": x.grad,
        "gconv": convolution.weight.grad,
        "gbn_w": norm.weight.grad,
        "gbn_b": norm.bias.grad,
        "bn_running_mean": norm.running_mean,
        "bn_running_var": norm.running_var,
    }.items():
        want = golden(f"dr/{key}", "C2_H4")
        # What batch normalisation passes back to the convolution is small against its terms.
        assert float((got - want).detach().norm()) < 1e-5 * max(float(want.norm()), 1.0), key
