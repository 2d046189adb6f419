"""Linear directions against scikit-learn, Jacobian directions against full decompositions."""

import pytest
import torch
from chemflow.directions import boundary_direction, jacobian_directions, ridge_direction
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC


def codes_and_values(n: int = 400, d: int = 6, scale: float = 1.0):
    torch.manual_seed(0)
    z = scale * torch.randn(n, d, dtype=torch.float64) + 2 * scale
    w = torch.randn(d, dtype=torch.float64)
    return z, (z / scale) @ w + torch.randn(n, dtype=torch.float64)


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_boundary_is_a_support_vector_machine_s(penalty, scale):
    z, y = codes_and_values(scale=scale)
    order = y.argsort()
    ends = torch.cat((order[:40], order[-40:]))
    mean, std = y.mean(), y.std()
    ends = ends[(y[ends] - mean).abs() >= std]
    labels = (y[ends] > mean).long()
    # The intercept's far larger unit leaves it all but free of the penalty.
    machine = LinearSVC(C=penalty, intercept_scaling=1e3, tol=1e-10, max_iter=10**6, dual=False)
    machine.fit((z[ends] - z[ends].mean(0)) / z[ends].std(), labels)
    w = torch.from_numpy(machine.coef_[0])
    found = boundary_direction(z, y, share=0.1, penalty=penalty)
    assert found.norm().item() == pytest.approx(1)
    assert found @ w / w.norm() == pytest.approx(1, abs=2e-5)


def test_ridge_is_scikit_learn_s():
    z, y = codes_and_values()
    y[7] = torch.nan
    finite = y.isfinite()
    centred = z[finite] - z[finite].mean(0)
    alpha = 0.5 * centred.square().mean().item() * int(finite.sum())
    w = torch.from_numpy(Ridge(alpha=alpha).fit(z[finite], y[finite]).coef_)
    torch.testing.assert_close(ridge_direction(z, y, 0.5), w / w.norm(), rtol=1e-9, atol=1e-9)
    z32 = ridge_direction(z.float(), y, 0.5)
    assert z32.dtype == torch.float32


def test_values_without_two_ends_are_refused():
    z, _ = codes_and_values()
    with pytest.raises(ValueError, match="differ"):
        boundary_direction(z, torch.zeros(400))
    with pytest.raises(ValueError, match="standard deviation"):
        boundary_direction(z, torch.cat((torch.zeros(398), torch.ones(2))), share=0.02)
    with pytest.raises(ValueError, match="share"):
        boundary_direction(z, torch.zeros(400), share=0.7)


def decode(z: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(5)
    a = torch.randn(z.shape[1], 30, dtype=z.dtype)
    return (z @ a).tanh().unflatten(-1, (6, 5))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_jacobian_directions_are_those_of_the_stacked_jacobians(k):
    torch.manual_seed(1)
    z = torch.randn(9, 7, dtype=torch.float64)
    J = torch.cat([torch.func.jacrev(lambda x: decode(x[None]).flatten())(row) for row in z])
    _, s, vh = torch.linalg.svd(J)
    v, response = jacobian_directions(decode, z, k)
    torch.testing.assert_close(response, s[:k] / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close((v @ vh[:k].mT).abs(), torch.eye(k).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(v @ v.mT, torch.eye(k).double(), rtol=0, atol=1e-6)


def test_jacobian_directions_need_codes_and_a_number():
    z = torch.randn(3, 4)
    with pytest.raises(ValueError, match="k must be in 1 … 4, got 5"):
        jacobian_directions(decode, z, 5)
    with pytest.raises(ValueError, match="at least one row"):
        jacobian_directions(decode, z[:0], 1)
