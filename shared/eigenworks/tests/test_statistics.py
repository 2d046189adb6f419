"""Intervals against SciPy."""

import pytest
from eigenworks.statistics import Interval, student, student_quantile, wilson
from scipy import stats


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100])
@pytest.mark.parametrize("p", [0.025, 0.4, 0.5, 0.9, 0.975, 0.995])
def test_student_quantile_is_scipys(degrees: int, p: float) -> None:
    expected = stats.t.ppf(p, degrees)
    assert student_quantile(p, degrees) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("values", [(1.0, 2.0), (93.1, 92.7, 93.4, 90.0), tuple(range(10))])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_interval_is_scipys(values: tuple[float, ...], level: float) -> None:
    mean = sum(values) / len(values)
    low, high = stats.t.interval(level, len(values) - 1, mean, stats.sem(values))
    found = student(values, level=level)
    assert found is not None
    assert found.low == pytest.approx(low, rel=1e-12)
    assert found.high == pytest.approx(high, rel=1e-12)
    assert found.kind == f"{100 * level:g} % t over {len(values)} seeds"


@pytest.mark.parametrize("values", [(), (3.0,)])
def test_one_seed_has_no_interval(values: tuple[float, ...]) -> None:
    assert student(values) is None


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (5, 5), (1, 2), (547, 720), (719, 720)])
def test_wilson_is_scipys(hits: int, of: int) -> None:
    expected = stats.binomtest(hits, of).proportion_ci(method="wilson")
    found = wilson(hits, of, scale=100, of="windows")
    assert found.low == pytest.approx(100 * expected.low, rel=1e-12, abs=1e-12)
    assert found.high == pytest.approx(100 * expected.high, rel=1e-12)
    assert found.kind == f"95 % Wilson, {of} windows"


@pytest.mark.parametrize(("hits", "of"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(hits: int, of: int) -> None:
    with pytest.raises(ValueError, match=f"got {hits} of {of}"):
        wilson(hits, of)


@pytest.mark.parametrize(("p", "degrees"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_quantile_refuses_what_has_none(p: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="0 < p < 1 and degrees >= 1"):
        student_quantile(p, degrees)


def test_interval_has_its_ends_in_order() -> None:
    with pytest.raises(ValueError, match=r"low <= high, got 2.0 and 1.0"):
        Interval(2, 1, "")
