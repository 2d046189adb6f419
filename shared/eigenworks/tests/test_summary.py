"""Verdicts, means over seeds, and the state of an experiment."""

import json
import math
from typing import Literal

import pytest
from eigenworks import Claim, Experiment, Figure, Interval, Row, Size
from eigenworks.experiment import SizeName
from eigenworks.statistics import student
from eigenworks.store import Unit
from eigenworks.summary import run_to_json, summarise, verdict


def unit(
    seed: int,
    value: float,
    status: Literal["done", "failed"] = "done",
    size: SizeName = "full",
) -> Unit:
    rows = (Row("a", "m", value, "%", "higher", Interval(value - 9, value + 9, "own")),)
    return Unit(
        "demo/x", size, seed, 1, "1.0", {}, status, 2.0, "now", {"cpu": "c"},
        rows if status == "done" else (), "" if status == "done" else "ValueError: no\nmore",
    )  # fmt: skip


def experiment(seeds: tuple[int, ...], *figures: Figure) -> Experiment:
    size = Size(1.0, seeds)
    return Experiment("demo/x", "X", Claim("c", "s"), lambda _: [], size, size, figures=figures)


@pytest.mark.parametrize(
    ("mean", "interval", "tolerance", "relation", "expected"),
    [
        (76.17, None, 0.2, "near", "holds"),
        (76.18, None, 0.2, "near", "does not hold"),
        (76.5, (76.1, 76.9), 0.2, "near", "undecided"),
        (76.5, (76.3, 76.7), 0.2, "near", "does not hold"),
        (99.0, None, 0.2, "at least", "holds"),
        (75.0, None, 0.2, "at least", "does not hold"),
        (75.0, None, 0.2, "at most", "holds"),
        (99.0, (70.0, 120.0), 0.2, "at most", "undecided"),
        (76.0, None, None, "near", "not comparable"),
    ],
)
def test_verdict(mean, interval, tolerance, relation, expected) -> None:
    figure = Figure("a", "m", 75.97, "s", tolerance, relation)
    given = None if interval is None else Interval(*interval, "")
    assert verdict(mean, given, figure) == expected


def test_tolerance_is_that_of_the_printed_decimals() -> None:
    """0.47 + 0.2 is a little less than 0.67 in binary."""
    assert verdict(0.67, None, Figure("a", "m", 0.47, "s", 0.2)) == "holds"


def test_mean_and_interval_over_seeds() -> None:
    values = [90.0, 92.0, 94.0]
    result = summarise(
        experiment((0, 1, 2)), "1.0", "full", (0, 1, 2), [unit(s, v) for s, v in enumerate(values)]
    )
    (row,) = result.measured
    assert row.mean == 92.0
    assert row.interval == student(values)
    assert row.values == {0: 90.0, 1: 92.0, 2: 94.0}
    assert (result.status, result.seconds) == ("done", 6.0)


def test_one_seed_keeps_the_interval_of_its_row() -> None:
    result = summarise(experiment((0,)), "1.0", "full", (0,), [unit(0, 90.0)])
    assert result.measured[0].interval == Interval(81, 99, "own")


def test_what_is_not_random_is_judged_without_its_interval() -> None:
    figure = Figure("a", "m", 91.0, "s", 0.2)
    by_seed = summarise(experiment((0,), figure), "1.0", "full", (0,), [unit(0, 90.0)])
    exact = summarise(experiment((), figure), "1.0", "full", (0,), [unit(0, 90.0)])
    assert by_seed.measured[0].verdict == "undecided"
    assert exact.measured[0].verdict == "does not hold"


def test_quick_is_never_a_claim() -> None:
    figure = Figure("a", "m", 90.0, "s", 0.2)
    result = summarise(
        experiment((0,), figure), "1.0", "quick", (0,), [unit(0, 90.0, size="quick")]
    )
    assert result.measured[0].verdict == "quick: not a claim"


def test_one_disagreement_decides_over_several_figures() -> None:
    figures = (Figure("a", "m", 90.0, "s", 1), Figure("a", "m", 70.0, "t", 1))
    result = summarise(experiment((), *figures), "1.0", "full", (0,), [unit(0, 90.0)])
    assert result.measured[0].verdict == "does not hold"


@pytest.mark.parametrize(
    ("units", "skipped", "status", "reason"),
    [
        ([unit(0, 1), unit(1, 1, "failed")], "", "failed", "seed 1 of 2: ValueError: no"),
        ([unit(0, 1)], "", "incomplete", "1 of 2 seeds done"),
        ([], "get it", "skipped", "get it"),
        ([unit(0, 1), unit(1, 2)], "get it", "done", ""),
        ([unit(0, 1, "failed")], "get it", "failed", "ValueError: no"),
    ],
)
def test_status(units, skipped, status, reason) -> None:
    result = summarise(experiment((0, 1)), "1.0", "full", (0, 1), units, skipped)
    assert result.status == status
    assert reason in result.reason


def test_figure_without_a_row_is_shown_as_missing() -> None:
    figure = Figure("b", "m", 1.0, "s")
    result = summarise(experiment((), figure), "1.0", "full", (0,), [unit(0, 1)])
    assert result.missing == (figure,)


def test_json_is_strict_and_keeps_the_numbers() -> None:
    result = summarise(experiment((0, 1)), "1.0", "full", (0, 1), [unit(0, 1 / 3), unit(1, 2)])
    text = json.dumps(
        run_to_json([result], size="full", finished="now", interrupted=False), allow_nan=False
    )
    row = json.loads(text)["experiments"][0]["measured"][0]
    assert row["values"] == {"0": 1 / 3, "1": 2.0}
    assert math.isclose(row["mean"], 7 / 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"value": float("nan")}, "must be finite"), ({"value": 1, "tolerance": -1}, ">= 0, got -1")],
)
def test_figure_refuses_what_is_no_figure(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Figure("a", "m", source="s", **fields)
