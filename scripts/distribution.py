"""What a member's wheels and sdist must be, whoever built them."""

import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from process import ToolError
from workspace import Member

PURE = frozenset({Tag("py3", "none", "any")})
# Where a member with a native library is released with it, by how the platform tag starts and ends.
NATIVE_PLATFORMS = {
    "Linux x86-64": ("manylinux", "x86_64"),
    "Linux aarch64": ("manylinux", "aarch64"),
    "macOS arm64": ("macosx", "arm64"),
    "Windows x86-64": ("win", "amd64"),
}
_LIBRARY_SUFFIXES = (".so", ".dylib", ".dll", ".pyd")


def tags_of(wheel: Path) -> frozenset[Tag]:
    """The tags in the name of `wheel`."""
    return parse_wheel_filename(wheel.name)[3]


def carries_library(wheel: Path) -> bool:
    """Whether `wheel` holds a compiled library."""
    with zipfile.ZipFile(wheel) as archive:
        return any(name.endswith(_LIBRARY_SUFFIXES) for name in archive.namelist())


def check_wheel(member: Member, wheel: Path) -> None:
    """Hold `wheel` to what `member` declares.

    Raises:
        ToolError: another name, version or requirement; a missing licence or type marker; files
            outside the package; a library under a tag that promises none, or none under a tag
            that promises one.
    """
    try:
        name, version, _, tags = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise ToolError(str(error)) from None
    if (name, version) != (member.name, member.version):
        raise ToolError(f"{wheel.name}: expected {member.name} {member.version}")
    info = f"{member.import_name}-{version}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode("utf-8"))
    for needed in (
        f"{member.import_name}/__init__.py",
        f"{member.import_name}/py.typed",
        f"{info}/licenses/LICENSE",
    ):
        if needed not in names:
            raise ToolError(f"{wheel.name}: {needed} is missing")
    folders = {entry.partition("/")[0] for entry in names}
    if folders != {member.import_name, info}:
        raise ToolError(
            f"{wheel.name}: expected files under {member.import_name}/ only, got {sorted(folders)}"
        )
    declared = _normalised(map(str, member.dependencies))
    required = _normalised(
        text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text
    )
    if required != declared:
        raise ToolError(f"{wheel.name}: requires {required}, declared are {declared}")
    if carries_library(wheel) == (tags == PURE):
        carries = "carries a library" if tags == PURE else "carries no library"
        raise ToolError(f"{wheel.name}: {carries}, which its platform tag denies")


def check_sdist(member: Member, sdist: Path) -> None:
    """Hold `sdist` to what `member` declares.

    Raises:
        ToolError: another name or version, or a missing file: who builds from it needs the
            sources, who packages it the tests, the licence and what changed.
    """
    try:
        name, version = parse_sdist_filename(sdist.name)
    except InvalidSdistFilename as error:
        raise ToolError(str(error)) from None
    if (name, version) != (member.name, member.version):
        raise ToolError(f"{sdist.name}: expected {member.name} {member.version}")
    with tarfile.open(sdist) as archive:
        names = {entry.partition("/")[2] for entry in archive.getnames()}
    for needed in (
        *("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests"),
        f"src/{member.import_name}/__init__.py",
    ):
        if not any(entry == needed or entry.startswith(f"{needed}/") for entry in names):
            raise ToolError(f"{sdist.name}: {needed} is missing")


def check_release(member: Member, files: Sequence[Path]) -> None:
    """Hold `files` to what a release of `member` consists of: its sdist, a wheel for any platform
    and, where it has a native library, one wheel with it for each of `NATIVE_PLATFORMS`.

    Raises:
        ToolError: one is missing, one is too many, or one is not what `member` declares.
    """
    missing = {"sdist", "any platform", *(NATIVE_PLATFORMS if member.native else ())}
    for file in files:
        if file.suffix == ".whl":
            check_wheel(member, file)
            kind = _platform(file)
        else:
            check_sdist(member, file)
            kind = "sdist"
        if kind not in missing:
            raise ToolError(
                f"{file.name} is no part of a release of {member.name}, or is there twice"
            )
        missing.remove(kind)
    if missing:
        raise ToolError(f"a release of {member.name} {member.version} lacks {sorted(missing)}")


def _platform(wheel: Path) -> str:
    tags = tags_of(wheel)
    if tags == PURE:
        return "any platform"
    platforms = {tag.platform for tag in tags}
    for name, (start, end) in NATIVE_PLATFORMS.items():
        if all(one.startswith(start) and one.endswith(end) for one in platforms):
            return name
    return ", ".join(sorted(platforms))


def _normalised(requirements: Iterable[str]) -> list[str]:
    parsed = map(Requirement, requirements)
    return sorted(f"{canonicalize_name(req.name)}{req.specifier};{req.marker}" for req in parsed)
