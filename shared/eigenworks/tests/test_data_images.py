"""Images: what the readers take from an archive, and one sentence for what is wrong."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from eigenworks.data import CIFAR10, IMAGENET, PHOTOGRAPHS, SQUEEZENET, DataError, DataSet
from eigenworks.data.archive import ImageFiles, read_classes
from eigenworks.data.imagenet import read_imagenet
from eigenworks.data.photographs import DOCUMENTS, SCIENCE, TEXTURES, THINGS
from PIL import Image


def encoded(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (grey, grey, grey)).save(file, "JPEG")
    return file.getvalue()


def archive(path: Path, names: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for index, name in enumerate(names):
            file.writestr(name, encoded(20 * index))
    return path


def test_cifar10(tmp_path: Path) -> None:
    read = read_classes(archive(tmp_path / "a.zip", ("cat/1.jpg", "bird/7.jpg", "bird/3.jpg")))
    assert read.classes == ("bird", "cat")
    assert read.name == ("bird/3.jpg", "bird/7.jpg", "cat/1.jpg")
    assert read.label.tolist() == [0, 0, 1]
    assert [int(read.pixels(i)[0, 0, 0]) for i in range(3)] == pytest.approx([40, 20, 0], abs=3)
    assert read.pixels(0).shape == (4, 6, 3)


def test_imagenet(tmp_path: Path) -> None:
    names = ("0002_n01484850_great_white_shark.JPEG", "x/0000_n01440764_tench.JPEG")
    read = read_imagenet(archive(tmp_path / "a.zip", names))
    assert read.label.tolist() == [2, 0]
    assert read.classes == ("great_white_shark", "tench")


@pytest.mark.parametrize(
    ("reader", "names", "message"),
    [
        (read_classes, ("1.jpg",), "expected images as CLASS/FILE.jpg"),
        (read_classes, ("readme.txt",), "expected images"),
        (read_imagenet, ("tench.JPEG",), "expected images as 0002_n01484850_name.JPEG"),
        (read_imagenet, ("1000_n01440764_tench.JPEG",), "got 1000_n01440764_tench.JPEG"),
    ],
)
def test_other_archives_are_named(tmp_path: Path, reader, names, message: str) -> None:
    path = archive(tmp_path / "a.zip", names)
    with pytest.raises(DataError, match=message) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="not a whole archive"):
        read_classes(path)
    cut = ImageFiles((encoded(9)[:200],), ("cat/1.jpg",), np.zeros(1, np.int64), ("cat",))
    with pytest.raises(DataError, match=r"cat/1\.jpg: not a whole image"):
        cut.pixels(0)


def test_photographs() -> None:
    images = PHOTOGRAPHS.load()
    assert set(images) == set(THINGS | TEXTURES | SCIENCE | DOCUMENTS)
    assert len(images) == 19
    assert images["coffee"].shape == (400, 600, 3)
    assert images["china"].shape == (427, 640, 3)
    assert all(one.dtype == np.uint8 and one.shape[2] == 3 for one in images.values())


@pytest.mark.parametrize("data", [CIFAR10, IMAGENET, SQUEEZENET], ids=lambda data: data.name)
def test_absent_without_the_folder(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EIGENWORKS_DATA", raising=False)
    assert not data.available()
    with pytest.raises(DataError, match="EIGENWORKS_DATA"):
        data.load()
    assert isinstance(data, DataSet)
    assert data.licence
    assert data.citation


def test_squeezenet_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "compressed_SqueezeNet.net").write_bytes(b"weights")
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    assert SQUEEZENET.available()
    assert SQUEEZENET.load() == b"weights"
