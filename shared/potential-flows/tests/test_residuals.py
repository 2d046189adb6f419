"""Exact solutions have no residual, and losses count no row twice."""

from functools import partial

import pytest
import torch
from potential_flows import (
    MLPPotential,
    fokker_planck_residual,
    gradient,
    hamilton_jacobi_residual,
    heat_residual,
    hutchinson_laplacian,
    initial_rate_residual,
    initial_speed,
    initial_value_residual,
    mean_square,
    time_derivative,
    wave_residual,
)

K = torch.tensor([0.5, -1.0, 0.7], dtype=torch.float64)
CENTRE = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)


def points(rows=6):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return z, 2 * torch.rand(rows, dtype=torch.float64, generator=generator)


def square(z):
    return z.square().sum(-1)


def relaxing(z, t, D=0.6, k=1.3, start=4.0):
    """log density of dz = -k (z - CENTRE) dt + √(2D) dW from a Gaussian about 0."""
    mean = CENTRE * (1 - torch.exp(-k * t))[..., None]
    variance = D / k + (start - D / k) * torch.exp(-2 * k * t)
    return -square(z - mean) / (2 * variance) - 1.5 * torch.log(2 * torch.pi * variance)


def well(z, t, k=1.3):
    return -k * square(z - CENTRE) / 2 + 0 * t


