"""Build wheels and sdists of the members, and look into what came out.

    uv run scripts/build.py                        every member into dist/
    uv run scripts/build.py liebn rmlr             these two
    uv run scripts/build.py linalg-kernels --pure  the wheel without the native library

Each wheel is built from its sdist, so that a file missing from the sdist is found here.
"""

import argparse
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from rich.console import Console
from rich.table import Table

from process import ToolError, fail, run
from workspace import ROOT, Member, read_workspace, select

PURE = Tag("py3", "none", "any")
# The build backend's setting that leaves the native library out.
_WITHOUT_NATIVE = (
    "--config-setting",
    "wheel.cmake=false",
    "--config-setting",
    "wheel.platlib=false",
)
_LIBRARY_SUFFIXES = (".so", ".dylib", ".dll", ".pyd")


@dataclass(frozen=True)
class Distribution:
    """A member's wheel, and the sdist that it was built from (None: built from the tree)."""

    member: Member
    wheel: Path
    sdist: Path | None

    @property
    def tags(self) -> frozenset[Tag]:
        return parse_wheel_filename(self.wheel.name)[3]

    @property
    def native(self) -> bool:
        """Whether the wheel carries a compiled library."""
        with zipfile.ZipFile(self.wheel) as archive:
            return any(name.endswith(_LIBRARY_SUFFIXES) for name in archive.namelist())


def build(
    member: Member, out: Path, *, root: Path = ROOT, pure: bool = False, echo: bool = True
) -> Distribution:
    """Build `member` of the workspace at `root` into the folder `out` and check the result.

    Older files of the same member in `out` are removed, so that what lies there is what was built.
    With `pure`, a `py3-none-any` wheel without a native library, and no sdist.

    Raises:
        CommandError: the build backend failed.
        ToolError: the result is not what the member declares.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = member.name.replace("-", "_")
    fresh = out / f".{stem}"
    shutil.rmtree(fresh, ignore_errors=True)
    options = ["--wheel", *_WITHOUT_NATIVE] if pure else []
    # `--no-sources`: as a user's pip would build it, blind to the workspace around it.
    run(
        ["uv", "build", member.folder, "--out-dir", fresh, "--no-sources", *options],
        cwd=root,
        echo=echo,
    )
    for old in [*out.glob(f"{stem}-*.whl"), *out.glob(f"{stem}-*.tar.gz")]:
        if not pure or old.name.endswith("-py3-none-any.whl"):
            old.unlink()
    made = [path.replace(out / path.name) for path in fresh.iterdir() if path.name != ".gitignore"]
    shutil.rmtree(fresh)
    wheels = [path for path in made if path.suffix == ".whl"]
    sdists = [path for path in made if path.name.endswith(".tar.gz")]
    if len(wheels) != 1 or len(sdists) != (0 if pure else 1):
        raise ToolError(
            f"{member.name}: expected one wheel{'' if pure else ' and one sdist'}, "
            f"got {sorted(path.name for path in made)}"
        )
    distribution = Distribution(member, wheels[0], None if pure else sdists[0])
    check(distribution)
    if pure and (distribution.native or distribution.tags != {PURE}):
        raise ToolError(f"{member.name}: expected a py3-none-any wheel, got {wheels[0].name}")
    return distribution


def check(distribution: Distribution) -> None:
    """Hold what was built to what the member declares.

    Raises:
        ToolError: another name, version or requirement; a missing licence, type marker or
            test; files outside the package; a library under a tag that promises none, or none
            under a tag that promises one.
    """
    member = distribution.member
    _check_wheel(distribution)
    if distribution.sdist is not None:
        with tarfile.open(distribution.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for needed in (
            *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests"),
            f"src/{member.import_name}/__init__.py",
        ):
            if not any(name == needed or name.startswith(f"{needed}/") for name in names):
                raise ToolError(f"{distribution.sdist.name}: {needed} is missing")


def _check_wheel(distribution: Distribution) -> None:
    member, wheel = distribution.member, distribution.wheel.name
    name, version, _, tags = parse_wheel_filename(wheel)
    if (name, version) != (member.name, member.version):
        raise ToolError(f"{wheel}: expected {member.name} {member.version}")
    info = f"{member.import_name}-{version}.dist-info"
    with zipfile.ZipFile(distribution.wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode("utf-8"))
    for needed in (
        f"{member.import_name}/__init__.py",
        f"{member.import_name}/py.typed",
        f"{info}/licenses/LICENSE",
    ):
        if needed not in names:
            raise ToolError(f"{wheel}: {needed} is missing")
    folders = {entry.partition("/")[0] for entry in names}
    if folders != {member.import_name, info}:
        raise ToolError(
            f"{wheel}: expected files under {member.import_name}/ only, got {sorted(folders)}"
        )
    declared = _normalised(map(str, member.dependencies))
    required = _normalised(
        text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text
    )
    if required != declared:
        raise ToolError(f"{wheel}: requires {required}, declared are {declared}")
    if distribution.native == (tags == {PURE}):
        carries = "carries a library" if distribution.native else "carries no library"
        raise ToolError(f"{wheel}: {carries}, which its platform tag denies")


def _normalised(requirements: Iterable[str]) -> list[str]:
    parsed = map(Requirement, requirements)
    return sorted(f"{canonicalize_name(req.name)}{req.specifier};{req.marker}" for req in parsed)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build wheels and sdists of the members.")
    parser.add_argument("members", nargs="*", metavar="NAME", help="members (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default: dist)")
    parser.add_argument("--pure", action="store_true", help="the wheel without a native library")
    parser.add_argument(
        "--require-native",
        action="store_true",
        help="fail where the wheel carries no compiled library",
    )
    arguments = parser.parse_args(argv)
    table = Table("package", "version", "wheel", "kB", "native library")
    try:
        for member in select(read_workspace(), arguments.members):
            made = build(member, arguments.out.resolve(), pure=arguments.pure)
            if arguments.require_native and not made.native:
                raise ToolError(f"{made.wheel.name}: expected a wheel with a native library")
            table.add_row(
                member.name,
                str(member.version),
                made.wheel.name.removesuffix(".whl").partition(f"-{member.version}-")[2],
                f"{made.wheel.stat().st_size / 1000:.0f}",
                "yes" if made.native else "",
            )
    except ToolError as error:
        return fail(error)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
