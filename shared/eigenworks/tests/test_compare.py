"""Two files side by side: what counts as worse."""

import json
from pathlib import Path
from typing import Any

import pytest
from eigenworks import Interval
from eigenworks.cli import app
from eigenworks.compare import Entry, judge
from typer.testing import CliRunner, Result


def entry(
    value: float, half: float | None = None, better: str | None = "higher", exact: bool = False
) -> Entry:
    interval = None if half is None else Interval(value - half, value + half, "")
    return Entry(value, interval, "%", better, exact)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (entry(90, 1), entry(90, 2), "same"),
        (entry(90, 1), entry(91.9, 1), "within the intervals"),
        (entry(90, 1), entry(92.1, 1), "better"),
        (entry(90, 1), entry(87.9, 1), "worse"),
        (entry(90, 1, "lower"), entry(92.1, 1, "lower"), "worse"),
        (entry(90, 1, "lower"), entry(87.9, 1, "lower"), "better"),
        (entry(90, 1, None), entry(87.9, 1, None), "changed"),
        (entry(90), entry(80), "one value"),
        (entry(90, 1), entry(80), "one value"),
        (entry(90, exact=True), entry(89.9, exact=True), "worse"),
        (entry(90, exact=True), entry(90 * (1 + 1e-12), exact=True), "same"),
        (entry(90), None, "only in A"),
        (None, entry(90), "only in B"),
    ],
)
def test_judge(a: Entry | None, b: Entry | None, expected: str) -> None:
    assert judge(a, b) == expected


def run_file(path: Path, mean: float, half: float | None, status: str = "done") -> Path:
    interval = None if half is None else {"low": mean - half, "high": mean + half, "kind": "t"}
    row = {
        "label": "LieBN",
        "metric": "accuracy",
        "unit": "%",
        "better": "higher",
        "mean": mean,
        "interval": interval,
        "seeded": True,
    }
    experiment = {"name": "demo/x", "size": "full", "status": status, "measured": [row]}
    path.write_text(json.dumps({"format": "eigenworks run 1", "experiments": [experiment]}))
    return path


def bench_file(path: Path, value: float | None, **fields: Any) -> Path:
    row = {"label": "n=20", "metric": "speed over torch", "value": value, "better": "higher"}
    bench = {"name": "demo/b", "status": "done", "rows": [row | fields]}
    path.write_text(json.dumps({"format": "eigenworks bench 1", "benches": [bench]}))
    return path


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are not wrapped."""
    monkeypatch.setenv("COLUMNS", "200")


def compare(a: Path, b: Path) -> Result:
    return CliRunner().invoke(app, ["compare", str(a), str(b)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("before", "after", "half", "status", "word"),
    [
        (90, 92.1, 1, 0, "better"),
        (90, 87.9, 1, 1, "worse"),
        (90, 88.1, 1, 0, "within the intervals"),
        (90, 80, None, 0, "one value"),
    ],
)
def test_runs(tmp_path: Path, before, after, half, status, word) -> None:
    a = run_file(tmp_path / "a.json", before, half)
    ended = compare(a, run_file(tmp_path / "b.json", after, half))
    assert ended.exit_code == status
    assert word in ended.output
    assert f"{after - before:+.3g}" in ended.output


def test_experiment_that_fails_now_is_worse(tmp_path: Path) -> None:
    a = run_file(tmp_path / "a.json", 90, 1)
    b = run_file(tmp_path / "b.json", 90, 1, status="failed")
    assert compare(a, b).exit_code == 1
    assert "done in A, failed in B" in compare(a, b).output
    assert compare(b, a).exit_code == 0


@pytest.mark.parametrize(
    ("after", "fields", "status"),
    [
        (None, {}, 0),
        (2.0, {"low": 1.9, "high": 2.1}, 1),
        (2.0, {"low": 1.9, "high": 2.95}, 0),
        (2.0, {}, 0),
    ],
)
def test_benches(
    tmp_path: Path, after: float | None, fields: dict[str, float], status: int
) -> None:
    a = bench_file(tmp_path / "a.json", 3.0, low=2.9, high=3.1)
    assert compare(a, bench_file(tmp_path / "b.json", after, **fields)).exit_code == status


def test_equal_rows_are_counted_and_not_listed(tmp_path: Path) -> None:
    a = run_file(tmp_path / "a.json", 90, 1)
    ended = compare(a, a)
    assert ended.exit_code == 0
    assert "1 of 1 rows are the same" in ended.output
    assert "LieBN" not in ended.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "neither a report.json nor a bench.json"),
        ('{"format": "eigenworks bench 1", "benches": []}', "they do not compare"),
        ('{"format": "eigenworks run 1"}', "lacks what its format asks for: KeyError"),
    ],
)
def test_what_does_not_compare_is_a_sentence(tmp_path: Path, text: str | None, message) -> None:
    a, b = run_file(tmp_path / "a.json", 90, 1), tmp_path / "b.json"
    if text is not None:
        b.write_text(text)
    ended = compare(a, b)
    assert ended.exit_code == 2
    assert message in ended.stderr
