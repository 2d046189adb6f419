"""Arrays that the official program computed (ASVD4LLM at 8630427, in float64)."""

from pathlib import Path
from types import SimpleNamespace

import asvd
import numpy as np
import pytest
import torch
from asvd.decompose import Fuse, root
from asvd.perplexity import perplexity
from asvd.search import uniform
from asvd.sensitivity import perplexity_sensitivity, stable_rank_sensitivity
from torch import Tensor, nn

GOLDEN = np.load(Path(__file__).with_name("golden.npz"))


def array(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def moments(gram: bool = True) -> asvd.InputMoments:
    X = array("linear/X")
    found = asvd.InputMoments.zero(X.shape[-1], gram)
    for batch in X:
        found.add(batch.flatten(0, -2))
    return found


def test_channel_means() -> None:
    """The official mean is a sum over three batches of their means."""
    ours = asvd.scaling(moments(), "abs_mean", 1.0, floor=0.0)
    torch.testing.assert_close(3 * ours, array("linear/scale_raw_abs_mean"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_products_of_asvd(alpha: float) -> None:
    W = array("linear/W")
    s = array("linear/scale_raw_abs_mean") ** alpha + 1e-6
    A, B = asvd.factors(W, asvd.spectrum(W, s), 5)
    expected = array(f"linear/prod_abs_mean_a{alpha}_r0.6")
    torch.testing.assert_close(A @ B, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fuse", ["UV", "U", "V"])
def test_factors_up_to_signs(fuse: Fuse) -> None:
    W = array("linear/W")
    s = array("linear/scale_raw_abs_mean") ** 0.5 + 1e-6
    A, B = asvd.factors(W, asvd.spectrum(W, s), 5, fuse)
    torch.testing.assert_close(A.abs(), array(f"linear/A_absA_{fuse}"), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(B.abs(), array(f"linear/B_absB_{fuse}"), rtol=1e-9, atol=1e-11)


def test_outputs_of_the_layer() -> None:
    W, b, X = (array(f"linear/{name}") for name in ("W", "b", "X"))
    s = array("linear/scale_raw_abs_mean") ** 0.5 + 1e-6
    layer = asvd.LowRankLinear.from_factors(*asvd.factors(W, asvd.spectrum(W, s), 5), b)
    torch.testing.assert_close(layer(X), array("linear/y_r0.6"), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("ratio", "rank"), [(0.8, 7), (0.6, 5)])
def test_whitening(ratio: float, rank: int) -> None:
    W, X = array("linear/W"), array("linear/X").flatten(0, -2)
    gram = moments().gram
    assert gram is not None
    found = asvd.spectrum(W, root(gram))
    A, B = asvd.factors(W, found, rank)
    expected = array(f"linear/prod_whiten_r{ratio}")
    torch.testing.assert_close(A @ B, expected, rtol=1e-9, atol=1e-11)
    loss = array(f"linear/whiten_loss_r{ratio}")
    torch.testing.assert_close(
        torch.tensor(found.loss(rank), dtype=torch.float64).sqrt(), loss, rtol=1e-9, atol=0
    )
    torch.testing.assert_close(((A @ B - W) @ X.T).norm(), loss, rtol=1e-8, atol=0)


def test_output_errors_are_ordered() -> None:
    """Plain, then the diagonal transforms, then the exact one: the paper's claim in the small."""
    W, X = array("linear/W"), array("linear/X").flatten(0, -2)
    raw, gram = array("linear/scale_raw_abs_mean"), moments().gram
    assert gram is not None
    transforms = {
        "plain": None,
        "abs_mean_a0.5": raw**0.5 + 1e-6,
        "abs_mean_a1.0": raw + 1e-6,
        "whiten": root(gram),
    }
    errors = {}
    for name, S in transforms.items():
        A, B = asvd.factors(W, asvd.spectrum(W, S), 5)
        errors[name] = ((A @ B - W) @ X.T).norm()
        expected = array(f"linear/outerr_{name}_r0.6")
        torch.testing.assert_close(errors[name], expected, rtol=1e-8, atol=0)
    values = list(errors.values())
    assert values == sorted(values, reverse=True)


def test_ranks() -> None:
    for m, n, ratio, align, rank in array("ranks").tolist():
        ours = asvd.rank_for_ratio(int(m), int(n), ratio, int(align))
        # The official code lets rounding up exceed the matrix.
        assert ours == min(int(rank), int(m), int(n))


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
def test_rounding_to_nearest(bits: int) -> None:
    found = asvd.quantize(array("rtn/w"), bits)
    torch.testing.assert_close(found.scale, array(f"rtn/scale{bits}"), rtol=1e-14, atol=0)
    torch.testing.assert_close(found.zero, array(f"rtn/zero{bits}"), rtol=0, atol=0)
    torch.testing.assert_close(found.dequantize(), array(f"rtn/wq{bits}"), rtol=1e-13, atol=1e-15)


class Block(nn.Module):
    def __init__(self, width: int = 16, inner: int = 40) -> None:
        super().__init__()
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, h: Tensor) -> Tensor:
        position = torch.arange(1, h.shape[1] + 1, dtype=h.dtype)[:, None]
        context = torch.cumsum(torch.tanh(self.k_proj(h)) * self.v_proj(h), 1) / position
        return h + self.down(torch.relu(self.up(context)))


class Toy(nn.Module):
    """The toy language model of the official run."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(17, 16)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(16, 17, bias=False)

    def forward(self, ids: Tensor) -> SimpleNamespace:
        h = self.emb(ids)
        for block in self.blocks:
            h = block(h)
        return SimpleNamespace(logits=self.lm_head(h))


@pytest.fixture
def toy() -> Toy:
    model = Toy().double().eval()
    prefix = "strs/param."
    model.load_state_dict(
        {name.removeprefix(prefix): array(name) for name in GOLDEN if name.startswith(prefix)}
    )
    return model


def batches() -> list[Tensor]:
    # The official loop calls the model on all tokens but the last.
    return [row[None] for row in array("strs/ids")]


NAMES = [str(name) for name in GOLDEN["strs/names"]]


def weight(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight").detach()


def shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: (len(W := weight(model, name)), W.shape[1]) for name in NAMES}


def official_sensitivity() -> dict[str, dict[float, float]]:
    ratios = GOLDEN["strs/sens_ratios"].tolist()
    rows = GOLDEN["strs/sens_ppl"].tolist()
    return {
        name: dict(zip(ratios, row, strict=True)) for name, row in zip(NAMES, rows, strict=True)
    }


def test_perplexity_of_the_dense_model(toy: Toy) -> None:
    assert perplexity(toy, batches()) == pytest.approx(float(GOLDEN["strs/base_ppl"]), rel=1e-6)


def test_sensitivities(toy: Toy) -> None:
    def spectrum_of(name: str) -> asvd.Spectrum:
        s = array(f"strs/scale_raw.{name}") ** 0.5 + 1e-6
        return asvd.spectrum(weight(toy, name), s)

    ratios = GOLDEN["strs/sens_ratios"].tolist()
    ours = perplexity_sensitivity(
        toy, shapes(toy), spectrum_of, lambda _layer: perplexity(toy, batches()), ratios
    )
    table = torch.tensor([[ours[name][ratio] for ratio in ratios] for name in NAMES])
    torch.testing.assert_close(table.double(), array("strs/sens_ppl"), rtol=2e-6, atol=0)


def test_stable_ranks(toy: Toy) -> None:
    ratios = GOLDEN["strs/sr_ratios"].tolist()
    ours = stable_rank_sensitivity(toy, NAMES, ratios)
    table = torch.tensor([[ours[name][ratio] for ratio in ratios] for name in NAMES])
    torch.testing.assert_close(table.double(), array("strs/sens_stable_rank"), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("target", "position", "ratio"),
    [
        (0.95, 53, 0.9004),
        (0.9, 51, 0.8722),
        (0.8, 47, 0.7585),
        (0.7, 39, 0.6589),
        (0.6, 29, 0.5992),
    ],
)
def test_search_by_nominal_ratio(toy: Toy, target: float, position: int, ratio: float) -> None:
    ranked = asvd.RankList(official_sensitivity(), shapes(toy))
    cut = ranked.for_ratio(target, realised=False)
    assert cut.position == position
    assert ranked.nominal(cut) == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize(
    ("target", "position", "ratio"),
    [(0.95, 53, 0.8921), (0.8, 47, 0.7394), (0.7, 39, 0.6273), (0.6, 35, 0.5983), (0.5, 24, 0.48)],
)
def test_search_by_realised_ratio(toy: Toy, target: float, position: int, ratio: float) -> None:
    ranked = asvd.RankList(official_sensitivity(), shapes(toy))
    cut = ranked.for_ratio(target)
    assert cut.position == position
    assert ranked.allocation(cut).ratio == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize("target", [0.95, 0.9, 0.8, 0.7, 0.6, 0.5])
def test_where_the_official_search_stops(toy: Toy, target: float) -> None:
    """Its last probe; kept only so that published ranks can be reproduced."""
    ranked = asvd.RankList(official_sensitivity(), shapes(toy))
    ratios = ranked.parity_cut(target).ratios
    ranks = []
    for name in NAMES:
        m, n = shapes(toy)[name]
        ratio = ratios[name]
        ranks.append(-1 if ratio is None else asvd.rank_for_ratio(m, n, ratio))
    assert ranks == GOLDEN[f"strs/strs_ranks_ratio{target}"].tolist()


def test_uniform_realises_its_ranks(toy: Toy) -> None:
    plan = uniform(shapes(toy), 0.6)
    assert plan.ratio <= 0.6
    assert all(rank is not None for rank in plan.ranks.values())
