"""Allocation against an exhaustive search, and what it promises."""

import itertools
from typing import Any

import asvd
import numpy as np
import pytest
from asvd.allocate import parameters_of
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = {"a": (4, 6), "b": (5, 5), "c": (8, 4)}


def spectra(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {k: np.sort(rng.exponential(size=min(s)) ** 3)[::-1] for k, s in SHAPES.items()}


def best_by_hand(losses: dict[str, np.ndarray], budget: int) -> float:
    choices = []
    for name, (m, n) in SHAPES.items():
        tail = np.append(np.cumsum(losses[name][::-1])[::-1], 0.0)
        options = [(k * (m + n), tail[k]) for k in range(min(m, n) + 1) if k * (m + n) < m * n]
        choices.append([*options, (m * n, 0.0)])
    return min(
        sum(loss for _, loss in pick)
        for pick in itertools.product(*choices)
        if sum(cost for cost, _ in pick) <= budget
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_within_a_step_of_the_best(seed: int, ratio: float) -> None:
    """The convex part is exact; what a whole step more would gain bounds the rest."""
    losses = spectra(seed)
    plan = asvd.allocate(losses, SHAPES, ratio)
    assert plan.ratio <= ratio + 1e-9
    dense = sum(m * n for m, n in SHAPES.values())
    best = best_by_hand(losses, int(ratio * dense + 1e-9 * dense))
    # An optimum of the relaxed problem lies within one layer's dearest step of the exact one.
    steps = [losses[name].sum() for name in SHAPES]
    assert best - 1e-12 <= plan.loss <= best + max(steps)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_more_parameters_never_lose_more(seed: int) -> None:
    losses = spectra(seed)
    plans = [asvd.allocate(losses, SHAPES, ratio) for ratio in (0.2, 0.4, 0.6, 0.8, 1.0)]
    lost = [plan.loss for plan in plans]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(lost))
    assert plans[-1].loss == 0
    assert set(plans[-1].ranks.values()) == {None}


def test_counts_what_it_gives() -> None:
    plan = asvd.allocate(spectra(3), SHAPES, 0.7)
    taken = sum(parameters_of(SHAPES[name], rank) for name, rank in plan.ranks.items())
    assert taken == plan.parameters


def test_budget_is_used_up_where_steps_are_small() -> None:
    rng = np.random.default_rng(0)
    shapes = {str(i): (64, 96) for i in range(20)}
    losses = {name: np.sort(rng.exponential(size=64))[::-1] for name in shapes}
    plan = asvd.allocate(losses, shapes, 0.5)
    assert 0.5 - 160 / plan.dense < plan.ratio <= 0.5


def test_alignment_and_floor() -> None:
    losses = spectra(1)
    plan = asvd.allocate(losses, SHAPES, 0.9, align=2)
    assert all(rank is None or rank % 2 == 0 for rank in plan.ranks.values())
    plan = asvd.allocate(losses, SHAPES, 0.6, least=0.3)
    for name, rank in plan.ranks.items():
        m, n = SHAPES[name]
        assert parameters_of((m, n), rank) >= 0.3 * m * n


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0.0}, r"ratio must lie in \(0, 1\], got 0.0"),
        ({"ratio": 1.5}, "ratio must lie"),
        ({"align": 0}, "align must be >= 1"),
        ({"ratio": 0.1, "least": 0.5}, "ratio must be at least"),
    ],
)
def test_arguments_out_of_range(change: dict, message: str) -> None:
    arguments: Any = {"losses": spectra(0), "shapes": SHAPES, "ratio": 0.5} | change
    with pytest.raises(ValueError, match=message):
        asvd.allocate(**arguments)


def test_isotonic_search_raises_sensitivity_as_ratios_fall() -> None:
    sensitivity = {"a": {0.4: 3.0, 0.6: 1.0, 0.8: 2.0}}
    plain = asvd.RankList(sensitivity, {"a": (10, 10)})
    raised = asvd.RankList(sensitivity, {"a": (10, 10)}, isotonic=True)
    assert {ratio: harm for _, ratio, harm in plain.entries} == sensitivity["a"]
    assert {ratio: harm for _, ratio, harm in raised.entries} == {0.4: 3.0, 0.6: 2.0, 0.8: 2.0}


@pytest.mark.bad_input
def test_search_below_its_smallest_candidate() -> None:
    ranked = asvd.RankList({"a": {0.5: 1.0}}, {"a": (10, 10)})
    with pytest.raises(ValueError, match="ratio must be at least"):
        ranked.for_ratio(0.2)


def test_search_for_a_perplexity() -> None:
    sensitivity = {"a": {0.5: 9.0, 0.9: 1.0}, "b": {0.5: 3.0, 0.9: 2.0}}
    ranked = asvd.RankList(sensitivity, {"a": (20, 20), "b": (20, 20)})
    harm = {0: 9.0, 1: 5.0, 2: 2.5, 3: 1.5, 4: 1.0}
    assert ranked.for_perplexity(2.6, lambda cut: harm[cut.position]).position == 2
    assert ranked.for_perplexity(1.0, lambda cut: harm[cut.position]).position == 4
    with pytest.raises(ValueError, match="that of the dense model"):
        ranked.for_perplexity(0.5, lambda cut: harm[cut.position])
