"""Draws by row number: the published vectors of Philox, and independence of the batch."""

import math

import pytest
import torch
from chemflow.draws import drawn, normal_rows, philox, uniform_rows


# The known answers that come with Random123, the authors' library.
@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, want):
    assert philox(torch.tensor(counter), key).tolist() == want


@pytest.mark.parametrize("size", [1, 2, 3, 7, 128])
def test_a_row_is_the_same_in_any_batch(size):
    rows = torch.arange(50)
    whole = normal_rows(3, rows, size, step=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normal_rows(3, rows[order], size, step=2), whole[order])
    assert torch.equal(normal_rows(3, rows[17:18], size, step=2), whole[17:18])


def test_seed_row_step_and_purpose_each_change_the_draw():
    rows = torch.tensor([5])
    base = normal_rows(1, rows, 8, step=1, purpose=1)
    assert not torch.equal(base, normal_rows(2, rows, 8, step=1, purpose=1))
    assert not torch.equal(base, normal_rows(1, rows + 1, 8, step=1, purpose=1))
    assert not torch.equal(base, normal_rows(1, rows + 2**32, 8, step=1, purpose=1))
    assert not torch.equal(base, normal_rows(1, rows, 8, step=2, purpose=1))
    assert not torch.equal(base, normal_rows(1, rows, 8, step=1, purpose=2))


def test_the_draws_are_standard_normal():
    draws = normal_rows(0, torch.arange(4000), 64)
    n = draws.numel()
    assert abs(draws.mean()) < 4 / math.sqrt(n)
    assert abs(draws.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 4 * math.sqrt(96 / n)
    products = draws.double().T @ draws.double() / len(draws) - torch.eye(64)
    assert products.abs().max() < 6 / math.sqrt(len(draws))


def test_no_rows_and_bad_arguments():
    assert normal_rows(0, torch.arange(0), 5).shape == (0, 5)
    with pytest.raises(ValueError, match="seed"):
        normal_rows(-1, torch.arange(2), 5)
    with pytest.raises(ValueError, match="rows"):
        normal_rows(0, torch.tensor([-1]), 5)


def test_uniform_rows_fill_the_unit_interval():
    rows = torch.arange(4000)
    u = uniform_rows(3, rows, 6, step=2)
    assert ((u > 0) & (u < 1)).all()
    # Standard errors are 0.0019 and 0.0017 of 24,000 draws.
    assert abs(float(u.mean()) - 0.5) < 0.008
    assert abs(float(u.var()) - 1 / 12) < 0.004
    assert torch.equal(uniform_rows(3, rows[5:7], 6, step=2), u[5:7])


def test_the_last_token_takes_the_last_numbers():
    logits = torch.tensor([[0.0, 0.0, float("-inf")], [0.0, 0.0, 0.0]])
    assert drawn(logits, torch.tensor([1 - 1e-16, 1 - 1e-16], dtype=torch.float64)).tolist() == [
        1,
        2,
    ]
    assert drawn(logits, torch.tensor([1e-16, 0.5], dtype=torch.float64)).tolist() == [0, 1]
