"""What every member has, and the graph of who needs whom."""

import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import changelog
from process import ToolError
from workspace import (
    ROOT,
    dependants_of,
    dependencies_of,
    lower_bound,
    read_workspace,
    requirements_between,
    select,
)

MEMBERS = read_workspace()


@pytest.mark.parametrize("name", MEMBERS)
def test_member_has_the_five_things(name):
    folder = MEMBERS[name].folder
    for entry in ("src", "tests", "benchmarks"):
        assert (folder / entry).is_dir()
    for entry in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        assert (folder / entry).is_file()
    assert (folder / "src" / MEMBERS[name].import_name / "py.typed").is_file()
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", MEMBERS)
def test_benchmarks_take_what_the_command_passes(name):
    """`eigenworks bench` runs every script with --out, and with --quick if so asked."""
    for script in sorted((MEMBERS[name].folder / "benchmarks").glob("*.py")):
        text = script.read_text("utf-8")
        shared = "from eigenworks.timing import" in text and "arguments(" in text
        assert shared or ('"--out"' in text and '"--quick"' in text), script


@pytest.mark.parametrize("name", MEMBERS)
def test_changelog_is_in_its_format_and_at_the_version(name):
    member = MEMBERS[name]
    newest = changelog.parse(member.changelog.read_text("utf-8"), name)[0]
    assert newest.version == member.version


def test_root_depends_on_every_member():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert named == set(MEMBERS)


def test_lock_has_the_versions_of_the_members():
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    locked = {package["name"]: package.get("version") for package in packages}
    assert {name: locked[name] for name in MEMBERS} == {
        name: str(member.version) for name, member in MEMBERS.items()
    }


@pytest.mark.parametrize("name", MEMBERS)
def test_requirements_between_members_have_both_bounds_and_admit_the_present_version(name):
    for other in MEMBERS.values():
        for requirement in requirements_between(MEMBERS[name], other, extras=True):
            assert lower_bound(requirement) <= other.version
            assert requirement.specifier.contains(other.version)
            assert any(spec.operator in {"<", "<=", "=="} for spec in requirement.specifier)


def test_graph_follows_requirements_through_others():
    assert list(dependencies_of(MEMBERS, "liebn")) == ["linalg-kernels", "spd-metrics"]
    assert "eigenworks" in dependencies_of(MEMBERS, "liebn", extras=True)
    assert dependencies_of(MEMBERS, "linalg-kernels") == {}
    assert list(dependants_of(MEMBERS, "potential-flows")) == ["chemflow", "flowfactor"]
    assert dependants_of(MEMBERS, "rmlr", extras=True) == {}
    # liebn would need it through spd-metrics even if it did not declare it.
    assert set(dependants_of(MEMBERS, "linalg-kernels")) == set(MEMBERS) - {
        "linalg-kernels",
        "eigenworks",
    }


def test_select_names_what_it_does_not_know():
    assert [member.name for member in select(MEMBERS, ["GCP_Riemann"])] == ["gcp-riemann"]
    assert select(MEMBERS, []) == list(MEMBERS.values())
    with pytest.raises(ToolError, match="'lieban' is no member of the workspace: asvd, chemflow"):
        select(MEMBERS, ["lieban"])


@pytest.mark.parametrize(
    ("text", "version"),
    [("a>=0.1.0,<0.2", "0.1.0"), ("a~=1.2.3", "1.2.3"), ("a==2.0", "2.0"), ("a>=1,>=2", "2")],
)
def test_lower_bound(text, version):
    assert lower_bound(Requirement(text)) == Version(version)


def test_lower_bound_refuses_a_range_without_one():
    with pytest.raises(ToolError, match="'a<2' declares no lower bound"):
        lower_bound(Requirement("a<2"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_no_large_file_is_kept():
    """What a run or a tutorial has written is soon added by mistake, and stays in the history."""
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in told.stdout.decode().split("\0") if name]
    large = [file for file in files if file.is_file() and file.stat().st_size > 4 * 2**20]
    assert not large
