"""The files of .github and CITATION.cff: valid, safe, and calling scripts that exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from distribution import NATIVE_PLATFORMS
from workspace import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def program(name):
    return str(Path(sys.executable).with_name(name))


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        (
            "vendor.github-issue-forms",
            [path for path in (GITHUB / "ISSUE_TEMPLATE").iterdir() if path.name != "config.yml"],
        ),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schema(schema, files):
    assert files
    result = run(program("check-jsonschema"), "--builtin-schema", schema, *map(str, files))
    assert result.returncode == 0, result.stdout + result.stderr


def test_zizmor_finds_nothing():
    result = run(program("zizmor"), "--offline", "--persona=pedantic", ".")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_and_files_that_a_workflow_names_exist(workflow):
    named = re.findall(r"(?:scripts|\.github)/[\w./-]+\.\w+", workflow.read_text("utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_python_that_is_supported_is_tested():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert SpecifierSet(declared["requires-python"]).contains(PYTHONS[0])
    matrix = re.search(r"python: \[(.*)\]", (GITHUB / "workflows" / "ci.yml").read_text("utf-8"))
    assert matrix is not None
    assert tuple(re.findall(r"[\d.]+", matrix[1])) == PYTHONS


def test_every_platform_that_is_promised_is_built():
    text = (GITHUB / "workflows" / "release.yml").read_text("utf-8")
    built = set(re.findall(r"platform: ([\w-]+)", text))
    assert built == {f"{start}-{end}" for start, end in NATIVE_PLATFORMS.values()}
