"""A release holds together, and the sentence for each way it may not.

The repository is a small one, made here: `down` and `up`, which needs `down>=0.1.0,<0.2`.
"""

import datetime
import subprocess

import pytest
from packaging.version import Version

import release
from agreement import check, parse_tag, prepare
from process import ToolError
from rehearsal import admits, bound_on, third_party
from repository import clone, commit_and_tag, tags, worktree
from workspace import read_workspace

DAY = datetime.date(2026, 11, 22)
ROOT_TABLE = """[project]
name = "house"
version = "0"
requires-python = ">=3.11"
dependencies = ["down", "up"]

[tool.uv]
package = false

[tool.uv.workspace]
members = ["packages/*"]

[tool.uv.sources]
down = { workspace = true }
up = { workspace = true }
"""
MEMBER = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = {dependencies}
"""


@pytest.fixture
def house(tmp_path):
    root = tmp_path / "house"
    for name, dependencies in (("down", "[]"), ("up", '["down>=0.1.0,<0.2"]')):
        folder = root / "packages" / name
        folder.mkdir(parents=True)
        declaration = MEMBER.format(name=name, dependencies=dependencies)
        (folder / "pyproject.toml").write_text(declaration)
        changelog = f"# Changelog of {name}\n\n## 0.1.0 (unreleased)\n\n- First version.\n"
        (folder / "CHANGELOG.md").write_text(changelog)
    (root / "pyproject.toml").write_text(ROOT_TABLE)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    commit_and_tag(root, "one", "start")
    return root


def edit(root, file, old, new):
    path = root / "packages" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_parse_tag():
    members = read_workspace()
    member, version = parse_tag("gcp-riemann-v1.2.3", members)
    assert (member.name, version) == ("gcp-riemann", Version("1.2.3"))
    assert parse_tag("liebn-v0.2.0rc1", members)[1] == Version("0.2.0rc1")


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("v0.1.0", "expected NAME-vX.Y.Z, NAME one of asvd"),
        ("lieban-v0.1.0", "expected NAME-vX.Y.Z, NAME one of asvd"),
        ("liebn-0.1.0", "expected NAME-vX.Y.Z, NAME one of asvd"),
        ("liebn-v0.1", "expected a version such as 0.1.0 or 0.2.0rc1, got '0.1'"),
        ("liebn-v0.1.0-rc1", "got '0.1.0-rc1'"),
        ("liebn-v01.1.0", "got '01.1.0'"),
        ("liebn-v0.1.0+cpu", "got '0.1.0\\+cpu'"),
        ("liebn-vnext", "got 'next'"),
    ],
)
def test_parse_tag_refuses(tag, message):
    with pytest.raises(ToolError, match=message):
        parse_tag(tag, read_workspace())


def test_prepare_then_check(house):
    subprocess.run(["uv", "lock", "--quiet"], cwd=house, check=True)
    assert 'name = "down"\nversion = "0.1.0"' in (house / "uv.lock").read_text()
    prepare(house, "down-v0.1.1", DAY)
    section = check(house, "down-v0.1.1")
    assert (section.version, section.date) == (Version("0.1.1"), DAY)
    assert read_workspace(house)["down"].version == Version("0.1.1")
    # The lock follows, else `uv sync --locked` would refuse the release commit.
    assert 'name = "down"\nversion = "0.1.1"' in (house / "uv.lock").read_text()


def test_prepare_refuses_an_older_version(house):
    with pytest.raises(ToolError, match=r"down is at 0.1.0 already"):
        prepare(house, "down-v0.0.9", DAY)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("down/pyproject.toml", '"0.1.0"', '"0.1.1"', "pyproject.toml of down says 0.1.1"),
        ("down/CHANGELOG.md", "0.1.0", "0.0.9", "the changelog's newest version is 0.0.9"),
        ("down/CHANGELOG.md", str(DAY), "unreleased", "calls 0.1.0 unreleased"),
    ],
)
def test_check_refuses_what_does_not_agree(house, file, old, new, message):
    edit(house, "down/CHANGELOG.md", "unreleased", str(DAY))
    assert check(house, "down-v0.1.0").version == Version("0.1.0")
    edit(house, file, old, new)
    with pytest.raises(ToolError, match=message):
        check(house, "down-v0.1.0")


def test_check_wants_the_lower_bounds_released(house):
    edit(house, "up/CHANGELOG.md", "unreleased", str(DAY))
    with pytest.raises(ToolError, match=r"there is no tag down-v0.1.0: release down first"):
        check(house, "up-v0.1.0")
    commit_and_tag(house, "two", "down-v0.1.0")
    assert check(house, "up-v0.1.0").version == Version("0.1.0")
    edit(house, "down/pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    with pytest.raises(ToolError, match=r"declares 'down<0.2,>=0.1.0', and the workspace has down"):
        check(house, "up-v0.1.0")


def test_bounds_count_what_comes_through_others(house):
    folder = house / "packages" / "top"
    folder.mkdir()
    declaration = MEMBER.format(name="top", dependencies='["up>=0.1.0", "down>=0.1.2", "x>=1"]')
    (folder / "pyproject.toml").write_text(declaration)
    members = read_workspace(house)
    down, up, top = members["down"], members["up"], members["top"]
    assert bound_on(up, down, members) == Version("0.1.0")
    assert bound_on(top, down, members) == Version("0.1.2")
    assert admits(top, down, Version("0.1.9"), members)
    assert not admits(top, down, Version("0.2.0"), members)  # by what `up` declares
    assert third_party([top, up], members) == ["x>=1"]


def test_scratch_clone_has_the_commits_and_tags_and_worktrees(house, tmp_path):
    edit(house, "down/CHANGELOG.md", "First version.", "Not committed.")
    copy = clone(house, tmp_path / "copy")
    assert tags(copy) == {"start"}
    assert "First version." in (copy / "packages/down/CHANGELOG.md").read_text()
    edit(copy, "down/CHANGELOG.md", "First version.", "Second version.")
    commit_and_tag(copy, "two", "second")
    tree = worktree(copy, "start", tmp_path / "tree")
    assert "First version." in (tree / "packages/down/CHANGELOG.md").read_text()
    assert tags(house) == {"start"}


def test_command_prints_one_sentence(capsys):
    assert release.main(["--check", "lieban-v0.1.0"]) == 1
    assert capsys.readouterr().err.startswith("error: tag 'lieban-v0.1.0': expected NAME-vX.Y.Z")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_dry_run(capsys):
    version = read_workspace()["linalg-kernels"].version
    assert release.main(["--dry-run", f"linalg-kernels-v{version}"]) == 0
    printed = capsys.readouterr().out
    wheel = f"linalg_kernels-{version}-py3-none-"
    assert f"installed linalg-kernels {version} from {wheel}" in printed
    assert "upgrade linalg-kernels alone" in printed
