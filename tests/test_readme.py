"""The READMEs say what is so: their examples run, their commands work on a fresh clone."""

import os
import subprocess

import pytest

from process import empty_environment
from readme import blocks, commands, first_example
from repository import clone
from workspace import ROOT, read_workspace

MEMBERS = read_workspace()
README = (ROOT / "README.md").read_text("utf-8")
MAIN_COMMANDS = {
    last: [line for line in commands(README) if line.endswith(f"uv run {last}")]
    for last in ("eigenworks run", "pytest")
}


def test_blocks_and_commands():
    text = "# a\n```python\nx = 1\n```\n\n```sh\n# why\n$ uv sync\n\nuv run pytest\n```\n"
    text += "```\nno\n```\n"
    assert blocks(text, "python") == ["x = 1\n"]
    assert first_example(text) == "x = 1\n"
    assert first_example("none") is None
    assert commands(text) == ["uv sync", "uv run pytest"]


@pytest.mark.parametrize("name", MEMBERS)
def test_first_example_runs(name, tmp_path, monkeypatch):
    example = first_example(MEMBERS[name].readme.read_text("utf-8"))
    if example is None:
        pytest.skip("no example yet")
    monkeypatch.chdir(tmp_path)
    file = f"{name}/README.md"
    exec(compile(example, file, "exec"), {"__name__": "__main__"})


def test_root_names_every_member():
    missing = [name for name in MEMBERS if f"`{name}`" not in README and f"[{name}]" not in README]
    assert not missing


@pytest.mark.parametrize("last", MAIN_COMMANDS)
def test_root_has_each_command_once(last):
    assert len(MAIN_COMMANDS[last]) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("last", MAIN_COMMANDS)
def test_command_does_everything_on_a_fresh_clone(last, tmp_path):
    fresh = clone(ROOT, tmp_path / "clone")
    (command,) = MAIN_COMMANDS[last]
    result = subprocess.run(
        command,
        shell=True,
        cwd=fresh,
        env=empty_environment({"PATH": os.environ["PATH"]}),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert result.returncode == 0
