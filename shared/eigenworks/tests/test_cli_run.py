"""`eigenworks run` on small packages: what is run, kept, reported, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eigenworks.cli import app
from typer.testing import CliRunner, Result

OUT = "report"

COUNTED = """
def run(trial):
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{trial.seed}\\n")
    yield Row("a", "accuracy", 90 + trial.seed, "%", "higher")

one = Experiment("demo/one", "One", CLAIM, run, Size(0.1, (0, 1, 2)), Size(0.1, (0, 1, 2, 3)))
"""

FAILING = """
def run(trial):
    if trial.seed == 1 and not Path("mended").exists():
        raise ValueError("seed one diverged")
    yield Row("a", "accuracy", 90 + trial.seed, "%", "higher")

bad = Experiment("demo/bad", "Bad", CLAIM, run, Size(0.1, (0, 1, 2)), Size(0.1, (0, 1, 2)))
good = Experiment("demo/good", "Good", CLAIM, run, Size(0.1), Size(0.1))
"""

SKIPPED = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Absent:
    name: str = "HDM05"
    how: str = "pip install hdm05"
    licence: str = "none"
    citation: str = "none"
    def available(self): return Path("here").exists()
    def load(self): raise AssertionError("nobody may load what is not there")

def run(trial):
    yield Row("a", "accuracy", 1)

absent = Experiment("demo/absent", "Absent", CLAIM, run, Size(0.1), Size(0.1), data=(Absent(),))
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
    return json.loads(Path(OUT, "report.json").read_text())


def calls() -> list[str]:
    return Path("calls.txt").read_text().split()


def test_run_measures_and_reports(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    ended = eigenworks("run")
    assert ended.exit_code == 0, ended.output
    assert calls() == ["0", "1", "2"]
    (result,) = report()["experiments"]
    assert result["status"] == "done"
    assert result["measured"][0]["mean"] == 91
    assert "91.0 ± 2.5 %" in ended.output
    assert "quick: not a claim" in ended.output
    assert "95 % t over 3 seeds" in ended.output
    for page in ("index.html", "demo.html"):
        assert "It works." in Path(OUT, page).read_text()


def test_rerun_skips_what_is_done(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    eigenworks("run")
    ended = eigenworks("run")
    assert calls() == ["0", "1", "2"]
    assert "3 results of an earlier run kept" in ended.output
    assert "91.0 ± 2.5 %" in ended.output


def test_more_seeds_run_only_the_new_ones(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    eigenworks("run")
    eigenworks("run", "--seeds", "5")
    assert calls() == ["0", "1", "2", "3", "4"]
    eigenworks("run", "--seeds", "9,")
    assert calls()[5:] == ["9"]
    assert [list(e["measured"][0]["values"]) for e in report()["experiments"]] == [["9"]]


@pytest.mark.parametrize(
    ("old", "new", "version"),
    [
        ("CLAIM, run, Size(0.1, (0, 1, 2))", "CLAIM, run, Size(0.1, (0, 1, 2), {'n': 1})", "1.0"),
        ("(0, 1, 2, 3))", "(0, 1, 2, 3)), version=2", "1.0"),
        ("One", "Two", "1.1"),
    ],
    ids=["parameters", "version", "release"],
)
def test_another_question_is_run_again(offer: Callable[..., Path], old, new, version) -> None:
    offer(COUNTED, "one")
    eigenworks("run")
    offer(COUNTED.replace(old, new), "one", version=version)
    ended = eigenworks("run")
    assert ended.exit_code == 0, ended.output
    assert calls() == ["0", "1", "2"] * 2


def test_broken_file_is_named_and_run_again(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    eigenworks("run")
    path = Path(OUT, "units", "demo", "one", "quick-seed1.json")
    path.write_text(path.read_text()[:100])
    ended = eigenworks("run")
    assert "quick-seed1.json is not a whole result" in ended.output
    assert calls() == ["0", "1", "2", "1"]


def test_quick_and_full_stand_side_by_side(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    eigenworks("run")
    ended = eigenworks("run", "--full")
    assert "quick" not in ended.output
    assert [(e["size"], len(e["seeds"])) for e in report()["experiments"]] == [
        ("quick", 3),
        ("full", 4),
    ]


def test_failure_is_red_and_the_rest_goes_on(offer: Callable[..., Path]) -> None:
    offer(FAILING, "bad", "good")
    ended = eigenworks("run")
    assert ended.exit_code == 1
    bad, good = report()["experiments"]
    assert (bad["status"], good["status"]) == ("failed", "done")
    assert bad["reason"] == "seed 1 of 3: ValueError: seed one diverged"
    assert 'raise ValueError("seed one diverged")' in bad["units"][1]["traceback"]
    assert list(bad["measured"][0]["values"]) == ["0", "2"]
    assert "ValueError: seed one diverged" in ended.output


def test_several_experiments_end_with_one_table(offer: Callable[..., Path]) -> None:
    offer(FAILING, "bad", "good")
    table = eigenworks("run").output.partition("paper and claim")[2]
    lines = [line for line in table.splitlines() if "demo/" in line]
    assert len(lines) == 2
    for line, words in zip(lines, ("91 ± 13 %", "90 %"), strict=True):
        assert "It works." in line
        assert words.split()[0] in line
    assert "failed" in table
    assert "quick" in table


def test_only_failed_runs_the_red_ones(offer: Callable[..., Path]) -> None:
    offer(FAILING, "bad", "good")
    eigenworks("run", "--only-failed", "--seeds", "5")
    assert not Path(OUT, "units").exists()
    eigenworks("run")
    before = {p: p.stat().st_mtime_ns for p in Path(OUT, "units").rglob("*.json")}
    Path("mended").touch()
    ended = eigenworks("run", "--only-failed")
    assert ended.exit_code == 0, ended.output
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {"quick-seed1.json"}
    ended = eigenworks("run", "--only-failed")
    assert ended.exit_code == 0
    assert "Nothing that failed" in ended.output


def test_only_failed_runs_nothing_where_nothing_was_run(offer: Callable[..., Path]) -> None:
    offer(COUNTED, "one")
    ended = eigenworks("run", "--only-failed")
    assert ended.exit_code == 0
    assert not Path("calls.txt").exists()


def test_absent_data_is_skipped_with_what_to_do(offer: Callable[..., Path]) -> None:
    offer(SKIPPED, "absent")
    ended = eigenworks("run")
    assert ended.exit_code == 0
    (result,) = report()["experiments"]
    assert result["status"] == "skipped"
    assert result["reason"] == "HDM05: pip install hdm05"
    Path("here").touch()
    eigenworks("run")
    assert report()["experiments"][0]["status"] == "done"


def test_broken_entry_point_is_red_and_the_rest_goes_on(offer: Callable[..., Path]) -> None:
    offer(
        COUNTED,
        "one",
        gone="no_such_module:experiment",
        number="demo_module:HEADLESS",
        path="demo_module:Path",
        other="demo_module:one",
    )
    ended = eigenworks("run")
    assert ended.exit_code == 1
    states = {e["name"]: (e["status"], e["reason"]) for e in report()["experiments"]}
    assert states["demo/one"] == ("done", "")
    assert "No module named 'no_such_module'" in states["demo/gone"][1]
    assert "HEADLESS" in states["demo/number"][1]
    assert "must be an eigenworks.Experiment, got type" in states["demo/path"][1]
    assert "holds an experiment named 'demo/one'" in states["demo/other"][1]
    assert {s for s, _ in states.values()} == {"done", "failed"}


def test_names_select(offer: Callable[..., Path]) -> None:
    offer(FAILING, "bad", "good")
    assert eigenworks("run", "demo/good").exit_code == 0
    assert [e["name"] for e in report()["experiments"]] == ["demo/good"]
    eigenworks("run", "demo")
    assert [e["name"] for e in report()["experiments"]] == ["demo/bad", "demo/good"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("demo/god", "did you mean demo/good"), ("zzz", "there is demo, demo/bad, demo/good")],
)
def test_unknown_name_is_a_sentence(offer: Callable[..., Path], name: str, message: str) -> None:
    offer(FAILING, "bad", "good")
    ended = eigenworks("run", name)
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert not Path(OUT).exists()


def test_nothing_installed_is_a_sentence(site: Path) -> None:
    assert site.is_dir()
    for command in ("run", "list"):
        ended = eigenworks(command)
        assert ended.exit_code == 2
        assert "no installed package offers an experiment" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "x"), "--seeds must be a number of seeds (5) or a list (0,3,7), got 'x'"),
        (("--seeds", "0"), "at least one seed"),
        (("--seeds", "1,1"), "each only once"),
        (("--out", "a-file"), "--out must be a folder, got the file a-file"),
    ],
)
def test_wrong_argument_is_a_sentence(offer: Callable[..., Path], arguments, message) -> None:
    offer(COUNTED, "one")
    Path("a-file").touch()
    ended = eigenworks("run", *arguments)
    assert ended.exit_code == 2
    assert message in ended.stderr


def test_list_shows_claim_data_and_what_is_broken(offer: Callable[..., Path]) -> None:
    offer(SKIPPED, "absent", gone="no_such_module:experiment")
    ended = eigenworks("list")
    assert ended.exit_code == 1
    for text in (
        "demo/absent",
        "It works.",
        "HDM05, not here, get it with: pip install hdm05",
        "cannot be imported",
    ):
        assert text in ended.output


def test_interrupt_keeps_what_is_done_and_a_rerun_resumes(offer: Callable[..., Path]) -> None:
    pause = "if trial.seed == 1 and not Path('go').exists(): raise KeyboardInterrupt"
    stopping = COUNTED.replace("    yield", f"    {pause}\n    yield")
    offer(stopping, "one")
    ended = eigenworks("run")
    assert ended.exit_code == 130
    data = report()
    assert data["interrupted"] is True
    assert data["experiments"][0]["status"] == "incomplete"
    assert list(data["experiments"][0]["measured"][0]["values"]) == ["0"]
    assert "interrupted" in Path(OUT, "index.html").read_text()
    Path("go").touch()
    ended = eigenworks("run")
    assert ended.exit_code == 0
    assert calls() == ["0", "1", "1", "2"]
    assert report()["interrupted"] is False


def test_thread_variables_are_set_before_the_experiment_is_imported(
    offer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "7")
    before = torch.get_num_threads()
    offer(
        """
        import os
        SEEN = os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]
        def run(trial):
            yield Row(" ".join(SEEN), "", 1)
        one = Experiment("demo/one", "One", CLAIM, run, Size(0.1), Size(0.1))
        """,
        "one",
    )
    try:
        eigenworks("run", "--threads", "2")
    finally:
        torch.set_num_threads(before)
    assert report()["experiments"][0]["measured"][0]["label"] == "2 2"
    assert report()["machines"][0]["threads"] == 2
