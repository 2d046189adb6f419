"""The format of a changelog, and the sentence for each way to miss it."""

import datetime

import pytest
from packaging.version import Version

import changelog
from process import ToolError

TEXT = """# Changelog of liebn

## 0.2.0 (unreleased)

- Rotations.
- Domains.

## 0.1.0 (2026-11-22)

- First version.
"""


def test_parse_reads_versions_dates_and_notes():
    newest, first = changelog.parse(TEXT, "liebn")
    assert (newest.version, newest.date) == (Version("0.2.0"), None)
    assert newest.notes == "- Rotations.\n- Domains."
    assert (first.version, first.date) == (Version("0.1.0"), datetime.date(2026, 11, 22))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# Changelog of liebn", "# Changelog", "line 1: expected '# Changelog of liebn'"),
        ("## 0.2.0 (unreleased)", "## 0.2.0", r"line 3: expected '## X.Y.Z \(YYYY-MM-DD\)'"),
        ("0.2.0 (", "next (", "line 3: expected a version such as 0.1.0, got 'next'"),
        ("2026-11-22", "22.11.2026", "line 8: expected a date YYYY-MM-DD or 'unreleased'"),
        ("0.2.0 (", "0.1.0 (", "0.1.0 stands above 0.1.0: expected newest first"),
        ("2026-11-22", "unreleased", "0.1.0 is unreleased though 0.2.0 is newer"),
        ("(unreleased)", "(2026-11-21)", r"0.2.0 \(2026-11-21\) is dated before 0.1.0"),
        ("- First version.\n", "", "line 8: version 0.1.0 says nothing of what changed"),
    ],
)
def test_parse_says_what_is_wrong_and_where(old, new, message):
    assert old in TEXT
    with pytest.raises(ToolError, match=message):
        changelog.parse(TEXT.replace(old, new, 1), "liebn")


def test_parse_wants_a_version():
    with pytest.raises(ToolError, match="no version: expected a line"):
        changelog.parse("# Changelog of liebn\n", "liebn")


def test_dated_closes_the_open_section_under_the_released_number():
    day = datetime.date(2027, 1, 31)
    text = changelog.dated(TEXT, "liebn", Version("0.3.0"), day)
    newest = changelog.parse(text, "liebn")[0]
    assert (newest.version, newest.date) == (Version("0.3.0"), day)
    assert newest.notes == "- Rotations.\n- Domains."


def test_dated_wants_an_open_section():
    closed = TEXT.replace("unreleased", "2026-12-01")
    with pytest.raises(ToolError, match=r"write what changed under '## 0.3.0"):
        changelog.dated(closed, "liebn", Version("0.3.0"), datetime.date(2027, 1, 31))
