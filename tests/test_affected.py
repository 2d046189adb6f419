"""Which members a change reaches."""

import subprocess
import sys

import pytest

from affected import affected
from repository import changed_files
from workspace import ROOT, read_workspace

MEMBERS = read_workspace()


def names(*files):
    return {member.name for member in affected(files, MEMBERS)}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("packages/liebn/src/liebn/batch_norm.py", {"liebn"}),
        ("packages/liebn/pyproject.toml", {"liebn"}),
        (
            "packages/spd-metrics/src/spd_metrics/mean.py",
            {"spd-metrics", "liebn", "rmlr", "gcp-riemann"},
        ),
        (
            "shared/potential-flows/tests/test_steppers.py",
            {"potential-flows", "chemflow", "flowfactor"},
        ),
        (
            "shared/linalg-kernels/src/linalg_kernels/native/simd.hpp",
            set(MEMBERS) - {"eigenworks"},
        ),
        ("shared/linalg-kernels/README.md", {"linalg-kernels"}),
        ("README.md", set()),
        ("docs/release.md", set()),
        ("CITATION.cff", set()),
        ("uv.lock", set(MEMBERS)),
        ("pyproject.toml", set(MEMBERS)),
        ("scripts/affected.py", set(MEMBERS)),
        (".github/workflows/ci.yml", set(MEMBERS)),
        ("packages/new-paper/pyproject.toml", set(MEMBERS)),
    ],
)
def test_one_file(file, expected):
    assert names(file) == expected


def test_eigenworks_reaches_all_that_have_experiments():
    having = {name for name, member in MEMBERS.items() if "experiments" in member.extras}
    assert names("shared/eigenworks/src/eigenworks/experiment.py") == having | {"eigenworks"}


def test_several_files_add_up():
    files = ("packages/asvd/README.md", "packages/rmlr/tests/test_mlr.py", "README.md")
    assert names(*files) == {"asvd", "rmlr"}


def test_nothing_and_the_unknown():
    assert names() == set()
    assert affected(None, MEMBERS) == list(MEMBERS.values())


def test_changed_files_of_a_branch(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    (tmp_path / "old").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    git("switch", "-c", "branch")
    (tmp_path / "new").write_text("2")
    git("add", ".")
    git("commit", "-m", "two")
    assert changed_files(tmp_path, "main", "branch") == ["new"]
    assert changed_files(tmp_path, "branch", "main") == []
    assert changed_files(tmp_path, "0" * 40, "branch") is None


def test_command_writes_outputs_of_a_workflow(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    command = [sys.executable, ROOT / "scripts" / "affected.py", "--base", "0" * 40]
    printed = subprocess.run(
        [*command, "--github-output"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == list(MEMBERS)
    outputs = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert outputs["members"].split() == list(MEMBERS)
    assert all((ROOT / folder).is_dir() for folder in outputs["tests"].split())
    assert outputs["native"] == "true"
