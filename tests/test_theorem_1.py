"""Theorem 1 of RiemGCP: rmlr's classifier on the manifold against gcp-riemann's in a chart.

Under the power-Euclidean metric the Riemannian classifier with P_k stepped by Riemannian SGD
and A_k by SGD takes the course of the Euclidean classifier <φ(S) - p_k, A_k>, φ(S) = S^θ/θ,
under plain SGD. A linear layer with weight and bias has the same functions and takes another.
"""

import pytest
import torch
from gcp_riemann import PEMMLR, ScalePowEMLR, matrix_power, vectorise
from linalg_kernels.testing import random_spd
from rmlr import scores
from spd_metrics import PowerEuclidean
from torch import nn

STEPS, RATE = 8, 0.02


@pytest.fixture(params=[0.5, 1.0])
def theta(request):
    return request.param


def samples():
    draws = torch.Generator().manual_seed(0)
    return random_spd(12, 4, cond=20.0, generator=draws), torch.arange(12) % 3


def start():
    draws = torch.Generator().manual_seed(7)
    points = random_spd(3, 4, cond=4.0, generator=draws)
    normals = torch.randn(3, 4, 4, dtype=torch.float64, generator=draws)
    return points, 0.2 * (normals + normals.mT)


def riemannian_course(theta):
    """Logits before each step of SGD on A and of Riemannian SGD on P."""
    S, y = samples()
    metric = PowerEuclidean(theta)
    P, A = start()
    found = []
    for _ in range(STEPS):
        P, A = P.detach().requires_grad_(), A.detach().requires_grad_()
        logits = scores(metric, S, P, A)
        found.append(logits.detach())
        gP, gA = torch.autograd.grad(nn.functional.cross_entropy(logits, y), (P, A))
        with torch.no_grad():
            # An error, not a clamp, if the step left the cone.
            P = metric.exp(P, -RATE * metric.gradient(P, gP))
            A = A - RATE * (gA + gA.mT) / 2
    return torch.stack(found)


def euclidean_course(head):
    S, y = samples()
    optimiser = torch.optim.SGD(head.parameters(), RATE)
    found = []
    for _ in range(STEPS):
        logits = head(S)
        found.append(logits.detach())
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, y).backward()
        optimiser.step()
    return torch.stack(found)


def test_the_chart_with_points_and_normals_takes_the_same_course(theta):
    points, normals = start()
    head = PEMMLR(4, 3, theta).double()
    with torch.no_grad():
        head.point.copy_(vectorise(matrix_power(points, theta) / theta, "isometric"))
        head.normal.copy_(vectorise(normals, "isometric"))
    found, want = euclidean_course(head), riemannian_course(theta)
    assert float((want[-1] - want[0]).norm() / want[0].norm()) > 0.02
    assert torch.allclose(found, want, rtol=1e-10, atol=1e-12)


def test_a_linear_layer_takes_another_course(theta):
    points, normals = start()
    head = ScalePowEMLR(4, 3, theta, vec="isometric").double()
    with torch.no_grad():
        head.fc.weight.copy_(vectorise(normals, "isometric"))
        p = matrix_power(points, theta) / theta
        head.fc.bias.copy_(-(p * normals).sum((-2, -1)))
    found, want = euclidean_course(head), riemannian_course(theta)
    assert torch.allclose(found[0], want[0], rtol=1e-12)
    moved = float((want[-1] - want[0]).norm())
    assert float((found[-1] - want[-1]).norm()) > 0.05 * moved
