"""Numbers as a reader sees them."""

import pytest
from eigenworks.experiment import Figure
from eigenworks.formatting import duration, measured, number, published
from eigenworks.statistics import Interval

FIGURE = Figure("a", "b", 75.97, "somewhere")


@pytest.mark.parametrize(
    ("value", "interval", "unit", "figures", "expected"),
    [
        (75.97222, Interval(75.65, 76.29444, ""), "%", (), "75.97 ± 0.32 %"),
        (75.97222, Interval(72.72, 78.95, ""), "%", (), "76.0 [72.7, 79.0] %"),
        (75.97222, Interval(72.72, 78.95, ""), "%", (FIGURE,), "75.97 [72.72, 78.95] %"),
        (75.97222, None, "%", (), "75.97 %"),
        (75.97222, Interval(75.97222, 75.97222, ""), "%", (), "75.97 %"),
        (48211.0, None, "", (), "48211"),
        (3.34e-5, Interval(3.03e-5, 3.65e-5, ""), "s", (), "(3.34 ± 0.31)e-05 s"),
        (-1.25e-7, None, "", (), "-1.250e-07"),
        (0.0, None, "", (), "0"),
        (0.0, Interval(-0.5, 0.5, ""), "", (), "0.00 ± 0.50"),
        (1234567.0, Interval(1234000.0, 1235134.0, ""), "", (), "(1.23457 ± 0.00057)e+06"),
    ],
)
def test_measured(value, interval, unit, figures, expected) -> None:
    assert measured(value, interval, unit, figures) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.123456, "0.1235"), (81.2, "81.20"), (1e-9, "1.000e-09"), (3.0, "3"), (-2.5, "-2.500")],
)
def test_number(value: float, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (FIGURE, "75.97 %"),
        (Figure("a", "b", 0, "s", 0, "at least"), "≥ 0 %"),
        (Figure("a", "b", 1e-9, "s", relation="at most"), "≤ 1e-09 %"),
    ],
)
def test_published(figure: Figure, expected: str) -> None:
    assert published(figure, "%") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
