"""Flows: exact solutions of their equations, losses of rows, and that training goes somewhere."""

import math
from typing import Any

import pytest
import torch
from chemflow.flow_task import FlowObjective, FlowTask
from chemflow.flows import (
    EQUATIONS,
    FokkerPlanckFlow,
    HamiltonJacobiFlow,
    HeatFlow,
    PotentialFlow,
    WaveFlow,
    load_flow,
    save_flow,
)
from chemflow.navigators import ascent
from chemflow.pace import Pace, unit
from chemflow.training import Options, Trainer
from potential_flows import gradient
from torch import nn

D, L, V = 5, 4, 3


class Decoder(nn.Module):
    latent_size = D

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(D, L * V)

    def probabilities(self, z):
        return (2 * self.map(z)).unflatten(-1, (L, V)).softmax(-1)


class Hill:
    def predict(self, z):
        return -(z - 1).square().sum(-1) / 2 + z[:, 0].sin()

    def std(self, z):
        return torch.zeros_like(z[:, 0])


class Ramp:
    """A(z) = a·z: particles drift with a."""

    a = torch.linspace(0.5, 1.5, D, dtype=torch.float64)

    def predict(self, z):
        return z @ self.a.to(z)

    def std(self, z):
        return torch.zeros_like(z[:, 0])


DECODER = Decoder().requires_grad_(False)
K = torch.linspace(0.3, 0.9, D, dtype=torch.float64)
SPEED, KAPPA = 1.7, 0.4


def square(z):
    return z.square().sum(-1)


SOLUTIONS = {
    "wave, plane": ("wave", lambda z, t: z @ K + 0.3 * t + 2),
    "wave, travelling": ("wave", lambda z, t: (z @ K - SPEED * K.norm() * t).sin()),
    "hj, plane": ("hj", lambda z, t: z @ K - square(K) / 2 * t),
    "hj, fan": ("hj", lambda z, t: square(z) / (2 * (t + 3))),
    "heat, square": ("heat", lambda z, t: square(z) + 2 * KAPPA * D * t),
    "heat, decaying": ("heat", lambda z, t: (-KAPPA * square(K) * t).exp() * (z @ K).sin()),
    # N(0, I) that is carried by a and widens by 2 D t.
    "fp, drifting": (
        "fp",
        lambda z, t: (
            -square(z - t[..., None] * Ramp.a) / (2 * (1 + 2 * KAPPA * t))
            - D / 2 * (1 + 2 * KAPPA * t).log()
            + square(z) / 2
        ),
    ),
}


class Solved(nn.Module):
    def __init__(self, u) -> None:
        super().__init__()
        self.u = u

    def forward(self, z, t):
        return self.u(z, t)


def flow(equation: str, flows: int = 1, **changes: Any) -> PotentialFlow:
    torch.manual_seed(3)
    if equation == "fp":
        return FokkerPlanckFlow(D, Ramp(), hidden=16, diffusivity=KAPPA, **changes).double()
    if equation == "wave":
        changes["speed"] = SPEED
    elif equation == "heat":
        changes["diffusivity"] = KAPPA
    return EQUATIONS[equation](D, flows, hidden=16, **changes).double()


@pytest.mark.parametrize("name", SOLUTIONS)
def test_exact_solutions_leave_nothing(name):
    equation, u = SOLUTIONS[name]
    solved = flow(equation)
    z = torch.randn(20, D, dtype=torch.float64)
    t = torch.rand(20, dtype=torch.float64) * 5
    assert solved.residual(0, z, t).abs().max() > 1e-3
    if isinstance(solved, WaveFlow):
        solved.raw_speed.data.fill_(math.log(math.expm1(SPEED)))
    solved.potentials[0] = Solved(u)
    assert solved.residual(0, z, t).abs().max() < 1e-12


