"""Release one member: tag `NAME-vX.Y.Z`, build that member only, publish it.

uv run scripts/release.py --prepare liebn-v0.2.0   version, dated changelog and lock, to commit
uv run scripts/release.py --check liebn-v0.2.0     tag, version, changelog and bounds agree
uv run scripts/release.py --check liebn-v0.2.0 --dist dist/  and the files are those to release
uv run scripts/release.py --notes liebn-v0.2.0     what the changelog says of it
uv run scripts/release.py --dry-run linalg-kernels-v0.1.0 spd-metrics-v0.1.0
    all of it in order, on a scratch clone, with an index on this machine (rehearsal.py)
"""

import argparse
import datetime
import sys
from pathlib import Path

from agreement import check, parse_tag, prepare
from distribution import check_release
from process import ToolError, fail
from rehearsal import rehearse
from workspace import ROOT, read_workspace


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Release one member of the workspace.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--prepare", action="store_true", help="write version and date, to commit")
    action.add_argument("--check", action="store_true", help="tag, version, changelog and bounds")
    action.add_argument("--notes", action="store_true", help="print what changed")
    action.add_argument("--dry-run", action="store_true", help="rehearse on a scratch clone")
    parser.add_argument("--dist", type=Path, help="with --check: the files to be published")
    parser.add_argument("tags", nargs="+", metavar="NAME-vX.Y.Z")
    arguments = parser.parse_args(argv)
    try:
        if arguments.dry_run:
            rehearse(arguments.tags)
            return 0
        for tag in arguments.tags:
            if arguments.prepare:
                prepare(ROOT, tag, datetime.datetime.now(datetime.UTC).date())
                print(f"commit this, then: git tag {tag}")
                continue
            section = check(ROOT, tag)
            if arguments.dist is not None:
                files = sorted(path for path in arguments.dist.iterdir() if path.name[0] != ".")
                check_release(parse_tag(tag, read_workspace())[0], files)
            print(section.notes if arguments.notes else f"{tag}: everything agrees")
    except ToolError as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
