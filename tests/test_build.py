"""What wheels and sdists must be. Those here are written by hand, one flaw at a time."""

import dataclasses
import io
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from build import build
from distribution import carries_library, check_release, check_sdist, check_wheel, tags_of
from process import ToolError
from workspace import Member, read_workspace

FILES = {
    "down/__init__.py": "",
    "down/py.typed": "",
    "down-0.1.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: down\nVersion: 0.1.0\n"
    "Requires-Dist: torch>=2.13\nRequires-Dist: eigenworks<0.2,>=0.1; extra == 'experiments'\n",
    "down-0.1.0.dist-info/licenses/LICENSE": "",
    "down-0.1.0.dist-info/RECORD": "",
}
NATIVE_FILES = {**FILES, "down/native/down.so": ""}
SOURCES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/test_down.py")


@pytest.fixture
def member(tmp_path):
    return Member(
        name="down",
        version=Version("0.1.0"),
        folder=tmp_path,
        dependencies=(Requirement("torch>=2.13"),),
        extras={},
        commands=(),
    )


def write_wheel(member, tag="py3-none-any", files=FILES):
    path = member.folder / f"down-0.1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_sdist(member, sources=SOURCES):
    path = member.folder / "down-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (*sources, "src/down/__init__.py"):
            archive.addfile(tarfile.TarInfo(f"down-0.1.0/{name}"), io.BytesIO())
    return path


def test_sound_ones(member):
    check_wheel(member, write_wheel(member))
    check_wheel(member, write_wheel(member, "py3-none-linux_x86_64", NATIVE_FILES))
    check_sdist(member, write_sdist(member))


@pytest.mark.parametrize("missing", ["down/py.typed", "down-0.1.0.dist-info/licenses/LICENSE"])
def test_a_missing_file_of_the_wheel(member, missing):
    files = {name: text for name, text in FILES.items() if name != missing}
    with pytest.raises(ToolError, match=f"{missing} is missing"):
        check_wheel(member, write_wheel(member, files=files))


@pytest.mark.parametrize("missing", SOURCES)
def test_a_missing_file_of_the_sdist(member, missing):
    sources = [name for name in SOURCES if name != missing]
    with pytest.raises(ToolError, match=f"{missing.partition('/')[0]} is missing"):
        check_sdist(member, write_sdist(member, sources))


@pytest.mark.parametrize(
    ("tag", "more", "message"),
    [
        ("py3-none-any", {"tests/test_down.py": ""}, "expected files under down/ only"),
        ("py3-none-any", {"down/native/down.so": ""}, "carries a library, which its platform tag"),
        ("py3-none-macosx_11_0_arm64", {}, "carries no library, which its platform tag denies"),
    ],
)
def test_a_wheel_that_is_not_what_it_says(member, tag, more, message):
    with pytest.raises(ToolError, match=message):
        check_wheel(member, write_wheel(member, tag, {**FILES, **more}))


def test_requirements_other_than_declared(member):
    metadata = "down-0.1.0.dist-info/METADATA"
    files = {**FILES, metadata: FILES[metadata].replace("torch>=2.13", "torch>=2.13,<3")}
    with pytest.raises(ToolError, match="declared are"):
        check_wheel(member, write_wheel(member, files=files))


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
def test_another_version(member, write):
    path = write(member)
    other = path.rename(path.with_name(path.name.replace("0.1.0", "0.1.1")))
    check = check_wheel if write is write_wheel else check_sdist
    with pytest.raises(ToolError, match=r"expected down 0.1.0"):
        check(member, other)


def test_release_of_a_pure_member(member):
    files = [write_wheel(member), write_sdist(member)]
    check_release(member, files)
    with pytest.raises(ToolError, match=r"a release of down 0.1.0 lacks \['any platform'\]"):
        check_release(member, files[1:])
    native = write_wheel(member, "py3-none-win_amd64", NATIVE_FILES)
    with pytest.raises(ToolError, match=r"py3-none-win_amd64.whl is no part of a release of down"):
        check_release(member, [*files, native])


def test_release_of_a_member_with_a_native_library(member):
    member = dataclasses.replace(member, native=True)
    tags = ("manylinux_2_17_x86_64.manylinux_2_28_x86_64", "manylinux_2_28_aarch64")
    tags += ("macosx_11_0_arm64", "win_amd64")
    files = [write_wheel(member, f"py3-none-{tag}", NATIVE_FILES) for tag in tags]
    files += [write_wheel(member), write_sdist(member)]
    check_release(member, files)
    with pytest.raises(ToolError, match=r"lacks \['Linux aarch64'\]"):
        check_release(member, [file for file in files if "aarch64" not in file.name])
    local = write_wheel(member, "py3-none-linux_x86_64", NATIVE_FILES)
    with pytest.raises(ToolError, match=r"linux_x86_64.whl is no part of a release"):
        check_release(member, [local, *files[1:]])
    with pytest.raises(ToolError, match="or is there twice"):
        check_release(member, [*files, files[0]])


def test_a_file_of_another_kind(member):
    (stray := member.folder / "notes.md").touch()
    with pytest.raises(ToolError, match=r"notes.md"):
        check_release(member, [stray])


@pytest.mark.slow
def test_every_member_builds(tmp_path):
    for member in read_workspace().values():
        made = build(member, tmp_path)
        assert carries_library(made.wheel) == member.native


@pytest.mark.slow
def test_linalg_kernels_has_a_wheel_without_the_library(tmp_path):
    native = build(read_workspace()["linalg-kernels"], tmp_path)
    pure = build(read_workspace()["linalg-kernels"], tmp_path, pure=True)
    assert {str(tag) for tag in tags_of(pure.wheel)} == {"py3-none-any"}
    assert native.wheel.is_file()
    assert not carries_library(pure.wheel)
