"""One layer: the randomised decomposition against the full one, roots, and the correction."""

import asvd
import pytest
import torch
from asvd.decompose import _remaining, correction, root
from torch import Tensor


def weight(decay: float, m: int = 300, n: int = 260) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(m, n, generator=generator)).Q
    V = torch.linalg.qr(torch.randn(n, n, generator=generator)).Q
    return (U * torch.arange(1, n + 1) ** -decay) @ V.mT


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("unit", [1.0, 1e-25, 1e25])
def test_randomised_is_near_the_least_error(decay: float, unit: float) -> None:
    W = weight(decay) * unit
    k = 40
    found = asvd.spectrum(W, rank=k, decomposition="randomized")
    U = found.U.double()
    torch.testing.assert_close(U.mT @ U, torch.eye(k, dtype=torch.float64), atol=1e-5, rtol=0)
    least = torch.linalg.svdvals(W.double())[k:].square().sum().sqrt()
    error = (W.double() - U @ (U.mT @ W.double())).norm()
    assert least * (1 - 1e-5) <= error <= 1.02 * least
    # As a difference of float32 sums it is resolved to 1e-6 of the whole.
    resolved = 1e-6 * found.energy
    assert found.loss(k) == pytest.approx(float(error) ** 2, rel=1e-2, abs=resolved)


def test_three_shifted_steps_do_without_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two leave 1.9 per cent, three without the shift 1.2, and four are then taken."""
    steps: list[int] = []

    def remaining(errors: list[float]) -> float:
        steps.append(len(errors))
        return _remaining(errors)

    monkeypatch.setattr("asvd.decompose._remaining", remaining)
    W = torch.randn(500, 500, generator=torch.Generator().manual_seed(0))
    k = 150
    U = asvd.spectrum(W, rank=k, decomposition="randomized").U.double()
    assert steps == [1, 2, 3]
    least = torch.linalg.svdvals(W.double())[k:].square().sum().sqrt()
    assert (W.double() - U @ (U.mT @ W.double())).norm() <= 1.01 * least


def test_randomised_is_the_same_each_time() -> None:
    W = weight(0.3)
    first, second = (asvd.spectrum(W, rank=30, decomposition="randomized").U for _ in range(2))
    assert torch.equal(first, second)


def test_a_wide_block_is_decomposed_whole() -> None:
    W = weight(0.0)
    found = asvd.spectrum(W, rank=150, decomposition="randomized")
    exact = asvd.spectrum(W, rank=150, decomposition="exact")
    assert torch.equal(found.U, exact.U)


@pytest.mark.parametrize("rank", [0, 1, 260])
def test_the_loss_of_a_partial_spectrum(rank: int) -> None:
    W = weight(0.5).double()
    whole = asvd.spectrum(W)
    part = asvd.spectrum(W, rank=rank, decomposition="exact")
    assert part.loss(rank) == pytest.approx(whole.loss(rank), rel=1e-9, abs=1e-20)


def moments(channels: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(60, 12, generator=generator, dtype=torch.float64) * channels
    now = X + 0.3 * torch.randn(60, 12, generator=generator, dtype=torch.float64) * channels
    return X.mT @ now, now.mT @ now


def test_the_correction_solves_its_normal_equations() -> None:
    C, G = moments(torch.logspace(-3, 3, 12, dtype=torch.float64))
    K = correction(C, G, 0.2)
    D = torch.diag(G.diagonal())
    torch.testing.assert_close(K @ (G + 0.2 * D), C + 0.2 * D, rtol=1e-9, atol=1e-9)


def test_the_correction_knows_no_unit_of_a_channel() -> None:
    c = torch.logspace(-4, 4, 12, dtype=torch.float64)
    one = torch.ones(12, dtype=torch.float64)
    plain, scaled = correction(*moments(one), 0.1), correction(*moments(c), 0.1)
    torch.testing.assert_close(scaled, plain * c[:, None] / c, rtol=1e-8, atol=1e-12)


def test_nothing_to_correct() -> None:
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(correction(zero, zero, 0.1), torch.eye(4, dtype=torch.float64))
    C, G = moments(torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(correction(G, G, 0.1), torch.eye(12, dtype=torch.float64))
    with pytest.raises(ValueError, match="ridge must be > 0"):
        correction(C, G, 0.0)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e25])
def test_moments_in_any_unit(unit: float) -> None:
    """Products of float32 activations neither overflow nor vanish."""
    generator = torch.Generator().manual_seed(2)
    X = torch.randn(50, 6, generator=generator)
    found = asvd.InputMoments.zero(6, gram=True)
    found.add(X * unit)
    assert found.gram is not None
    expected = (X.double().mT @ X.double()) * unit**2
    torch.testing.assert_close(found.gram, expected, rtol=1e-5, atol=1e-5 * unit**2)
    L = root(found.gram)
    # Symmetric to the rounding of float32 products, and on some processors no further.
    gram = (found.gram + found.gram.mT) / 2
    torch.testing.assert_close(L @ L.mT, gram, rtol=1e-9, atol=1e-9 * unit**2)
