"""Values and closed forms of the package's own potential."""

from pathlib import Path

import numpy as np
import pytest
import torch
from potential_flows import (
    MLPPotential,
    gradient,
    hessian,
    laplacian,
    sinusoidal_embedding,
    spacetime_gradient,
    step_logabsdet,
    time_derivative,
)

# Made by latent-flow as released (values), and by dense autograd on it (derivatives): one
# potential and one force of size 8, four points, times 1 and 3.
GOLDEN = {
    key: torch.from_numpy(array)
    for key, array in np.load(Path(__file__).with_name("golden.npz")).items()
}
LAYERS = {
    "space": "layer_x",
    "time.0": "layer_time",
    "time.2": "layer_time2",
    "fusion": "layer_fusion",
    "head": "layer_out",
}


def released(kind):
    net = MLPPotential(8, 8, time_dim=8, output=torch.tanh).double()
    net.load_state_dict(
        {
            f"{ours}.{part}": GOLDEN[f"{kind}.{theirs}.{part}"]
            for ours, theirs in LAYERS.items()
            for part in ("weight", "bias")
        }
    )
    return net


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [8, 32])
def test_embedding_of_the_released_code(dim):
    close(sinusoidal_embedding(GOLDEN["embedding/t"], dim), GOLDEN[f"embedding/{dim}"])


def test_embedding_frequencies():
    t = torch.tensor([0.0, 0.3], dtype=torch.float64)
    first = sinusoidal_embedding(t, 6, max_period=100.0)
    phase = t[:, None] * torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    close(first, torch.cat((phase.sin(), phase.cos()), -1))
    assert first.shape == (2, 6)
    assert sinusoidal_embedding(t[0], 6).shape == (6,)


def test_embedding_keeps_the_precision_of_the_time():
    net = MLPPotential(3).double()
    t = torch.tensor(123.4, dtype=torch.float64)
    assert not [name for name, _ in net.named_buffers()]
    exact = torch.sin(t * 10 ** (-4 * 5 / 31))
    close(sinusoidal_embedding(t, 64)[5], exact)


@pytest.mark.parametrize("step", [1, 3])
def test_released_weights(step):
    u, force, z, t = released("potential"), released("force"), GOLDEN["z"], float(step)
    close(u(z, t), GOLDEN[f"t{step}/u"])
    close(force(z, t), GOLDEN[f"t{step}/f"])
    close(gradient(u, z, t), GOLDEN[f"t{step}/uz"])
    close(spacetime_gradient(u, z, t)[1], GOLDEN[f"t{step}/ut"])
    close(time_derivative(u, z, t), GOLDEN[f"t{step}/ut"])
    close(hessian(u, z, t), GOLDEN[f"t{step}/hessian"])
    close(laplacian(u, z, t), GOLDEN[f"t{step}/laplacian"])
    close(step_logabsdet(u, z, t), GOLDEN[f"t{step}/logabsdet_I_plus_H"])


def test_time_scale_is_a_change_of_units():
    torch.manual_seed(0)
    u = MLPPotential(3, 8).double()
    fast = MLPPotential(3, 8, time_scale=10.0).double()
    fast.load_state_dict(u.state_dict())
    z = torch.randn(4, 3, dtype=torch.float64)
    close(fast(z, 0.2), u(z, 2.0))
    close(time_derivative(fast, z, 0.2), 10 * time_derivative(u, z, 2.0))
    close(spacetime_gradient(fast, z, 0.2)[1], 10 * spacetime_gradient(u, z, 2.0)[1])


def test_one_time_for_all_rows_or_one_each():
    torch.manual_seed(0)
    u = MLPPotential(3, 8)
    z = torch.randn(2, 4, 3)
    t = torch.rand(2, 1)
    assert u(z, t).shape == (2, 4)
    torch.testing.assert_close(u(z, t)[1, 2], u(z[1, 2], t[1, 0].item()))
    torch.testing.assert_close(u(z, 0.5), u(z, torch.full((2, 4), 0.5)))
    assert u(torch.empty(0, 3), 1.0).shape == (0,)


def test_training_does_not_know_where_the_gradient_came_from():
    torch.manual_seed(0)
    u = MLPPotential(3, 8, output=torch.tanh).double()
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def by_autograd():
        value = u(z, 1.0).sum()
        slope = torch.autograd.grad(value, z, create_graph=True)[0]
        rows = [
            torch.autograd.grad(slope[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(3)
        ]
        return slope.square().sum() + torch.stack(rows).sum(0).square().sum()

    def by_closed_forms():
        return gradient(u, z, 1.0).square().sum() + laplacian(u, z, 1.0).square().sum()

    weights = [z, *(p for name, p in u.named_parameters() if name != "head.bias")]
    for ours, theirs in zip(
        torch.autograd.grad(by_closed_forms(), weights),
        torch.autograd.grad(by_autograd(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("wrong", [torch.relu, torch.nn.LeakyReLU(), lambda x: 2 * x])
def test_activations_without_curvature_are_refused(wrong):
    with pytest.raises(ValueError, match="activation must be smooth"):
        MLPPotential(3, activation=wrong)


def test_activations_that_mix_numbers_are_refused():
    with pytest.raises(ValueError, match="output must act on each number by itself"):
        MLPPotential(3, output=lambda x: x.softmax(-1))


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        MLPPotential(0)
    with pytest.raises(ValueError, match="time_dim must be even and at least 4, got 7"):
        MLPPotential(3, time_dim=7)
    with pytest.raises(ValueError, match="dim must be even and at least 4, got 2"):
        sinusoidal_embedding(torch.zeros(1), 2)
    with pytest.raises(ValueError, match="max_period must be greater than 1"):
        sinusoidal_embedding(torch.zeros(1), 4, max_period=1.0)
    u = MLPPotential(3)
    with pytest.raises(ValueError, match=r"z must be \(..., n\) with n=3, got \(4, 2\)"):
        u(torch.zeros(4, 2), 0.0)
    with pytest.raises(TypeError, match="z and the weights must have one dtype"):
        u(torch.zeros(4, 3, dtype=torch.float64), 0.0)
