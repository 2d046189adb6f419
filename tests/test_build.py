"""What a wheel and an sdist must be. The wheels here are written by hand, one flaw at a time."""

import io
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import build
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


def distribution(member, tag="py3-none-any", files=FILES, sources=SOURCES):
    wheel = member.folder / f"down-0.1.0-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    sdist = member.folder / "down-0.1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in (*sources, "src/down/__init__.py"):
            archive.addfile(tarfile.TarInfo(f"down-0.1.0/{name}"), io.BytesIO())
    return build.Distribution(member, wheel, sdist)


def test_a_sound_pair(member):
    build.check(distribution(member))
    assert not distribution(member).native


def test_a_library_and_its_platform(member):
    made = distribution(member, "py3-none-linux_x86_64", {**FILES, "down/native/down.so": ""})
    build.check(made)
    assert made.native


@pytest.mark.parametrize("missing", ["down/py.typed", "down-0.1.0.dist-info/licenses/LICENSE"])
def test_a_missing_file_of_the_wheel(member, missing):
    files = {name: text for name, text in FILES.items() if name != missing}
    with pytest.raises(ToolError, match=f"{missing} is missing"):
        build.check(distribution(member, files=files))


@pytest.mark.parametrize("missing", SOURCES)
def test_a_missing_file_of_the_sdist(member, missing):
    sources = [name for name in SOURCES if name != missing]
    with pytest.raises(ToolError, match=f"{missing.partition('/')[0]} is missing"):
        build.check(distribution(member, sources=sources))


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
        build.check(distribution(member, tag, {**FILES, **more}))


def test_requirements_other_than_declared(member):
    metadata = "down-0.1.0.dist-info/METADATA"
    files = {**FILES, metadata: FILES[metadata].replace("torch>=2.13", "torch>=2.13,<3")}
    with pytest.raises(ToolError, match="declared are"):
        build.check(distribution(member, files=files))


def test_another_version(member):
    made = distribution(member)
    other = made.wheel.rename(member.folder / "down-0.1.1-py3-none-any.whl")
    with pytest.raises(ToolError, match=r"expected down 0.1.0"):
        build.check(build.Distribution(member, other, made.sdist))


@pytest.mark.slow
def test_every_member_builds(tmp_path):
    for member in read_workspace().values():
        made = build.build(member, tmp_path)
        assert made.native == (member.name == "linalg-kernels")


@pytest.mark.slow
def test_linalg_kernels_has_a_wheel_without_the_library(tmp_path):
    made = build.build(read_workspace()["linalg-kernels"], tmp_path, pure=True)
    assert made.wheel.name.endswith("-py3-none-any.whl")
    assert not made.native
