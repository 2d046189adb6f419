"""The recurrent decoder."""

import torch
from chemflow.autoregressive import AutoregressiveDecoder, counted
from torch.nn.functional import one_hot


def decoder(seed: int = 0) -> AutoregressiveDecoder:
    torch.manual_seed(seed)
    found = AutoregressiveDecoder(4, 6, 16, 10, 5).double().eval()
    # Far from uniform, so that strings differ and end at different places.
    with torch.no_grad():
        found.head.weight *= 8
        found.start.weight *= 4
    return found


def test_greedy_tokens_are_the_most_likely_ones_given_those_before():
    model = decoder()
    z = torch.randn(40, 4, dtype=torch.float64)
    ids = model.decode(z)
    best = model.logits(z, ids).argmax(-1)
    held = counted(ids)
    assert torch.equal(ids[held], best[held])
    assert not ids[~held].any()
    ends = (ids != 0).sum(-1)
    assert ends.unique().numel() > 2


def test_drawn_tokens_have_the_probabilities_of_the_model():
    """Each number's token is the one in whose share of (0, 1) it falls, given those before."""
    model = decoder()
    z = torch.randn(60, 4, dtype=torch.float64)
    uniform = torch.rand(60, 10, dtype=torch.float64)
    for temperature in (1.0, 0.5):
        ids = model.draw(z, uniform, temperature)
        held = counted(ids)
        assert not ids[~held].any()
        p = (model.logits(z, ids) / temperature).softmax(-1)
        end = p.cumsum(-1).gather(-1, ids[..., None])[..., 0]
        begin = end - p.gather(-1, ids[..., None])[..., 0]
        assert ((begin <= uniform + 1e-12) & (uniform <= end + 1e-12))[held].all()
    assert torch.equal(model.draw(z, uniform, 1e-6), model.decode(z))


def test_positions_see_only_what_stands_before_them():
    model = decoder()
    z = torch.randn(1, 4, dtype=torch.float64)
    ids = torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4, 1, 2]])
    other = ids.clone()
    other[0, 6] = 0
    a, b = model.logits(z, ids)[0], model.logits(z, other)[0]
    assert torch.equal(a[:7], b[:7])
    assert (a[7:] != b[7:]).any(-1).all()


def test_what_counts_is_tokens_and_one_end():
    ids = torch.tensor([[1, 2, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0], [1, 0, 2, 0]])
    expected = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert counted(ids).int().tolist() == expected
    assert decoder().log_weights(ids).tolist() == expected


def test_probabilities_are_certain_after_the_end():
    model = decoder()
    z = torch.randn(40, 4, dtype=torch.float64)
    p, ids = model.probabilities(z), model.decode(z)
    assert torch.allclose(p.sum(-1), torch.ones(1, dtype=torch.float64))
    after = ~counted(ids)
    assert torch.equal(p[after], one_hot(ids[after], 5).double())


def test_a_likely_start_of_noise_is_no_string_at_all():
    model = decoder()
    with torch.no_grad():
        model.head.bias[0] = 1e3
    assert not model.decode(torch.randn(3, 4, dtype=torch.float64)).any()