def test_an_equation_of_a_user_s_own():
    def transport(u, z, t):
        from potential_flows import spacetime_gradient

        slope, rate = spacetime_gradient(u, z, t)
        return rate + slope.sum(-1)

    own = PotentialFlow(D, residual=transport, pace=Pace(0.1)).double()
    z, t = torch.randn(3, D, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert own.residual(0, z, t).shape == (3,)
    own.potentials[0] = Solved(lambda z, t: (z.sum(-1) - D * t).sin())
    assert own.residual(0, z, t).abs().max() < 1e-12
    with pytest.raises(NotImplementedError, match="residual must be given"):
        PotentialFlow(D).residual(0, z.float(), t.float())


def task(
    equation: str = "wave", flows: int = 1, surrogate=None, n: int = 40, **changes
) -> FlowTask:
    torch.manual_seed(4)
    decoder = Decoder().double().requires_grad_(False)
    return FlowTask(
        flow(equation, flows, pace=Pace(0.2)),
        decoder,
        torch.randn(n, D, dtype=torch.float64),
        surrogate,
        **changes,
    ).double()


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("guide", ["direction", "paper"])
@pytest.mark.parametrize(
    ("equation", "surrogate", "flows"),
    [
        ("wave", Hill(), 1),
        ("hj", Hill(), 1),
        ("heat", Hill(), 1),
        ("wave", None, 3),
        ("hj", None, 3),
    ],
)
def test_rows_that_are_there_twice_change_no_loss(equation, surrogate, flows, guide):
    made = task(equation, flows, surrogate, objective=FlowObjective(guide=guide))
    rows = torch.arange(6)
    once = made.loss(rows, draws(), 0.0)
    twice = made.loss(torch.cat((rows, rows)), draws(), 0.0)
    turned = made.loss(rows.flip(0), draws(), 0.0)
    assert once.parts.keys() >= {"equation", "rest", "guidance"}
    assert ("telling" in once.parts) == (flows > 1)
    for name, value in once.parts.items():
        torch.testing.assert_close(twice.parts[name], value)
        torch.testing.assert_close(turned.parts[name], value)


def test_the_wave_s_speed_is_trained_and_stays_positive():
    made = task("wave", surrogate=Hill())
    assert isinstance(made.flow, WaveFlow)
    assert made.flow.speed(0).item() == pytest.approx(SPEED)
    made.loss(torch.arange(6), draws(), 0.0).loss.backward()
    slope = made.flow.raw_speed.grad
    assert slope is not None
    assert slope.abs().min() > 0
    with torch.no_grad():
        made.flow.raw_speed.sub_(30)
    assert made.flow.speed(0) > 0


def test_minimise_turns_the_guidance_and_nothing_else():
    up, down = (
        task("hj", surrogate=Hill(), minimise=minimise).loss(torch.arange(6), draws(), 0.0)
        for minimise in (False, True)
    )
    torch.testing.assert_close(up.parts["guidance"], -down.parts["guidance"])
    for name in ("equation", "rest"):
        torch.testing.assert_close(up.parts[name], down.parts[name])


def test_paper_s_guidance_is_its_formulas():
    made = task("hj", surrogate=Hill(), objective=FlowObjective(guide="paper"))
    z, v = torch.randn(7, D).double(), torch.randn(7, D).double()
    h = 1e-6
    d = (Hill().predict(z + h * v) - Hill().predict(z - h * v)) / (2 * h)
    expected = -(d.sign() * d.square()).mean()
    torch.testing.assert_close(made._guidance(z, v), expected, rtol=1e-7, atol=1e-7)
    free = task("hj", 2, objective=FlowObjective(guide="paper"))
    g = free._model[0].probabilities
    response = (g(z + h * v) - g(z - h * v)) / (2 * h)
    expected = -response.flatten(1).square().sum(-1).mean()
    torch.testing.assert_close(free._guidance(z, v), expected, rtol=1e-7, atol=1e-7)


def test_guidance_by_direction_is_bounded_and_of_no_length():
    made = task("hj", surrogate=Hill())
    z, v = torch.randn(7, D).double(), torch.randn(7, D).double()
    torch.testing.assert_close(made._guidance(z, v), made._guidance(z, 1e5 * v))
    assert made._guidance(z, ascent(Hill(), z)).item() == pytest.approx(-1)


@pytest.mark.parametrize("equation", ["wave", "hj", "heat"])
def test_a_supervised_flow_climbs(equation):
    made = task(equation, surrogate=Hill(), n=200)
    z = torch.randn(100, D, dtype=torch.float64, generator=draws(9))

    def cosine(t):
        slope = ascent(Hill(), z)
        return (unit(slope) * unit(made.flow.velocity(0, z, t))).sum(-1).mean().item()

    before = max(cosine(t) for t in (2.0, 9.0))
    Trainer(made, Options(40, 50, 1e-2)).run()
    assert min(cosine(t) for t in (2.0, 9.0)) > max(0.5, before + 0.2)
    start, value = z, Hill().predict(z).mean()
    for t in range(10):
        start = made.flow.step(start, t)
    assert Hill().predict(start).mean() > value + 0.5


def test_unsupervised_flows_differ_and_move_molecules():
    made = task("hj", 3, n=200)
    Trainer(made, Options(60, 50, 1e-2)).run()
    z = made.codes[:100]
    v = torch.stack([unit(made.flow.velocity(k, z, 3.0)).mean(0) for k in range(3)])
    cosines = (unit(v) @ unit(v).mT).abs()
    assert (cosines - torch.eye(3)).max() < 0.95
    moved = [
        torch.func.jvp(made._model[0].probabilities, (z,), (unit(made.flow.velocity(k, z, 3.0)),))[
            1
        ]
        for k in range(3)
    ]
    at_random = torch.func.jvp(made._model[0].probabilities, (z,), (unit(torch.randn_like(z)),))[1]
    assert min(m.square().sum() for m in moved) > 1.2 * at_random.square().sum()


def test_fokker_planck_trains_towards_its_density():
    made = task("fp", surrogate=None, n=300)
    first = made.loss(torch.arange(100), draws(), 0.0)
    assert "guidance" not in first.parts
    Trainer(made, Options(60, 100, 3e-3)).run()
    last = made.loss(torch.arange(100), draws(), 0.0)
    assert last.loss < 0.4 * first.loss
    z = made.codes[:50]
    expected = Ramp.a - KAPPA * (gradient(made.flow.potential(0), z, 1.0) - z)
    torch.testing.assert_close(made.flow.velocity(0, z, 1.0), expected)


@pytest.mark.parametrize("equation", ["wave", "hj", "heat", "fp"])
def test_a_saved_flow_is_the_same(equation, tmp_path):
    made = flow(equation, pace=Pace(0.3, radius=2.0)).float()
    save_flow(tmp_path, made, {"property": "qed"})
    drift = Ramp() if equation == "fp" else None
    again, about = load_flow(tmp_path, drift=drift)
    z = torch.randn(4, D)
    assert torch.equal(again.step(z, 3), made.step(z, 3))
    assert about == {"property": "qed"}
    assert again.pace == made.pace
    if equation == "fp":
        with pytest.raises(ValueError, match="drift"):
            load_flow(tmp_path)


def test_what_has_no_name_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="PotentialFlow"):
        save_flow(tmp_path, PotentialFlow(D))
    with pytest.raises(ValueError, match=r"codes must be \(n, 5\)"):
        FlowTask(HamiltonJacobiFlow(D), DECODER, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="diffusivity"):
        HeatFlow(D, diffusivity=0.0)
    with pytest.raises(ValueError, match="flows"):
        HeatFlow(D, 0)
    with pytest.raises(ValueError, match="speed"):
        WaveFlow(D, speed=-math.pi)


@pytest.mark.bad_input
def test_a_guide_that_is_none():
    with pytest.raises(ValueError, match="'sideways'"):
        FlowObjective(guide="sideways")  # ty: ignore[invalid-argument-type]
