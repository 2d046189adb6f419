"""Steps against exact flows, and the way back."""

import pytest
import torch
from linalg_kernels import ConvergenceWarning
from potential_flows import (
    MLPPotential,
    euler_path,
    euler_step,
    euler_step_logabsdet,
    gradient,
    inverse_euler_step,
    langevin_step,
)


def points(*batch, n=3):
    return torch.randn(*batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def bumpy(n=3):
    torch.manual_seed(1)
    u = MLPPotential(n, 6, time_dim=4).double()
    with torch.no_grad():
        for layer in (u.space, u.head):
            layer.weight.mul_(2)
    return u


def half_square(z, t):
    return z.square().sum(-1) / 2 + 0 * t


def close(got, want, rtol=1e-11, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def test_one_step_and_substeps():
    u, z = bumpy(), points(4)
    close(euler_step(u, z, 1.0), z + gradient(u, z, 1.0))
    middle = z + 0.25 * gradient(u, z, 1.0)
    close(euler_step(u, z, 1.0, 0.5, 2), middle + 0.25 * gradient(u, middle, 1.0))
    close(euler_step(half_square, z, 0.0, 1.0, 10), z * 1.1**10)


@pytest.mark.parametrize("substeps", [1, 3])
def test_logabsdet_is_that_of_the_composed_jacobian(substeps):
    u, z = bumpy(), points(4)
    moved, logabsdet = euler_step_logabsdet(u, z, 1.0, 0.8, substeps)
    close(moved, euler_step(u, z, 1.0, 0.8, substeps))
    for i in range(4):
        J = torch.autograd.functional.jacobian(lambda x: euler_step(u, x, 1.0, 0.8, substeps), z[i])
        close(logabsdet[i], torch.linalg.slogdet(J)[1])


def test_paths_converge_to_the_flow():
    z, times = points(4), torch.tensor([0.0, 0.3, 1.0, 0.5], dtype=torch.float64)
    u = lambda z, t: (1 + t) * z.square().sum(-1) / 2  # noqa: E731
    exact = torch.exp(times + times**2 / 2)[:, None, None] * z
    path = euler_path(u, z, times, 50)
    assert path.shape == (4, 4, 3)
    assert torch.equal(path[0], z)
    errors = [(euler_path(u, z, times, m) - exact)[2].abs().max() for m in (50, 100)]
    assert errors[0] < 0.05 * exact[2].abs().max()
    assert abs(errors[0] / errors[1] - 2) < 0.1
    one = euler_path(u, z, times[:2])
    close(one[1], z + 0.3 * z)


def test_langevin_reaches_its_stationary_variance():
    z = torch.zeros(20000, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    u = lambda z, t: -half_square(z, t)  # noqa: E731
    for _ in range(40):
        z = langevin_step(u, z, 0.0, 0.3, 0.5, generator=generator)
    # z <- (1-α) z + β √(2α) ξ has variance β² / (1 - α/2); its estimate a relative 1/√20000.
    assert abs(z.var() / (0.25 / 0.85) - 1) < 0.03
    assert abs(z.mean()) < 0.02


def test_langevin_without_noise_is_a_step():
    u, z = bumpy(), points(4)
    close(langevin_step(u, z, 1.0, 0.1, 0.0), euler_step(u, z, 1.0, 0.1))


@pytest.mark.parametrize("substeps", [1, 4])
def test_inverse(substeps):
    u, z = bumpy(), points(2, 4)
    report = inverse_euler_step(u, euler_step(u, z, 1.0, 0.9, substeps), 1.0, 0.9, substeps)
    close(report.z, z, rtol=1e-12, atol=1e-13)
    assert report.converged.shape == (2, 4)
    assert report.converged.all()
    assert (report.contraction < 1).all()
    assert (report.residual < 1e-14).all()
    assert (report.iterations > 1).all()


def test_report_of_a_linear_map():
    z = points(4)
    u = lambda z, t: 0.4 * half_square(z, t)  # noqa: E731
    report = inverse_euler_step(u, 1.4 * z, 0.0, tol=1e-10)
    close(report.z, z, rtol=1e-8)
    close(report.contraction, torch.full((4,), 0.4, dtype=z.dtype), rtol=1e-4)
    # The first change is 0.4 |y|, of scale 2.4 |y|.
    assert (report.iterations - 24).abs().max() <= 2


def test_a_row_does_not_depend_on_its_neighbours():
    u, y = bumpy(), points(4)
    together = inverse_euler_step(u, y, 1.0)
    alone = inverse_euler_step(u, y[2], 1.0)
    close(together.z[2], alone.z, rtol=1e-14, atol=1e-15)
    assert together.iterations[2] == alone.iterations


def test_what_does_not_converge_is_named_and_the_rest_is_right():
    t = torch.tensor([0.5, 2.0], dtype=torch.float64)
    y = points(2)
    u = lambda z, t: t * half_square(z, t)  # noqa: E731
    with pytest.warns(ConvergenceWarning, match=r"y\[1\] has not converged in 60 iterations"):
        report = inverse_euler_step(u, y, t, max_iter=60)
    assert report.converged.tolist() == [True, False]
    close(report.z[0], y[0] / 1.5)
    close(report.contraction[1], torch.tensor(2.0, dtype=t.dtype), rtol=1e-6)
    # With four substeps each contracts by one half.
    rescued = inverse_euler_step(u, y, t, substeps=4)
    close(rescued.z[1], y[1] / 1.5**4)


def test_inverse_of_what_does_not_move():
    y = torch.zeros(2, 3, dtype=torch.float64)
    report = inverse_euler_step(half_square, y, 0.0)
    assert report.converged.all()
    assert not report.z.any()
    assert not report.residual.any()
    assert inverse_euler_step(half_square, y[:0], 0.0).z.shape == (0, 3)


@pytest.mark.parametrize("substeps", [1, 2])
def test_gradients_of_the_inverse(substeps):
    y = points(2).requires_grad_()
    u = bumpy()
    solve = lambda y: inverse_euler_step(u, y, 1.0, 0.7, substeps).z  # noqa: E731
    assert torch.autograd.gradcheck(solve, (y,))
    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    z = inverse_euler_step(lambda z, t: scale * half_square(z, t), y, 0.0).z
    # z = y / (1 + scale)
    slope = torch.autograd.grad(z.sum(), scale)[0]
    close(slope, -y.detach().sum() / 1.4**2)


@pytest.mark.compile
def test_compile():
    torch._dynamo.reset()
    u, z = bumpy(), points(4)
    step = lambda z: euler_step(u, z, 1.0, 0.5, 2)  # noqa: E731
    with torch.no_grad():
        close(torch.compile(step, backend="aot_eager", fullgraph=True)(z), step(z))


@pytest.mark.bad_input
def test_bad_input():
    u, z = bumpy(), points(4)
    with pytest.raises(ValueError, match="substeps must be at least 1, got 0"):
        euler_step(u, z, 0.0, substeps=0)
    with pytest.raises(ValueError, match="max_iter must be at least 1, got 0"):
        inverse_euler_step(u, z, 0.0, max_iter=0)
    with pytest.raises(ValueError, match=r"times must be \(T,\) with T >= 1, got \(0,\)"):
        euler_path(u, z, z.new_zeros(0))
    with pytest.raises(ValueError, match="step must be positive, got 0"):
        langevin_step(u, z, 0.0, 0.0)
    with pytest.raises(ValueError, match="noise must not be negative, got -1"):
        langevin_step(u, z, 0.0, 0.1, -1.0)
    with pytest.raises(TypeError, match="y must be real"):
        inverse_euler_step(u, torch.complex(z, z), 0.0)
