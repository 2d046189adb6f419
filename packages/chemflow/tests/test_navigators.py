"""Navigators: equal length, rows by themselves, and the steps that their names promise."""

import math
import weakref

import numpy as np
import pytest
import torch
from chemflow.draws import normal_rows
from chemflow.flows import HamiltonJacobiFlow, HeatFlow, WaveFlow
from chemflow.navigators import (
    AdamAscent,
    Evolution,
    GradientFlow,
    Langevin,
    LinearDirection,
    RandomCoordinate,
    RandomDirection,
)
from chemflow.pace import Pace, unit
from chemflow.protocol import Navigator

D = 6


class Bowl:
    """h(z) = -k |z - c|² / 2 + sin of the first coordinate, as an ensemble of two."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength
        self.center = torch.linspace(-1, 1, D, dtype=torch.float64)

    def predict(self, z):
        return self.strength * (-(z - self.center.to(z)).square().sum(-1) / 2 + z[:, 0].sin())

    def std(self, z):
        return self.strength * z[:, 1].square()


class Letters:
    """Decodes a code to a string, and scores it by its first number; some are no molecule."""

    latent_size = D

    def encode_smiles(self, smiles):
        raise NotImplementedError

    def decode_smiles(self, z):
        return [repr(row) for row in z[:, 0].tolist()]

    def score(self, strings):
        values = np.array([float(one) for one in strings])
        return np.where(np.abs(values) > 50, np.nan, values)


def every(pace: Pace, seed: int = 0) -> dict[str, Navigator]:
    torch.manual_seed(1)
    flows = {
        "wave": WaveFlow(D, 2, pace=pace),
        "hj": HamiltonJacobiFlow(D, pace=pace),
        "heat": HeatFlow(D, pace=pace),
    }
    return {
        "gradient": GradientFlow(Bowl(), pace),
        "gradient, cautious": GradientFlow(Bowl(), pace, caution=0.3),
        "gradient, down": GradientFlow(Bowl(), pace, minimise=True),
        "langevin": Langevin(Bowl(), pace, seed=seed),
        "random": RandomDirection(pace, seed=seed),
        "random, own": RandomDirection(pace, seed=seed, own=True),
        "random-1d": RandomCoordinate(pace, seed=seed),
        "linear": LinearDirection(torch.arange(1.0, D + 1, dtype=torch.float64), pace),
        "adam": AdamAscent(Bowl(), pace),
        "evolutionary": Evolution(Letters(), Letters().score, pace, seed=seed),
        "evolutionary, led": Evolution(Letters(), Letters().score, pace, lead=Bowl(), seed=seed),
        **{name: flow.double() for name, flow in flows.items()},
    }


NAMES = list(every(Pace()))


def codes(b: int = 5) -> torch.Tensor:
    torch.manual_seed(2)
    return 2 * torch.randn(b, D, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_has_the_same_length(name):
    navigator = every(Pace(0.3))[name]
    assert isinstance(navigator, Navigator)
    z = codes()
    for t in range(12):
        moved = navigator.step(z, t)
        assert not moved.requires_grad
        length = (moved - z).norm(dim=-1)
        torch.testing.assert_close(length, torch.full_like(length, 0.3))
        z = moved


@pytest.mark.parametrize("norm", ["unit", "relative"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_moves_as_it_would_alone(name, norm):
    # In one batch, in two shards, in another order: a row's number says what it draws.
    pace = Pace(0.1, norm)
    together, apart, turned = (every(pace)[name] for _ in range(3))
    a = b = c = codes()
    order = torch.tensor([3, 0, 4, 1, 2])
    c = c[order]
    for t in range(4):
        a = together.step(a, t)
        rows = torch.arange(5)
        b = torch.cat([apart.step(b[s], t, rows[s]) for s in (slice(0, 2), slice(2, 5))])
        c = turned.step(c, t, order)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a[order], c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["langevin", "random", "random-1d", "evolutionary"])
def test_another_seed_is_another_path(name):
    a, b = (every(Pace(), seed)[name].step(codes(), 0) for seed in (0, 1))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("b", [0, 1])
def test_no_row_and_one_row(name, b):
    z = codes()[:b]
    assert every(Pace())[name].step(z, 0).shape == (b, D)


def test_relative_gradient_flow_and_langevin_are_the_paper_s():
    z, bowl = codes(), Bowl()
    g = -(z - bowl.center)
    g[:, 0] += z[:, 0].cos()
    pace = Pace(0.1, "relative")
    torch.testing.assert_close(GradientFlow(bowl, pace).step(z, 0), z + 0.1 * g)
    torch.testing.assert_close(GradientFlow(bowl, pace, minimise=True).step(z, 0), z - 0.1 * g)
    found = Langevin(bowl, pace, noise=0.1, seed=4).step(z, 7)
    noise = (found - z - 0.1 * g) / (0.1 * math.sqrt(0.2))
    # Single precision is what draws are made in.
    torch.testing.assert_close(
        noise, normal_rows(4, torch.arange(5), D, 7, purpose=17).double(), rtol=1e-6, atol=1e-6
    )


def test_caution_is_the_gradient_of_mean_less_std():
    z, bowl = codes().requires_grad_(), Bowl()
    value = -bowl.predict(z) - 0.3 * bowl.std(z)
    expected = torch.autograd.grad(value.sum(), z)[0]
    flow = GradientFlow(bowl, minimise=True, caution=0.3)
    torch.testing.assert_close(flow.velocity(z), expected)


def test_gradient_flow_climbs_in_small_steps():
    z, bowl = codes(), Bowl()
    flow = GradientFlow(bowl, Pace(1e-2, "relative"))
    values = [bowl.predict(z)]
    for t in range(200):
        z = flow.step(z, t)
        values.append(bowl.predict(z))
    assert (torch.stack(values).diff(dim=0) >= -1e-12).all()


def test_langevin_has_the_stationary_spread_of_its_step():
    class Cone:
        def predict(self, z):
            return -z.square().sum(-1) / 2

        def std(self, z):
            return z[:, 0] * 0

    step, noise = 0.5, 0.7
    walk = Langevin(Cone(), Pace(step, "relative"), noise=noise)
    z = torch.zeros(4000, D, dtype=torch.float64)
    for t in range(30):
        z = walk.step(z, t)
    # z <- (1-α) z + β √(2α) ξ has variance β² / (1 - α/2).
    assert z.var().item() == pytest.approx(noise**2 / (1 - step / 2), rel=0.03)
    assert z.mean().item() == pytest.approx(0, abs=0.02)


def test_adam_is_torch_s():
    z, bowl = codes(), Bowl()
    expected = z.clone().requires_grad_()
    adam = torch.optim.Adam([expected], lr=0.1)
    navigator = AdamAscent(bowl, Pace(0.1, "relative"))
    for t in range(20):
        adam.zero_grad()
        (-bowl.predict(expected).sum()).backward()
        adam.step()
        z = navigator.step(z, t)
    torch.testing.assert_close(z, expected.detach(), rtol=1e-9, atol=1e-9)
    navigator.reset()
    first = navigator.step(z, 0)
    torch.testing.assert_close((first - z).abs(), torch.full_like(z, 0.1), rtol=1e-5, atol=0)


def test_adam_takes_rows_as_they_come():
    whole, pieces = AdamAscent(Bowl()), AdamAscent(Bowl())
    z = codes(7)
    expected = whole.step(whole.step(z, 0), 1)
    halves = [torch.tensor([6, 2, 4]), torch.tensor([0, 1, 3, 5])]
    found = z.clone()
    for t in range(2):
        for rows in halves[:: 1 if t else -1]:
            found[rows] = pieces.step(found[rows], t, rows)
    torch.testing.assert_close(found, expected)


def test_random_direction_is_one_for_all_or_one_each():
    z = codes()
    same = RandomDirection(Pace(0.2)).step(z, 0) - z
    torch.testing.assert_close(same, same[:1].expand_as(same))
    each = RandomDirection(Pace(0.2), own=True).step(z, 0) - z
    assert torch.linalg.matrix_rank(each) == 5
    again = RandomDirection(Pace(0.2)).step(z, 3) - z
    torch.testing.assert_close(again, same)
    relative = RandomDirection(Pace(1.0, "relative")).step(z, 0) - z
    assert 0.5 * math.sqrt(D) < relative[0].norm() < 2 * math.sqrt(D)
    one = RandomCoordinate(Pace(0.2)).step(z, 0) - z
    assert (one != 0).sum(-1).tolist() == [1] * 5


def test_evolution_takes_the_best_offspring_and_counts():
    z = codes()
    search = Evolution(Letters(), Letters().score, Pace(0.5), offspring=8, seed=3)
    moved = search.step(z, 0)
    assert search.oracle_calls == 40
    young = [
        Evolution(Letters(), Letters().score, Pace(0.5), offspring=n, seed=3).step(z, 0)[:, 0]
        for n in (1, 4, 8)
    ]
    # More offspring of the same draws can only find better ones.
    assert moved[:, 0].tolist() == young[2].tolist()
    down = Evolution(Letters(), Letters().score, Pace(0.5), offspring=8, seed=3, minimise=True)
    assert (down.step(z, 0)[:, 0] < moved[:, 0]).all()
    search.reset()
    search.step(z, 1)
    assert search.oracle_calls == 80


def test_evolution_never_chooses_what_is_no_molecule():
    z = codes()
    z[:, 0] = 50.0
    search = Evolution(Letters(), Letters().score, Pace(0.5), offspring=8, seed=3)
    assert (search.step(z, 0)[:, 0] <= 50).all()
    z[:, 0] = 60.0
    assert search.step(z, 0).isfinite().all()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_a_direction_of_any_size_is_a_direction(size):
    v = size * torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(unit(v)[1], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(unit(v)[0], torch.tensor([0.6, 0.8], dtype=torch.float64))


def test_norm_control():
    z = codes()
    near = Pace(0.1, radius=1.5).move(z, torch.ones_like(z))
    assert near.norm(dim=-1).max() <= 1.5 + 1e-12
    inside = z / z.norm(dim=-1, keepdim=True)
    free = Pace(0.1).move(inside, torch.ones_like(z))
    torch.testing.assert_close(Pace(0.1, radius=1.5).move(inside, torch.ones_like(z)), free)
    pulled = Pace(0.1, "relative", pull=2.0).move(z, torch.ones_like(z))
    torch.testing.assert_close(pulled, z + 0.1 * (1 - 2 * z))


def test_a_row_without_a_direction_stays_and_nan_is_named():
    z = codes()
    v = torch.ones_like(z)
    v[2] = 0
    assert torch.equal(Pace(0.1).move(z, v)[2], z[2])
    v[3, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="row 3"):
        Pace(0.1).move(z, v)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"step": 0.0}, "step must be positive"),
        ({"step": math.inf}, "step must be positive and finite"),
        ({"norm": "absolute"}, "'absolute'"),
        ({"radius": 0.0}, "radius"),
        ({"pull": -1.0}, "pull"),
    ],
)
@pytest.mark.bad_input
def test_paces_that_are_none(arguments, said):
    with pytest.raises(ValueError, match=said):
        Pace(**arguments)


@pytest.mark.bad_input
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"rows must be \(5,\), got \(4,\)"):
        RandomDirection(own=True).step(codes(), 0, torch.arange(4))
    with pytest.raises(ValueError, match=r"z must be \(b, 3\)"):
        LinearDirection(torch.ones(3)).step(codes(), 0)
    with pytest.raises(ValueError, match="not all zeros"):
        LinearDirection(torch.zeros(3))
    with pytest.raises(ValueError, match="offspring"):
        Evolution(Letters(), Letters().score, offspring=0)
    with pytest.raises(ValueError, match="noise"):
        Langevin(Bowl(), noise=-1.0)
    with pytest.raises(ValueError, match="caution"):
        GradientFlow(Bowl(), caution=-1.0)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_told_without_addresses(name):
    a, b, other = every(Pace(0.3))[name], every(Pace(0.3))[name], every(Pace(0.4))[name]
    assert repr(a) == repr(b) != repr(other)
    assert "0x" not in repr(a)
    before = repr(a)
    a.step(codes(), 0)
    assert repr(a) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_steps_hold_no_more_memory_than_one(name):
    navigator = every(Pace(0.05))[name]
    z = codes()
    past = []
    for t in range(1000 if name not in ("wave", "hj", "heat") else 200):
        past.append(weakref.ref(z))
        z = navigator.step(z, t)
    # A graph, or a list of what was, would keep them alive.
    assert sum(one() is not None for one in past) <= 1
    kept = [value for value in vars(navigator).values() if isinstance(value, torch.Tensor | tuple)]
    sizes = [one.numel() for one in kept if isinstance(one, torch.Tensor)]
    assert sum(sizes) <= 10 * z.numel()
