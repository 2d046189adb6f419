"""The experiment in the README is found, run and reported as the README says."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from eigenworks.cli import app
from typer.testing import CliRunner

README = Path(__file__).parents[1] / "README.md"


def test_experiment_of_the_readme_runs(
    offer: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    offer(example.replace("my-package", "demo"), edge="demo_module:experiment")
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, ["run", "--full"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    (result,) = json.loads(Path("report", "report.json").read_text())["experiments"]
    (row,) = result["measured"]
    assert row["verdict"] == "holds"
    assert len(row["values"]) == 10


def test_commands_of_the_readme_exist() -> None:
    text = README.read_text("utf-8")
    named = set(re.findall(r"`eigenworks (\w+)", text))
    assert named >= {"list", "run", "bench", "compare"}
    for command in named:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--full", "--seeds", "--out", "--threads", "--only-failed"):
        assert option in text
        assert option in shown
