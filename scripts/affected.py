"""Which members a change touches, and which others must be tested because they depend on them.

uv run scripts/affected.py --base main                  for a person
uv run scripts/affected.py --base SHA --github-output   for the workflow
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from process import ToolError, fail
from repository import changed_files
from workspace import ROOT, Member, dependants_of, read_workspace

# Text for people: no test outcome of a member depends on it. The workspace's own tests, which
# always run, hold what can be checked of it.
_PROSE = (".md", ".cff", "LICENSE", ".gitignore")


def affected(
    files: Iterable[str] | None, members: Mapping[str, Member], root: Path = ROOT
) -> list[Member]:
    """The members whose tests a change of `files` (paths from `root`) can turn.

    A file of a member affects it and all that depend on it, by their extras too. Any other file
    affects all of them, unless it is prose at the root or in docs. `None`, an unknown change,
    affects all.
    """
    if files is None:
        return list(members.values())
    folders = {
        PurePosixPath(member.folder.relative_to(root).as_posix()): member
        for member in members.values()
    }
    touched: set[str] = set()
    for file in files:
        path = PurePosixPath(file)
        owner = next((folders[parent] for parent in path.parents if parent in folders), None)
        if owner is not None:
            touched.add(owner.name)
            # Its README and changelog are read by tests of its own only.
            if path.suffix != ".md":
                touched |= dependants_of(members, owner.name, extras=True).keys()
        elif not (path.name.endswith(_PROSE) and path.parts[0] != "tests"):
            return list(members.values())
    return [member for name, member in members.items() if name in touched]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Members that a change touches or reaches.")
    parser.add_argument("--base", required=True, help="what the change is compared with")
    parser.add_argument("--head", default="HEAD", help="the change (default: HEAD)")
    parser.add_argument(
        "--github-output",
        action="store_true",
        help="append `members`, `tests` and `native` to the file that GITHUB_OUTPUT names",
    )
    arguments = parser.parse_args(argv)
    try:
        found = affected(changed_files(ROOT, arguments.base, arguments.head), read_workspace())
    except ToolError as error:
        return fail(error)
    for member in found:
        print(member.name)
    if arguments.github_output:
        outputs = {
            "members": " ".join(member.name for member in found),
            "tests": " ".join(member.tests.relative_to(ROOT).as_posix() for member in found),
            "native": str(any(member.name == "linalg-kernels" for member in found)).lower(),
        }
        with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
            file.writelines(f"{key}={value}\n" for key, value in outputs.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
