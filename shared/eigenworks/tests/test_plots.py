"""Plot data: what is accepted, what is refused, the way into JSON and back."""

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from eigenworks.plots import (
    Bars,
    Curve,
    HeatMap,
    Lines,
    Picture,
    Plot,
    plot_from_json,
    plot_to_json,
)
from eigenworks.statistics import Interval
from eigenworks.svg import decades, draw, strip, ticks

LINES = Lines(
    "Loss <b>", "epoch", "loss", (Curve("a", np.arange(3), torch.tensor([1.0, 0.1, 0.01])),), True
)
BARS = Bars("Bars", "accuracy (%)", ("x", "y"), ("ours", "theirs"), [[1, -2], [3.5, 0]])
HEAT = HeatMap("Heat", np.array([[1, 2], [-3, 4]]), ("r & s", "t"), ("u", "v"), "true", "guess")
GREY = Picture("Grey", np.arange(6, dtype=np.uint8).reshape(2, 3))
COLOUR = Picture("Colour", np.full((2, 3, 3), 255))
ALL = pytest.mark.parametrize(
    "plot", [LINES, BARS, HEAT, GREY, COLOUR], ids=lambda plot: plot.title
)


@ALL
def test_plot_survives_json(plot: Plot) -> None:
    text = json.dumps(plot_to_json(plot), allow_nan=False)
    assert plot_from_json(json.loads(text)) == plot


@ALL
def test_drawing_is_well_formed_and_names_itself(plot: Plot) -> None:
    root = ElementTree.fromstring(f"<div>{draw(plot)}</div>")
    labels = {e.get("aria-label") or e.get("alt") for e in root.iter()}
    assert plot.title in labels


def test_drawing_has_no_colour_of_its_own() -> None:
    for plot in (LINES, BARS, HEAT):
        assert 'fill="' not in draw(plot)
        assert 'stroke="' not in draw(plot)


def test_bars_are_as_long_as_their_values() -> None:
    plot = Bars("b", "", ("x", "y"), ("one",), [[2, 4]])
    root = ElementTree.fromstring(draw(plot))
    widths = [float(e.get("width", 0)) for e in root.iter() if "bar" in (e.get("class") or "")]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)


def test_log_axis_puts_decades_at_equal_distances() -> None:
    root = ElementTree.fromstring(draw(LINES).partition("</div>")[2])
    points = [e for e in root.iter() if "point" in (e.get("class") or "")]
    y = [float(e.get("cy", 0)) for e in points]
    assert y[2] - y[1] == pytest.approx(y[1] - y[0], rel=0.01)


def test_strip_puts_equal_values_at_one_place() -> None:
    root = ElementTree.fromstring(strip(5.0, Interval(4, 6, ""), [(5.0, 0.5)], (0.0, 10.0)))
    dot = next(e for e in root.iter() if e.get("class") == "dot")
    mark = next(e for e in root.iter() if e.get("class") == "published")
    assert dot.get("cx") == mark.get("x1") == "100.0"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0.1, 0.3, [0.1, 0.15, 0.2, 0.25, 0.3]), (7, 7, [7])],
)
def test_ticks_are_round_and_cover(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_decades_cover() -> None:
    assert decades(0.02, 3) == pytest.approx([0.01, 0.1, 1, 10])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve("c", [1, 2], [1]), "y of 'c' must hold 2 numbers, as x has, got 1"),
        (lambda: Curve("c", [], []), "x of 'c' must hold at least one number, got 0"),
        (lambda: Curve("c", [1], [float("nan")]), "y of 'c' must be finite, got nan at index 0"),
        (lambda: Curve("c", [1], [1], low=[0]), "low and high of a curve must be given together"),
        (lambda: Lines("t", "x", "y", ()), "curves of 't' must not be empty"),
        (lambda: Lines("t", "x", "y", (Curve("c", [1], [0]),), True), "asks for positive values"),
        (lambda: Bars("t", "", ("a", "b"), ("s",), [[1]]), "grid with 2 columns, got rows of"),
        (lambda: Bars("t", "", ("a",), ("s", "r"), [[1]]), "must have 2 rows, got 1"),
        (lambda: HeatMap("t", [[1, 2], [3]]), r"got rows of \[1, 2\]"),
        (lambda: HeatMap("t", np.zeros((300, 300))), "at most 65536 numbers, got 90000"),
        (lambda: Picture("t", [[0, 256]]), "whole numbers from 0 to 255"),
        (lambda: Picture("t", np.zeros((2, 2, 4))), "1 or 3 channels, got 4"),
        (lambda: Picture("t", [[0, 1], [0]]), r"must be \(height, width\)"),
        (lambda: plot_from_json({"kind": "pie"}), "kind of a plot must be one of .* got 'pie'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
