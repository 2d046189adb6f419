"""The products behind the removal: Gram, Lanczos, and the form for traced graphs."""

import pytest
import torch
from rankfeat import krylov, remove_feature


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_ratio(shape, ratio, dtype=torch.float64):
    """Rectified features with s2/s1 as given, and what the SVD leaves of them."""
    X = draw(*shape).relu()
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S = torch.cat([S[:, :1], S[:, 1:] * (ratio * S[:, :1] / S[:, 1:2])], 1)
    left = torch.cat([torch.zeros_like(S[:, :1]), S[:, 1:]], 1)
    return ((U * S[:, None]) @ Vh).to(dtype), (U * left[:, None]) @ Vh


def relative(got, want):
    return float(torch.linalg.vector_norm(got.double() - want) / torch.linalg.vector_norm(want))


SHAPES = [
    (2, 500, 310),
    (2, 200, 100),
    (2, 100, 200),
    (3, 90, 40),
    (3, 40, 90),
    (4, 60, 12),
    (4, 12, 60),
]


@pytest.mark.parametrize("ratio", [0.1, 0.36, 0.55, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_svd(shape, ratio):
    X, want = with_ratio(shape, ratio)
    # Near a tie double precision takes more steps than are tried, and squaring takes over.
    assert relative(remove_feature(X), want) < 1e-12
    assert ratio == 0.9 or relative(krylov.removed(X, None), want) < 1e-13
    X, want = with_ratio(shape, ratio, torch.float32)
    assert relative(krylov.removed(X, None), want) < 5e-6


@pytest.mark.parametrize("shape", [(5, 90, 70), (5, 60, 12)])
def test_samples_in_several_pieces(shape, monkeypatch):
    X, want = with_ratio(shape, 0.36)
    monkeypatch.setattr(krylov, "_CHUNK", 2 * X[0].numel() + 1)
    assert relative(krylov.removed(X, None), want) < 1e-13
    X[4, 0, 0] = torch.nan
    assert krylov.removed(X, None) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_traced_form_against_svd(shape):
    X, want = with_ratio(shape, 0.55)
    assert relative(krylov.traced(X, 20), want) < 1e-12
    X, want = with_ratio(shape, 0.55, torch.float32)
    assert relative(krylov.traced(X, 20), want) < 5e-6


@pytest.mark.parametrize(
    "form", [lambda X: krylov.removed(X, None), lambda X: krylov.traced(X, 20)]
)
def test_rank_one_and_few_columns(form):
    X = draw(2, 100, 1).abs() @ draw(2, 1, 80, seed=1)
    left = form(X)
    assert float(torch.linalg.vector_norm(left) / torch.linalg.vector_norm(X)) < 1e-13
    X, want = with_ratio((2, 100, 2), 0.5)
    assert relative(form(X), want) < 1e-13


def test_the_traced_form_of_zeros_is_zero():
    X = torch.zeros(2, 90, 80)
    assert not bool(krylov.traced(X, 20).any())


@pytest.mark.parametrize("shape", [(2, 200, 100), (3, 90, 40)])
def test_what_is_left_to_linalg_kernels(shape):
    X, want = with_ratio(shape, 0.5)
    # Out of the range of squares, not finite, or so near a tie that the steps do not suffice.
    for bad in (X * 1e-20, X * 1e20, X.clone().index_fill_(0, torch.tensor([0]), torch.nan)):
        assert krylov.removed(bad, None) is None
    assert relative(remove_feature(X * 1e-20) * 1e20, want) < 1e-10
    tie = with_ratio((1, 200, 100), 0.999)[0]
    assert krylov.removed(tie, None) is None


def test_a_leading_block_that_a_single_column_does_not_see():
    # The largest column is in the small block, the leading triple in the other.
    X = torch.zeros(1, 120, 100, dtype=torch.float64)
    X[0, :60, :90] = 1
    X[0, 100:, 95] = 15
    want = X.clone()
    want[0, :60, :90] = 0
    assert relative(remove_feature(X), want) < 1e-12