SOLUTIONS = {
    "heat, polynomial": (
        partial(heat_residual, diffusivity=0.7),
        lambda z, t: square(z) + 2 * 0.7 * 3 * t,
    ),
    "heat, decaying wave": (
        partial(heat_residual, diffusivity=0.7),
        lambda z, t: torch.exp(-0.7 * square(K) * t) * torch.sin(z @ K),
    ),
    "heat, Gaussian": (
        partial(heat_residual, diffusivity=0.7),
        lambda z, t: torch.exp(-square(z) / (4 * 0.7 * (t + 1))) / (t + 1) ** 1.5,
    ),
    "wave, linear": (partial(wave_residual, speed=1.5), lambda z, t: z @ K + 0.4 * t + 2),
    "wave, travelling": (
        partial(wave_residual, speed=1.5),
        lambda z, t: torch.sin(z @ K - 1.5 * square(K).sqrt() * t),
    ),
    "Hamilton-Jacobi, plane": (
        hamilton_jacobi_residual,
        lambda z, t: z @ K - square(K) * t / 2,
    ),
    "Hamilton-Jacobi, fan": (
        hamilton_jacobi_residual,
        lambda z, t: square(z) / (2 * (t + 1)),
    ),
    "Hamilton-Jacobi, constant force": (
        partial(hamilton_jacobi_residual, force=lambda _z, t: -0.49 + 0 * t),
        lambda z, t: -0.49 * t + 0 * z[..., 0],
    ),
    "Hamilton-Jacobi, oscillator": (
        partial(hamilton_jacobi_residual, force=lambda z, _t: -square(z) / 2),
        lambda z, t: -square(z) * torch.tan(t) / 2,
    ),
    "Fokker-Planck, relaxing": (
        partial(fokker_planck_residual, drift=well, diffusivity=0.6),
        relaxing,
    ),
    "user's transport equation": (
        lambda u, z, t: time_derivative(u, z, t) + gradient(u, z, t) @ K,
        lambda z, t: torch.sin(z - K * t[..., None]).sum(-1),
    ),
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exact_solutions(name):
    residual, u = SOLUTIONS[name]
    z, t = points()
    t = t / 2
    left = residual(u, z, t)
    assert left.shape == (6,)
    assert left.abs().max() < 1e-12
    # What is no solution has a residual, so the one above is not zero for nothing.
    wrong = residual(lambda z, t: u(z, t) + 0.1 * t**2 * square(z), z, t)
    assert wrong.abs().max() > 1e-2


def test_scales_of_the_residual():
    z, t = points()
    u = lambda z, t: square(z) * t  # noqa: E731
    torch.testing.assert_close(heat_residual(u, z, t), square(z) - 6 * t)
    torch.testing.assert_close(wave_residual(u, z, t, speed=2.0), -24 * t)
    torch.testing.assert_close(hamilton_jacobi_residual(u, z, t), square(z) + 2 * t**2 * square(z))


@pytest.mark.parametrize(
    "residual",
    [
        heat_residual,
        wave_residual,
        hamilton_jacobi_residual,
        partial(fokker_planck_residual, drift=well),
        lambda u, z, _t: initial_speed(u, z),
    ],
)
def test_losses_do_not_depend_on_how_often_a_row_is_there(residual):
    torch.manual_seed(0)
    u = MLPPotential(3, 6, time_dim=4).double()
    z, t = points()

    def loss_and_slopes(z, t):
        loss = mean_square(residual(u, z, t))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, _weights(u))]), loss

    slopes, loss = loss_and_slopes(z, t)
    assert loss > 0
    assert slopes.abs().max() > 0
    for repeats in (2, 8):
        more_slopes, more = loss_and_slopes(z.repeat(repeats, 1), t.repeat(repeats))
        torch.testing.assert_close(more, loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(more_slopes, slopes, rtol=1e-10, atol=1e-13)
    order = torch.randperm(6)
    torch.testing.assert_close(loss_and_slopes(z[order], t[order])[1], loss)


def _weights(u):
    return [p for name, p in u.named_parameters() if name != "head.bias"]


def test_coefficients_are_trained():
    z, t = points()
    speed = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = mean_square(wave_residual(lambda z, t: square(z) + t**2, z, t, speed=speed))
    # r = 2 - 6 c²
    torch.testing.assert_close(
        torch.autograd.grad(loss, speed)[0], 2 * (2 - 6 * speed**2) * -12 * speed
    )


def test_an_estimated_laplacian():
    z, t = points()
    estimate = lambda u, z, t: hutchinson_laplacian(u, z, t).value  # noqa: E731
    u = lambda z, t: square(z) + 6 * t  # noqa: E731
    assert heat_residual(u, z, t, laplacian=estimate).abs().max() < 1e-12


def test_initial_conditions():
    z, _ = points()
    u = lambda z, t: square(z) * torch.cos(t) + 3 * t  # noqa: E731
    assert initial_value_residual(u, z, square(z)).abs().max() == 0
    assert initial_rate_residual(u, z, torch.full((6,), 3.0, dtype=z.dtype)).abs().max() == 0
    torch.testing.assert_close(initial_value_residual(u, z, 0 * square(z)), square(z))
    torch.testing.assert_close(
        initial_rate_residual(u, z, 0 * square(z), 0.5) - 3, -square(z) * 0.479425538604203
    )
    torch.testing.assert_close(initial_speed(u, z), 2 * square(z).sqrt())


def test_rest_has_a_gradient():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    loss = mean_square(initial_speed(lambda z, _t: scale * square(z) / 2, z))
    assert loss.item() == 50
    assert torch.autograd.grad(loss, scale)[0].item() == 50


def test_weights():
    r = torch.tensor([1.0, 2.0, 5.0])
    assert mean_square(r).item() == 10
    assert mean_square(r, torch.tensor([1.0, 1.0, 0.0])).item() == 2.5
    assert mean_square(r, torch.tensor([3.0, 0.0, 1.0])).item() == 7


@pytest.mark.compile
def test_compile():
    torch._dynamo.reset()
    torch.manual_seed(0)
    u = MLPPotential(3, 6).double()
    z, t = points()
    loss = lambda z: mean_square(hamilton_jacobi_residual(u, z, t))  # noqa: E731
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(z), loss(z))


@pytest.mark.bad_input
def test_bad_input():
    z, t = points()
    u = lambda z, t: square(z) + t  # noqa: E731
    with pytest.raises(
        ValueError, match=r"force must return one value a row, \(6,\), got \(6, 3\)"
    ):
        hamilton_jacobi_residual(u, z, t, force=lambda z, _t: z)
    with pytest.raises(ValueError, match=r"values must be \(6,\), got \(6, 1\)"):
        initial_value_residual(u, z, square(z)[:, None])
    with pytest.raises(ValueError, match=r"rates must be \(6,\), got \(\)"):
        initial_rate_residual(u, z, t[0])
    with pytest.raises(ValueError, match=r"residual must hold at least one row, got \(0,\)"):
        mean_square(torch.zeros(0))
    with pytest.raises(ValueError, match="weights must be >= 0 and not all 0"):
        mean_square(torch.ones(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="weights must be >= 0 and not all 0"):
        mean_square(torch.ones(2), torch.zeros(2))
    with pytest.raises(ValueError, match="batch shapes must broadcast"):
        mean_square(torch.ones(2), torch.ones(3))
