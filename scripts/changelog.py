"""A member's CHANGELOG.md: one section a version, newest first.

```
# Changelog of NAME

## 0.2.0 (unreleased)

- What changed for the user.

## 0.1.0 (2026-11-22)

- First version.
```
"""

import datetime
import itertools
import re
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from process import ToolError

UNRELEASED = "unreleased"
_HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>[^)]*)\)$")


@dataclass(frozen=True)
class Section:
    """What changed in one version."""

    version: Version
    date: datetime.date | None
    """None: not released yet."""
    notes: str


def parse(text: str, name: str) -> list[Section]:
    """The sections of the changelog of the package `name`, newest first.

    Raises:
        ToolError: a title, heading, version, date or order that the format does not allow,
            or a version without a note.
    """
    lines = text.splitlines()
    if not lines or lines[0] != f"# Changelog of {name}":
        raise ToolError(
            f"line 1: expected '# Changelog of {name}', got {lines[0] if lines else ''!r}"
        )
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    if not starts:
        raise ToolError("no version: expected a line '## X.Y.Z (unreleased)'")
    sections = []
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        version, date = _heading(lines[start], start + 1)
        notes = "\n".join(lines[start + 1 : stop]).strip()
        if not notes:
            raise ToolError(f"line {start + 1}: version {version} says nothing of what changed")
        sections.append(Section(version, date, notes))
    for newer, older in itertools.pairwise(sections):
        if newer.version <= older.version:
            raise ToolError(
                f"{newer.version} stands above {older.version}: expected newest first, each once"
            )
        if older.date is None:
            raise ToolError(f"{older.version} is unreleased though {newer.version} is newer")
        if newer.date is not None and newer.date < older.date:
            raise ToolError(
                f"{newer.version} ({newer.date}) is dated before {older.version} ({older.date})"
            )
    return sections


def _heading(line: str, number: int) -> tuple[Version, datetime.date | None]:
    match = _HEADING.match(line)
    if match is None:
        raise ToolError(
            f"line {number}: expected '## X.Y.Z (YYYY-MM-DD)' or "
            f"'## X.Y.Z (unreleased)', got {line!r}"
        )
    try:
        version = Version(match["version"])
    except InvalidVersion:
        raise ToolError(
            f"line {number}: expected a version such as 0.1.0, got {match['version']!r}"
        ) from None
    if match["date"] == UNRELEASED:
        return version, None
    try:
        return version, datetime.date.fromisoformat(match["date"])
    except ValueError:
        raise ToolError(
            f"line {number}: expected a date YYYY-MM-DD or 'unreleased', got {match['date']!r}"
        ) from None


def dated(text: str, name: str, version: Version, date: datetime.date) -> str:
    """The changelog with the section of `version` dated, as the release commit writes it.

    A version that has no section yet takes over the unreleased one.

    Raises:
        ToolError: no section is open, or that version was released already.
    """
    top = parse(text, name)[0]
    if top.date is not None:
        raise ToolError(
            f"the newest version is {top.version} of {top.date}: write what changed under "
            f"'## {version} (unreleased)' first"
        )
    return text.replace(f"## {top.version} ({UNRELEASED})", f"## {version} ({date})", 1)
