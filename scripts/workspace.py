"""The members of the workspace: names, versions, folders and who depends on whom.

Read from the members' `pyproject.toml`, so that no list of packages is kept a second time.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from process import ToolError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Member:
    """One package of the workspace, as its `pyproject.toml` declares it."""

    name: str
    version: Version
    folder: Path
    dependencies: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]
    commands: tuple[str, ...]
    """Names of the console scripts."""
    native: bool = False
    """Whether it is built with a native library, by scikit-build-core."""

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def changelog(self) -> Path:
        return self.folder / "CHANGELOG.md"

    @property
    def readme(self) -> Path:
        return self.folder / "README.md"

    @property
    def tests(self) -> Path:
        return self.folder / "tests"


def read_member(folder: Path) -> Member:
    """Read one member's declaration from `folder/pyproject.toml`."""
    declaration = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    project = declaration["project"]
    return Member(
        name=canonicalize_name(project["name"]),
        version=Version(project["version"]),
        folder=folder,
        dependencies=tuple(map(Requirement, project.get("dependencies", ()))),
        extras={
            extra: tuple(map(Requirement, requirements))
            for extra, requirements in project.get("optional-dependencies", {}).items()
        },
        commands=tuple(project.get("scripts", {})),
        native=declaration["build-system"]["build-backend"].startswith("scikit_build_core"),
    )


def read_workspace(root: Path = ROOT) -> dict[str, Member]:
    """Every member of the workspace at `root`, by name, in alphabetical order."""
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["uv"]["workspace"]["members"]
    folders = [
        folder
        for pattern in patterns
        for folder in root.glob(pattern)
        if (folder / "pyproject.toml").is_file()
    ]
    members = [read_member(folder) for folder in folders]
    return {member.name: member for member in sorted(members, key=lambda member: member.name)}


def select(members: Mapping[str, Member], names: Iterable[str]) -> list[Member]:
    """The members called `names`; all of them where `names` is empty.

    Raises:
        ToolError: a name is no member.
    """
    chosen = [canonicalize_name(name) for name in names] or list(members)
    for name in chosen:
        if name not in members:
            raise ToolError(f"{name!r} is no member of the workspace: {', '.join(members)}")
    return [members[name] for name in chosen]


def requirements_between(member: Member, other: Member, *, extras: bool) -> list[Requirement]:
    """The requirements of `member` that name `other`, with those of its extras if asked."""
    declared = list(member.dependencies)
    if extras:
        declared += [req for group in member.extras.values() for req in group]
    return [req for req in declared if canonicalize_name(req.name) == other.name]


def dependencies_of(
    members: Mapping[str, Member], name: str, *, extras: bool = False
) -> dict[str, Member]:
    """The members that `name` needs, directly or through others; without `name` itself."""
    found: dict[str, Member] = {}
    queue = [members[name]]
    while queue:
        member = queue.pop()
        for other in members.values():
            if other.name not in found and requirements_between(member, other, extras=extras):
                found[other.name] = other
                queue.append(other)
    found.pop(name, None)
    return {key: found[key] for key in members if key in found}


def dependants_of(
    members: Mapping[str, Member], name: str, *, extras: bool = False
) -> dict[str, Member]:
    """The members that need `name`, directly or through others; without `name` itself."""
    return {
        other: member
        for other, member in members.items()
        if other != name and name in dependencies_of(members, other, extras=extras)
    }


def lower_bound(requirement: Requirement) -> Version:
    """The least version that `requirement` admits by `>=`, `==` or `~=`.

    Raises:
        ToolError: the requirement has no lower bound, so nobody can test at it.
    """
    bounds = [
        Version(spec.version)
        for spec in requirement.specifier
        if spec.operator in {">=", "==", "~="}
    ]
    if not bounds:
        raise ToolError(
            f"{str(requirement)!r} declares no lower bound; expected `>=X.Y.Z`, "
            "so that the oldest version it promises to work with can be tested"
        )
    return max(bounds)
