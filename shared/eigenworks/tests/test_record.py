"""`eigenworks record`: a whole full run is kept with the package, and shown in every report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eigenworks.cli import app
from typer.testing import CliRunner, Result

SOURCE = """
def run(trial):
    if trial.seed == 1 and Path("broken").exists():
        raise ValueError("seed one diverged")
    plot = HeatMap(f"seed {trial.seed}", [[1, 2], [3, 4]])
    yield Row("a", "accuracy", 90 + trial.seed, "%", "higher", plots=(plot,))

one = Experiment("demo/one", "One", CLAIM, run, Size(0.1), Size(0.1, (0, 1, 2)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in a folder of its own; COLUMNS keeps lines whole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def eigenworks(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def report() -> dict[str, Any]:
    return json.loads(Path("report", "report.json").read_text())


def test_a_recorded_run_is_shown_beside_the_quick_one(offer: Callable[..., Path]) -> None:
    site = offer(SOURCE, "one")
    assert eigenworks("run", "--full", "--out", "elsewhere").exit_code == 0
    ended = eigenworks("record", "demo", "--out", "elsewhere")
    assert ended.exit_code == 0, ended.output
    assert (site / "results" / "one.json").is_file()
    assert eigenworks("run").exit_code == 0
    (recorded,) = report()["recorded"]
    assert recorded["measured"][0]["mean"] == 91
    assert [result["size"] for result in report()["experiments"]] == ["quick"]
    page = Path("report", "index.html").read_text()
    assert "full, recorded with the package" in page


def test_plots_are_kept_of_the_first_seed(offer: Callable[..., Path]) -> None:
    site = offer(SOURCE, "one")
    eigenworks("run", "--full")
    eigenworks("record", "demo")
    text = (site / "results" / "one.json").read_text()
    assert "seed 0" in text
    assert "seed 1" not in text
    assert len(text.splitlines()) == 5, "a line for each seed, so that differences can be read"


def test_a_full_run_of_ones_own_replaces_the_recorded_one(offer: Callable[..., Path]) -> None:
    offer(SOURCE, "one")
    eigenworks("run", "--full")
    eigenworks("record", "demo")
    eigenworks("run", "--full")
    assert report()["recorded"] == []


@pytest.mark.parametrize("seeds", ["0,2", "0,1,2"])
def test_what_is_not_whole_is_not_recorded(offer: Callable[..., Path], seeds: str) -> None:
    site = offer(SOURCE, "one")
    Path("broken").touch()
    eigenworks("run", "--full", "--seeds", seeds)
    ended = eigenworks("record", "demo/one")
    assert ended.exit_code == 1
    assert "seed 1" in ended.output
    assert "eigenworks run --full demo/one --out report" in ended.output
    assert not (site / "results").exists()


def test_another_release_keeps_the_record(offer: Callable[..., Path]) -> None:
    offer(SOURCE, "one")
    eigenworks("run", "--full", "--out", "elsewhere")
    eigenworks("record", "demo", "--out", "elsewhere")
    offer(SOURCE, "one", version="2.0")
    eigenworks("run")
    (recorded,) = report()["recorded"]
    assert recorded["release"] == "1.0"


@pytest.mark.parametrize(
    "edit",
    [
        ("run, Size(0.1), Size(0.1, (0, 1, 2))", "run, Size(0.1), Size(0.1, (0, 1, 2)), version=2"),
        ("Size(0.1, (0, 1, 2))", "Size(0.1, (0, 1, 2), {'epochs': 9})"),
        ("Size(0.1, (0, 1, 2))", "Size(0.1, (0, 1, 2, 3))"),
    ],
    ids=["version", "parameters", "seeds"],
)
def test_a_record_of_another_experiment_is_left_out(
    offer: Callable[..., Path], edit: tuple[str, str]
) -> None:
    offer(SOURCE, "one")
    eigenworks("run", "--full", "--out", "elsewhere")
    eigenworks("record", "demo", "--out", "elsewhere")
    offer(SOURCE.replace(*edit), "one")
    ended = eigenworks("run")
    assert ended.exit_code == 0
    assert "run it in full and record it again" in ended.output
    assert report()["recorded"] == []


def test_a_damaged_record_is_named_and_left_out(offer: Callable[..., Path]) -> None:
    site = offer(SOURCE, "one")
    (site / "results").mkdir()
    (site / "results" / "one.json").write_text('{"format": "eigenworks rec')
    ended = eigenworks("run")
    assert ended.exit_code == 0
    assert "one.json is not a whole record" in ended.output
    assert report()["recorded"] == []
