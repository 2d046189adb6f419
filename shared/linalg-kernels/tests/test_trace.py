import math

import pytest
import torch
from linalg_kernels.trace import hutchinson_trace


def symmetric(*shape, seed=0):
    A = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (A + A.mT) / 2


def test_a_diagonal_map_is_exact_with_one_sample():
    d = torch.arange(1.0, 6.0)
    trace, error = hutchinson_trace(lambda z: d * z, d)
    assert trace.item() == 15
    assert math.isnan(error.item())
    assert hutchinson_trace(lambda z: d * z, d, 4).standard_error.item() == 0


def test_estimates_are_unbiased_with_the_stated_variance():
    A = symmetric(8, 8)
    runs = 4000
    like = torch.zeros(runs, 8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    trace, error = hutchinson_trace(lambda z: z @ A, like, 4, generator=generator)
    off = 2 * (A.square().sum() - A.diagonal().square().sum())
    deviation = math.sqrt(off / 4)
    assert abs(trace.mean() - torch.trace(A)) < 4 * deviation / math.sqrt(runs)
    assert abs(trace.std() / deviation - 1) < 0.06
    assert abs(error.square().mean().sqrt() / deviation - 1) < 0.06


def test_each_batch_element_has_its_own_trace():
    A = torch.diag_embed(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    trace, _ = hutchinson_trace(lambda z: (A @ z[..., None])[..., 0], torch.zeros(3, 2))
    assert trace.tolist() == [3, 7, 11]


def test_laplacian_of_a_network_and_its_gradient():
    torch.manual_seed(0)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(5, dtype=torch.float64)

    def potential(z):
        return (scale * z).tanh().sum()

    def product(v):
        return torch.func.jvp(torch.func.grad(potential), (z,), (v,))[1]

    estimate = hutchinson_trace(product, z, 2).value
    exact = torch.trace(torch.func.hessian(potential)(z))
    torch.testing.assert_close(estimate, exact)
    ours, theirs = (torch.autograd.grad(x, scale)[0] for x in (estimate, exact))
    torch.testing.assert_close(ours, theirs)


def test_complex_maps():
    d = torch.tensor([1 + 2j, 3 - 1j])
    trace, error = hutchinson_trace(lambda z: d * z, d, 3)
    assert trace.item() == 4 + 1j
    assert error.item() == 0
    assert not error.is_complex()


def test_the_generator_fixes_the_signs():
    A = symmetric(6, 6)
    like = torch.zeros(6, dtype=torch.float64)
    first, second = (
        hutchinson_trace(lambda z: A @ z, like, 3, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(first.value, second.value)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    like = torch.zeros(3)
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        hutchinson_trace(lambda z: z, like, 0)
    with pytest.raises(
        ValueError, match=r"matvec must return \(3,\), the shape of like, got \(2,\)"
    ):
        hutchinson_trace(lambda z: z[:2], like)
    with pytest.raises(ValueError, match="single number"):
        hutchinson_trace(lambda z: z, torch.tensor(1.0))
    with pytest.raises(TypeError, match="like must be"):
        hutchinson_trace(lambda z: z, torch.zeros(3, dtype=torch.long))


def test_empty_shapes():
    assert hutchinson_trace(lambda z: z, torch.zeros(0, 3), 2).value.shape == (0,)
    assert hutchinson_trace(lambda z: z, torch.zeros(2, 0), 2).value.tolist() == [0, 0]
