"""Outputs, gradients and statistics of the authors' own code, run unmodified."""

from pathlib import Path

import numpy as np
import pytest
import torch
from liebn import (
    AffineInvariantGroup,
    CholeskyRightInvariantGroup,
    DomainLieBatchNorm,
    LieBatchNorm,
    LogCholeskyGroup,
    LogEuclideanGroup,
    RotationGroup,
    refitting,
)
from torch.testing import assert_close

FOLDER = Path(__file__).parent / "fixtures"
SCALE = 1.3


def read(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def same(found, expected, rtol=1e-9):
    expected = expected.reshape(found.shape)
    assert_close(found, expected, rtol=0, atol=rtol * float(expected.abs().max()))


def symmetric(G):
    return (G + G.mT) / 2


def set_parameters(layer, bias, scale=SCALE):
    with torch.no_grad():
        layer.bias.copy_(bias)
        layer.scale.fill_(scale)


def start_at_identity_matrix(layer, group, names=("running_mean",)):
    """The published code starts running means of flat groups at exp(I), not at the neutral I."""
    if not isinstance(group, AffineInvariantGroup):
        for name in names:
            buffer = getattr(layer, name)
            buffer.copy_(torch.eye(buffer.shape[-1]).expand(buffer.shape))


LAYERS = {
    "AIM_theta1_a1_b0": AffineInvariantGroup(),
    "AIM_theta0.5_a2_b0.3": AffineInvariantGroup(0.5, 2.0, 0.3),
    "LEM_theta1_a1_b0": LogEuclideanGroup(),
    "LEM_theta1_a2_b0.3": LogEuclideanGroup(2.0, 0.3),
    "LCM_theta1_a1_b0": LogCholeskyGroup(),
    "LCM_theta0.5_a1_b0": LogCholeskyGroup(0.5),
}
CHANNELS = {
    "AIM_power1.5": AffineInvariantGroup(1.5),
    "CRIM_power0.5": CholeskyRightInvariantGroup(0.5),
}


def check_layer(given, key, layer, inputs):
    X = given[f"{inputs}_X0"].clone().requires_grad_()
    Y = layer(X)
    (given[f"{inputs}_cotangent"] * Y).sum().backward()
    same(Y.detach(), given[f"{key}_train_out0"])
    same(symmetric(X.grad), symmetric(given[f"{key}_grad_X"]))
    same(symmetric(layer.bias.grad), symmetric(given[f"{key}_grad_bias"]))
    if bool(given[f"{key}_grad_shift"].isfinite().all()):
        same(layer.scale.grad, given[f"{key}_grad_shift"])
    layer(given[f"{inputs}_X1"])
    layer(given[f"{inputs}_X2"])
    mean = layer.group.chart_inverse(layer.running_mean)
    if isinstance(layer.group, CholeskyRightInvariantGroup):
        mean = AffineInvariantGroup(layer.group.theta).chart(mean)
    else:
        mean = layer.running_mean
    same(mean, given[f"{key}_running_mean_after3"])
    same(layer.running_var, given[f"{key}_running_var_after3"])
    layer.eval()
    same(layer(given[f"{inputs}_Xeval"]).detach(), given[f"{key}_eval_out"])
    with torch.no_grad():
        same(layer(given[f"{inputs}_Xeval"]), given[f"{key}_eval_out"])


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    given = read("published_layer")
    layer = LieBatchNorm(LAYERS[name], 2, trivialized=False, dtype=torch.float64)
    set_parameters(layer, given["n2_bias"])
    start_at_identity_matrix(layer, LAYERS[name])
    check_layer(given, f"n2_{name}", layer, "n2")


@pytest.mark.parametrize("name", CHANNELS)
def test_channels(name):
    """The published library gives s no gradient here (it is NaN in the file)."""
    given = read("published_channels")
    layer = LieBatchNorm(CHANNELS[name], (2, 2, 2), trivialized=False, dtype=torch.float64)
    set_parameters(layer, given["c2_n2_bias"])
    check_layer(given, f"c2_n2_{name}", layer, "c2_n2")


class SinglePrecisionMomentum(AffineInvariantGroup):
    """The published code holds the momentum of this group's geodesics in single precision."""

    def geodesic(self, X, Y, t):
        return super().geodesic(X, Y, float(np.float32(t)))


DOMAINS = {"AIM_theta1": SinglePrecisionMomentum(), "LCM_theta0.5": LogCholeskyGroup(0.5)}


@pytest.mark.parametrize("name", DOMAINS)
def test_domains(name):
    given = read("published_domains")
    group, key = DOMAINS[name], f"n2_{name}"
    layer = DomainLieBatchNorm(group, 2, (0, 1, 2), trivialized=False, dtype=torch.float64)
    set_parameters(layer, given["n2_bias"][0])
    start_at_identity_matrix(layer, group, ("running_mean", "running_mean_test"))
    domains = given["n2_domains"]
    for batch, momenta in enumerate([(1.0, 0.1), (0.8, 0.2), (0.6, 0.3)]):
        layer.momentum, layer.test_momentum = momenta
        X = given[f"n2_X{batch}"].clone().requires_grad_()
        Y = layer(X, domains)
        same(Y.detach(), given[f"{key}_train_out{batch}"])
        if batch == 0:
            (given["n2_cotangent"] * Y).sum().backward()
            same(symmetric(X.grad), symmetric(given[f"{key}_grad_X"]))
            same(symmetric(layer.bias.grad), symmetric(given[f"{key}_grad_bias"][0]))
            same(layer.scale.grad, given[f"{key}_grad_std"])
    for domain in range(3):
        for buffer in ("running_mean", "running_var", "running_mean_test", "running_var_test"):
            same(getattr(layer, buffer)[domain], given[f"{key}_dom{domain}_{buffer}_after3"])
    layer.eval()
    with torch.no_grad():
        same(layer(given["n2_Xeval"], domains), given[f"{key}_eval_out_buffer"])
        with refitting(layer):
            same(layer(given["n2_Xeval"], domains), given[f"{key}_eval_out_refit"])
        for domain in range(3):
            same(layer.running_mean_test[domain], given[f"{key}_dom{domain}_refit_mean"])
            same(layer.running_var_test[domain], given[f"{key}_dom{domain}_refit_var"])


def test_rotations():
    given = read("published_rotations")
    layer = LieBatchNorm(RotationGroup(), (3, 3, 3), trivialized=False, dtype=torch.float64)
    set_parameters(layer, given["bias"], 0.7)
    R = given["R0"].clone().requires_grad_()
    Y = layer(R)
    (given["cotangent"] * Y).sum().backward()

    def tangential(G):
        # What a gradient does off the rotations is nobody's.
        T = given["R0"].mT @ G
        return T - T.mT

    same(Y.detach(), given["left1_karcher1_train_out0"])
    same(tangential(R.grad), tangential(given["left1_karcher1_grad_X"]))
    same(layer.bias.grad, given["left1_karcher1_grad_bias"])
    same(layer.scale.grad, given["left1_karcher1_grad_shift"])
    layer(given["R1"])
    layer(given["R2"])
    same(layer.running_mean, given["left1_karcher1_running_mean_after3"])
    same(layer.running_var, given["left1_karcher1_running_var_after3"])
    layer.eval()
    same(layer(given["R3"]).detach(), given["left1_karcher1_eval_out"])
