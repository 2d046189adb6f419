"""What a release promises, held together: its tag, its version, its changelog, its bounds."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version

import changelog
from process import ToolError, run
from repository import tags
from workspace import Member, lower_bound, read_workspace, requirements_between

_VERSION_LINE = re.compile(r'^version = "[^"]*"$', re.MULTILINE)


def parse_tag(tag: str, members: Mapping[str, Member]) -> tuple[Member, Version]:
    """The member and the version that `tag` names.

    Raises:
        ToolError: the tag is not `NAME-vX.Y.Z` with a member's name and a version in its normal
            form.
    """
    name, separator, text = tag.rpartition("-v")
    if not separator or name not in members:
        raise ToolError(f"tag {tag!r}: expected NAME-vX.Y.Z, NAME one of {', '.join(members)}")
    try:
        version = Version(text)
    except InvalidVersion:
        version = None
    if version is None or str(version) != text or len(version.release) != 3 or version.local:
        raise ToolError(f"tag {tag!r}: expected a version such as 0.1.0 or 0.2.0rc1, got {text!r}")
    return members[name], version


def check(root: Path, tag: str) -> changelog.Section:
    """Hold the tag, the version and the changelog of the tree at `root` to one another.

    Returns:
        The section of the changelog that tells of this release.

    Raises:
        ToolError: the version or the newest section of the changelog is another one, or that
            section has no date, or a member that this one needs was never released at the lower
            bound that is declared.
    """
    members = read_workspace(root)
    member, version = parse_tag(tag, members)
    if member.version != version:
        raise ToolError(f"tag {tag!r}: pyproject.toml of {member.name} says {member.version}")
    section = changelog.parse(member.changelog.read_text("utf-8"), member.name)[0]
    if section.version != version:
        raise ToolError(f"tag {tag!r}: the changelog's newest version is {section.version}")
    if section.date is None:
        raise ToolError(f"tag {tag!r}: the changelog calls {version} unreleased; date it")
    released = tags(root)
    for other in members.values():
        for requirement in requirements_between(member, other, extras=True):
            needed = f"{other.name}-v{lower_bound(requirement)}"
            if needed not in released:
                raise ToolError(
                    f"tag {tag!r}: {member.name} declares '{requirement}', and there is no tag "
                    f"{needed}: release {other.name} first"
                )
            if not requirement.specifier.contains(other.version, prereleases=True):
                raise ToolError(
                    f"tag {tag!r}: {member.name} declares '{requirement}', and the workspace has "
                    f"{other.name} {other.version}"
                )
    return section


def prepare(root: Path, tag: str, date: datetime.date) -> None:
    """Write the version and the date of the release `tag` into the tree at `root`.

    Raises:
        ToolError: the version is older than the one there is, or the changelog has no open section.
    """
    member, version = parse_tag(tag, read_workspace(root))
    if version < member.version:
        raise ToolError(f"tag {tag!r}: {member.name} is at {member.version} already")
    text = member.changelog.read_text("utf-8")
    member.changelog.write_text(changelog.dated(text, member.name, version, date), "utf-8")
    declaration = member.folder / "pyproject.toml"
    before = declaration.read_text("utf-8")
    declaration.write_text(_VERSION_LINE.sub(f'version = "{version}"', before, count=1), "utf-8")
    run(["uv", "lock", "--quiet"], cwd=root)
