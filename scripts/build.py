"""Build wheels and sdists of the members, and look into what came out.

uv run scripts/build.py                        every member into dist/
uv run scripts/build.py liebn rmlr             these two
uv run scripts/build.py linalg-kernels --pure  the wheel without the native library
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from distribution import PURE, carries_library, check_sdist, check_wheel, tags_of
from process import ToolError, fail, run
from table import show
from workspace import ROOT, Member, read_workspace, select

# The build backend's settings that leave the native library out.
_WITHOUT_NATIVE = ("-Cwheel.cmake=false", "-Cwheel.platlib=false")


@dataclass(frozen=True)
class Built:
    """A member's wheel, and the sdist that it was built from."""

    member: Member
    wheel: Path
    sdist: Path

    @property
    def native(self) -> bool:
        """Whether the wheel carries a compiled library."""
        return carries_library(self.wheel)


def build(
    member: Member, out: Path, *, root: Path = ROOT, pure: bool = False, echo: bool = True
) -> Built:
    """Build `member` of the workspace at `root` into the folder `out` and check the result.

    The wheel is built from the sdist, so that a file missing from the sdist is found here. Older
    files of the same member in `out` are removed, so that what lies there is what was built.
    With `pure`, the wheel is one for any platform, without a native library; others stay.

    Raises:
        ToolError: the build backend failed, or the result is not what the member declares.
    """
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / f".{member.import_name}"
    shutil.rmtree(fresh, ignore_errors=True)
    options = _WITHOUT_NATIVE if pure else ()
    # `--no-sources`: as a user's pip would build it, blind to the workspace around it.
    command = ["uv", "build", member.folder, "--out-dir", fresh, "--no-sources", *options]
    run(command, cwd=root, echo=echo)
    wheels, sdists = list(fresh.glob("*.whl")), list(fresh.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        made = sorted(path.name for path in (*wheels, *sdists))
        raise ToolError(f"{member.name}: expected one wheel and one sdist, got {made}")
    for old in out.glob(f"{member.import_name}-*"):
        if not pure or old.name.endswith(("-py3-none-any.whl", ".tar.gz")):
            old.unlink()
    built = Built(
        member,
        wheel=wheels[0].replace(out / wheels[0].name),
        sdist=sdists[0].replace(out / sdists[0].name),
    )
    shutil.rmtree(fresh)
    check_sdist(member, built.sdist)
    check_wheel(member, built.wheel)
    if pure and tags_of(built.wheel) != PURE:
        raise ToolError(f"{member.name}: expected a py3-none-any wheel, got {built.wheel.name}")
    return built


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build wheels and sdists of the members.")
    parser.add_argument("members", nargs="*", metavar="NAME", help="members (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default: dist)")
    parser.add_argument("--pure", action="store_true", help="the wheel without a native library")
    parser.add_argument(
        "--require-native",
        action="store_true",
        help="fail where a member that has a native library is built without it",
    )
    arguments = parser.parse_args(argv)
    table = Table("package", "version", "wheel", "kB", "native library")
    try:
        for member in select(read_workspace(), arguments.members):
            made = build(member, arguments.out.resolve(), pure=arguments.pure)
            if arguments.require_native and member.native and not made.native:
                raise ToolError(f"{made.wheel.name}: expected a wheel with a native library")
            table.add_row(
                member.name,
                str(member.version),
                made.wheel.stem.partition(f"-{member.version}-")[2],
                f"{made.wheel.stat().st_size / 1000:.0f}",
                "yes" if made.native else "",
            )
    except ToolError as error:
        return fail(error)
    show(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
