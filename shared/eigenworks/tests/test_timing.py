"""What benchmark scripts share."""

from pathlib import Path

import pytest
from eigenworks.bench import read_script_output
from eigenworks.timing import arguments, in_turns, medians, write_rows, write_skipped


def test_calls_take_turns_and_are_timed_by_the_clock() -> None:
    order: list[str] = []
    now = iter(range(100))
    calls = {"ours": lambda: order.append("ours"), "peer": lambda: order.append("peer")}
    taken = in_turns(calls, least=3, clock=lambda: float(next(now)))
    assert order == ["ours", "peer"] * 3
    assert taken == {"ours": [1.0] * 3, "peer": [1.0] * 3}
    assert medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_warm_calls_are_not_timed() -> None:
    count = [0]

    def call() -> None:
        count[0] += 1

    assert len(in_turns({"a": call}, least=2, warm=True)["a"]) == 2
    assert count == [4]


def test_seconds_allow_more_rounds() -> None:
    assert len(in_turns({"a": lambda: None}, 0.01, least=1)["a"]) > 1


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"label": "n=8", "metric": "speed", "value": 2.0}]
    write_rows(path, "How fast?", rows)
    assert read_script_output(path) == ("How fast?", tuple(rows), "")
    write_skipped(path, "How fast?", "there is no GPU")
    assert read_script_output(path) == ("How fast?", (), "there is no GPU")
    write_rows(None, "How fast?", rows)


def test_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments("What?").parse_args(["--out", str(tmp_path), "--quick"])
    assert (given.out, given.quick) == (tmp_path, True)
    assert not arguments(None).parse_args([]).quick
    with pytest.raises(SystemExit):
        arguments("What?").parse_args(["--help"])
    assert "What?" in capsys.readouterr().out
