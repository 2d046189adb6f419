"""Scores of logits against their formulas, written out in Python."""

import math

import pytest
import torch
from rankfeat import MSP, Energy, MaxLogit

ROWS = [[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]
LOGITS = torch.tensor(ROWS, dtype=torch.float64)


@pytest.mark.parametrize("T", [0.5, 1.0, 10.0])
def test_values(T):
    sums = [sum(math.exp(y / T) for y in row) for row in ROWS]
    energy = [T * math.log(total) for total in sums]
    msp = [math.exp(max(row) / T) / total for row, total in zip(ROWS, sums, strict=True)]
    torch.testing.assert_close(Energy(T)(LOGITS), LOGITS.new_tensor(energy))
    torch.testing.assert_close(MSP(T)(LOGITS), LOGITS.new_tensor(msp))
    assert MaxLogit()(LOGITS).tolist() == [1.0, 0.0]


def test_energy_lies_between_the_largest_logit_and_that_plus_t_log_q():
    y = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    above = Energy(2.0)(y) - MaxLogit()(y)
    assert bool((above >= 0).all())
    assert bool((above <= 2 * math.log(7)).all())


@pytest.mark.parametrize("score", [Energy(), MSP(), MaxLogit()])
def test_a_surer_prediction_scores_higher(score):
    sure, unsure = score(torch.tensor([[9.0, 0, 0], [1.0, 0, 0]]))
    assert sure > unsure


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32(dtype):
    y = torch.tensor([[60000.0, 59000.0]], dtype=dtype)
    assert Energy(10.0)(y).dtype == torch.float32
    torch.testing.assert_close(Energy(10.0)(y), Energy(10.0)(y.float()), rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be finite and > 0"):
        Energy(temperature)
    with pytest.raises(ValueError, match="temperature must be finite and > 0"):
        MSP(temperature)


def test_wrong_logits():
    with pytest.raises(ValueError, match=r"logits must be \(..., classes\), got \(2, 0\)"):
        Energy()(torch.zeros(2, 0))


@pytest.mark.bad_input
def test_wrong_dtype():
    with pytest.raises(TypeError, match=r"logits must be floating point, got torch.int64"):
        MSP()(torch.zeros(2, 3, dtype=torch.long))
