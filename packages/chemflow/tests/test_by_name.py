"""Navigators by name: each is what it says, and what is missing is named."""

import pytest
import torch
from chemflow.by_name import NAVIGATORS, make_navigator
from chemflow.flows import EQUATIONS, FokkerPlanckFlow, save_flow
from chemflow.navigators import Evolution, GradientFlow, Langevin, RandomCoordinate
from chemflow.pace import Pace

D = 4


class Slope:
    def predict(self, z):
        return z.sum(-1)

    def std(self, z):
        return torch.zeros_like(z[:, 0])


class Model:
    latent_size = D

    def encode_smiles(self, smiles):
        raise NotImplementedError

    def decode_smiles(self, z):
        return ["C"] * len(z)


def carbons(smiles):
    return [len(one) for one in smiles]


@pytest.mark.parametrize("name", NAVIGATORS)
def test_every_name_makes_a_navigator_that_moves(name, tmp_path):
    flow = None
    if name in EQUATIONS:
        made = FokkerPlanckFlow(D, Slope()) if name == "fp" else EQUATIONS[name](D)
        save_flow(tmp_path, made, {"equation": name})
        flow = tmp_path
    navigator = make_navigator(
        name, model=Model(), surrogate=Slope(), flow=flow, step_size=0.3, radius=50.0, seed=2,
        direction=torch.ones(D), oracle=carbons,
    )  # fmt: skip
    z = torch.randn(5, D)
    torch.testing.assert_close((navigator.step(z, 0) - z).norm(dim=-1), torch.full((5,), 0.3))
    # Nobody moves by a pace of its own.
    assert vars(navigator)["pace"] == Pace(0.3, radius=50.0)


def test_kinds():
    def made(name):
        return make_navigator(name, model=Model(), surrogate=Slope(), oracle=carbons, seed=7)

    assert type(made("gradient")) is GradientFlow
    assert type(made("langevin")) is Langevin
    assert made("langevin").seed == 7
    assert type(made("random-1d")) is RandomCoordinate
    assert isinstance(made("evolutionary"), Evolution)
    up = make_navigator("gradient", model=Model(), surrogate=Slope())
    down = make_navigator("gradient", model=Model(), surrogate=Slope(), minimise=True)
    z = torch.zeros(1, D)
    torch.testing.assert_close(up.step(z, 0), -down.step(z, 0))


def test_what_is_missing_is_named(tmp_path):
    for name, missing in (
        ("gradient", "surrogate"), ("adam", "surrogate"), ("wave", "flow"), ("linear", "direction"),
        ("evolutionary", "oracle"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{missing} must be given for '{name}'"):
            make_navigator(name, model=Model())
    with pytest.raises(ValueError, match="one of gradient, langevin"):
        make_navigator("teleport", model=Model())
    save_flow(tmp_path, EQUATIONS["hj"](D), {"equation": "hj"})
    with pytest.raises(ValueError, match="is of 'hj'"):
        make_navigator("wave", model=Model(), flow=tmp_path)
