"""Surrogates: what they learn, their units, and that rows are by themselves."""

from typing import Any

import pytest
import torch
from chemflow.protocol import Surrogate as SurrogateProtocol
from chemflow.surrogate import (
    Config,
    Surrogate,
    SurrogateTask,
    correlation,
    fit_surrogate,
    load_surrogate,
    quality,
    save_surrogate,
)
from chemflow.training import Options
from scipy.stats import pearsonr, spearmanr
from torch import nn

L, V, D = 6, 4, 5


class Decoder(nn.Module):
    """Something that decodes: a softmax of a fixed map."""

    latent_size = D

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(D, L * V)

    def probabilities(self, z):
        return (3 * self.map(z)).unflatten(-1, (L, V)).softmax(-1)


DECODER = Decoder().requires_grad_(False)


def labelled(n: int = 1500):
    torch.manual_seed(1)
    z = torch.randn(n, D)
    p = DECODER.probabilities(z)
    # Counts a token, more so after another: 50 ± something, in units of its own.
    return z, (50 + 10 * p[..., 1].sum(-1) + 5 * (p[:, :-1, 2] * p[:, 1:, 3]).sum(-1)).double()


def surrogate(network: Any = "sequence", members: int = 2) -> Surrogate:
    torch.manual_seed(2)
    return Surrogate(DECODER, Config("count", network, members, 16, 2), (L, V))


@pytest.mark.parametrize("network", ["sequence", "residual", "codes"])
def test_learns_in_the_property_s_units(network):
    z, y = labelled()
    model = surrogate(network)
    said = []
    found = fit_surrogate(model, z, y, Options(30, 100, 1e-2), report=said.append)
    assert found.r > 0.95
    assert found.n == 150
    assert f"held-out r {found.r:.3f}" in str(found)
    assert said[-1].update == said[-1].updates
    guess = model.predict(z).double()
    assert (guess - y).abs().mean() < 0.4 * (y - y.mean()).abs().mean()
    # The members agree where there are data, and differ.
    assert 0 < model.std(z).mean() < y.std()
    assert not model.training
    assert isinstance(model, SurrogateProtocol)


@pytest.mark.parametrize("network", ["sequence", "residual", "codes"])
def test_rows_are_by_themselves_and_gradients_are_right(network):
    model = surrogate(network).double().eval()
    z = torch.randn(6, D, dtype=torch.float64, requires_grad=True)
    decoder = Decoder().double()
    model._model = (decoder,)
    together = model.predict(z)
    alone = torch.cat([model.predict(z[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(model.predict, z)
    assert model.predict(z[:0]).shape == (0,)


def test_positions_may_shift_without_a_new_lesson():
    model = surrogate().eval()
    p = torch.zeros(1, L, V)
    p[..., 0] = 1
    tokens = torch.eye(V)
    a, b = p.clone(), p.clone()
    a[0, 1] = tokens[2]
    b[0, 2] = tokens[2]
    # Away from the ends a token counts the same wherever it stands.
    wide = torch.zeros(1, 40, V)
    wide[..., 0] = 1
    left, right = wide.clone(), wide.clone()
    left[0, 15] = right[0, 22] = tokens[2]
    torch.testing.assert_close(model.standardised(left), model.standardised(right))
    assert not torch.allclose(model.standardised(a), model.standardised(p))


def test_std_is_that_of_the_members():
    model = surrogate(members=3).eval()
    z = torch.randn(4, D)
    each = model.standardised(model.inputs(z))
    torch.testing.assert_close(model.std(z), each.std(0, correction=0))
    assert not surrogate(members=1).eval().std(z).any()


def test_labels_beyond_the_limit_count_as_the_limit():
    z, y = labelled(100)
    y[0] = 1e6
    task = SurrogateTask(surrogate(), z, y, limit=3.0)
    assert task.targets.max() == 3
    with pytest.raises(ValueError, match="finite"):
        SurrogateTask(surrogate(), z, y.index_fill(0, torch.tensor([1]), torch.nan))
    with pytest.raises(ValueError, match="differ"):
        SurrogateTask(surrogate(), z, torch.ones(100))


def test_codes_without_a_molecule_are_left_out():
    z, y = labelled(300)
    y[::3] = torch.nan
    assert fit_surrogate(surrogate(), z, y, Options(1, 50)).n == 20
    with pytest.raises(ValueError, match="at least 20"):
        fit_surrogate(surrogate(), z[:29], y[:29], Options(1, 50))


def test_the_model_is_neither_trained_nor_saved(tmp_path):
    z, y = labelled(300)
    before = DECODER.map.weight.clone()
    model = surrogate()
    fit_surrogate(model, z, y, Options(2, 50))
    assert torch.equal(DECODER.map.weight, before)
    assert DECODER.training
    save_surrogate(tmp_path, model)
    again = load_surrogate(tmp_path, DECODER)
    assert torch.equal(again.predict(z), model.predict(z))
    assert again.quality == model.quality
    assert not any("map" in name for name in again.state_dict())
    with pytest.raises(RuntimeError, match="training mode"):
        again.train().predict(z)


def test_correlations_are_scipy_s():
    torch.manual_seed(3)
    model = surrogate().eval()
    z = torch.randn(60, D)
    y = torch.randint(5, (60,)).double()
    guess = model.predict(z).detach()
    found = quality(model, z, y)
    assert found.r == pytest.approx(pearsonr(guess, y)[0], abs=1e-6)
    assert found.rank_r == pytest.approx(spearmanr(guess, y)[0], abs=1e-6)
    assert correlation(torch.ones(4), torch.arange(4.0)) == 0
