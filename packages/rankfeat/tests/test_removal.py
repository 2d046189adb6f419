"""RankFeat's and RankWeight's removals against torch's SVD, and the invariants of the formula."""

import pytest
import torch
from linalg_kernels.errors import LinAlgError
from rankfeat import remove_effective_weight, remove_feature, remove_weight, standardize


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def svd_removal(X):
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    S = S.clone()
    S[..., 0] = 0
    return U * S[..., None, :] @ Vh


def relative(got, want):
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(3, 24, 4, 5), (2, 8, 7, 7), (2, 300, 5, 60)])
def test_map_against_svd(shape, scale):
    F = scale * draw(*shape).relu()
    want = svd_removal(F.flatten(2)).reshape(shape)
    assert relative(remove_feature(F), want) < 1e-10
    assert relative(remove_feature(F.contiguous(memory_format=torch.channels_last)), want) < 1e-10


def test_layouts_are_one_problem():
    F = draw(2, 6, 3, 4)
    want = remove_feature(F)
    last = remove_feature(F.permute(0, 2, 3, 1), "nhwc").permute(0, 3, 1, 2)
    tokens = remove_feature(F.flatten(2).mT).mT.reshape(F.shape)
    assert relative(last, want) < 1e-12
    assert relative(tokens, want) < 1e-12
    assert relative(remove_feature(F, "nhwc"), want) > 0.1


def test_signed_tokens_and_a_flat_spectrum():
    T = draw(2, 50, 32)
    assert relative(remove_feature(T), svd_removal(T)) < 1e-10


def test_a_sample_does_not_depend_on_its_batch():
    F = draw(4, 9, 3, 3)
    alone = torch.cat([remove_feature(F[i : i + 1]) for i in range(4)])
    assert relative(remove_feature(F), alone) < 1e-12


def test_removal_twice_is_rank_two():
    F = draw(2, 7, 3, 3)
    left = torch.linalg.svdvals(remove_feature(remove_feature(F)).flatten(2))
    before = torch.linalg.svdvals(F.flatten(2))
    torch.testing.assert_close(left[:, :5], before[:, 2:], rtol=1e-10, atol=0)
    assert bool((left[:, 5:] < 1e-12 * before[:, :1]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    F = draw(2, 16, 4, 4).relu().mul(100).to(dtype)
    got = remove_feature(F)
    assert got.dtype == dtype
    # What comes back is rounded to the dtype, entry by entry.
    want = svd_removal(F.double().flatten(2)).reshape(F.shape)
    assert relative(got.double(), want) < 8 * torch.finfo(dtype).eps


def test_autocast_does_not_touch_the_precision():
    F = draw(2, 16, 4, 4, dtype=torch.float32).relu()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = remove_feature(F)
    torch.testing.assert_close(got, remove_feature(F), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 5, 1, 1), (2, 1, 3, 3), (2, 1, 8)])
def test_one_position_or_channel_leaves_exact_zeros(shape):
    with pytest.warns(UserWarning, match="one position or one channel"):
        assert not bool(remove_feature(draw(*shape)).any())


def test_zero_sample_and_empty_batch():
    F = draw(3, 6, 2, 2)
    F[1] = 0
    got = remove_feature(F)
    assert not bool(got[1].any())
    assert relative(got[0], svd_removal(F[0].flatten(1)).reshape(F[0].shape)) < 1e-12
    assert remove_feature(F[:0]).shape == (0, 6, 2, 2)


def test_bad_sample_is_named_or_stays_alone():
    F = draw(3, 6, 2, 2)
    want = remove_feature(F)
    F[1, 2] = torch.nan
    with pytest.raises(LinAlgError, match=r"features\[1\] contains NaN or Inf"):
        remove_feature(F)
    got = remove_feature(F, check=False)
    assert bool(got[1].isnan().all())
    torch.testing.assert_close(got[[0, 2]], want[[0, 2]], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((2, 3), "auto", r"got \(2, 3\) with layout 'auto'"),
        ((2, 3, 4), "nchw", r"got \(2, 3, 4\) with layout 'nchw'"),
        ((2, 3, 4, 5), "tokens", r"with layout 'tokens'"),
    ],
)
def test_wrong_dimensions(shape, layout, message):
    with pytest.raises(ValueError, match=message):
        remove_feature(torch.zeros(shape), layout)


@pytest.mark.bad_input
def test_wrong_kind():
    with pytest.raises(ValueError, match="layout must be one of 'auto', 'nchw'"):
        remove_feature(torch.zeros(2, 3, 4, 5), "hwc")  # ty: ignore[invalid-argument-type]
    with pytest.raises(TypeError, match=r"features must be floating point, got torch.int64"):
        remove_feature(torch.zeros(2, 3, 4, dtype=torch.long))


@pytest.mark.parametrize("shape", [(10, 7), (12, 6, 3, 3), (8, 4, 5), (300, 20, 4, 4)])
def test_weight_against_svd(shape):
    W = draw(*shape)
    want = svd_removal(W.flatten(1)).reshape(shape)
    assert relative(remove_weight(W), want) < 1e-12
    assert relative(remove_weight(W.float()).double(), want) < 1e-6


def test_grouped_weight_has_one_matrix_a_group():
    W = draw(12, 3, 3, 3)
    halves = torch.cat([remove_weight(W[:6]), remove_weight(W[6:])])
    assert relative(remove_weight(W, groups=2), halves) < 1e-12
    assert relative(remove_weight(W), halves) > 0.1


def test_wrong_weight():
    with pytest.raises(ValueError, match=r"weight must be \(out, in, ...\).*got \(3,\)"):
        remove_weight(torch.ones(3))
    with pytest.raises(ValueError, match="groups must divide the 12 output channels, got 5"):
        remove_weight(torch.ones(12, 2), groups=5)
    with pytest.raises(LinAlgError, match="weight contains NaN or Inf"):
        remove_weight(torch.full((2, 2), torch.inf))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_effective_weight_of_a_standardised_layer(dtype):
    W = draw(12, 4, 3, 3, dtype=dtype)
    V, gain = remove_effective_weight(W)
    want = svd_removal(standardize(W.double()).flatten(1))
    got = (gain[:, None] * standardize(V).flatten(1)).double()
    assert relative(got, want) < 50 * torch.finfo(dtype).eps
    assert relative(standardize(V).flatten(1).double(), want) > 0.01  # the gain is needed


def test_effective_weight_with_a_gain_of_its_own():
    W, own = draw(6, 5, seed=1), draw(6, 1, seed=2).exp()
    V, gain = remove_effective_weight(W, lambda A: own * standardize(A))
    want = svd_removal(own * standardize(W))
    assert relative(gain[:, None] * own * standardize(V), want) < 1e-12


def test_effective_map_that_is_no_standardisation():
    with pytest.raises(ValueError, match="effective must scale the filters"):
        remove_effective_weight(draw(6, 5), torch.sigmoid)


def test_standardize_gives_mean_zero_and_variance_one():
    E = standardize(3 + 2 * draw(5, 4, 3, 3)).flatten(1)
    torch.testing.assert_close(E.mean(1), torch.zeros(5, dtype=E.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(E.var(1, correction=0), torch.ones(5, dtype=E.dtype))
