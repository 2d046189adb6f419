"""EfficientNet-Lite0 computes what its weights were trained for; textures are read as they lie."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from eigenworks.data import EFFICIENTNET_LITE0, TEXTURES, DataError
from eigenworks.data.efficientnet_lite import SameConv2d, normalize
from eigenworks.data.textures import read_textures
from PIL import Image


def test_network_has_every_weight_and_knows_two_photographs() -> None:
    network = EFFICIENTNET_LITE0.network()
    weights = EFFICIENTNET_LITE0.load()
    assert len(network.state_dict()) == len(weights) == 296
    assert torch.equal(
        network.state_dict()["blocks.3.bn2.running_var"], weights["_blocks.3._bn2.running_var"]
    )
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    datasets = pytest.importorskip("sklearn.datasets")
    # The two photographs of scikit-learn: a Chinese temple and a flower.
    china, flower = (
        torch.tensor(datasets.load_sample_image(name)).permute(2, 0, 1).float()
        for name in ("china.jpg", "flower.jpg")
    )
    images = torch.stack(
        [
            torch.nn.functional.interpolate(
                image[None, :, :, 100:527], size=(224, 224), mode="area"
            )[0]
            for image in (china, flower)
        ]
    )
    with torch.no_grad():
        top = network(normalize(images)).topk(5).indices
        features = network.features(normalize(images))
    assert features.shape == (2, 1280, 7, 7)
    assert set(top[0].tolist()) & {
        497,
        538,
        663,
        698,
        832,
    }  # church, dome, monastery, palace, stupa
    assert 985 in top[1] or 723 in top[1] or 308 in top[1]  # daisy, pinwheel, fly


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 5, 1), (5, 5, 2)])
def test_same_convolution_rounds_up(size: int, kernel: int, stride: int) -> None:
    convolution = SameConv2d(1, 1, kernel, stride)
    assert convolution(torch.zeros(1, 1, size, size + 1)).shape[-2:] == (
        -(-size // stride),
        -(-(size + 1) // stride),
    )


def test_same_convolution_puts_the_odd_zero_at_the_end() -> None:
    convolution = SameConv2d(1, 1, 3, 2)
    with torch.no_grad():
        convolution.weight.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
    # An even size needs one zero; it lies below, so the kernel's first entry meets x[0, 0].
    x = torch.zeros(1, 1, 4, 4)
    x[..., 0, 0] = 1
    assert convolution(x)[0, 0, 0, 0] == 0.0
    x = x.roll((1, 1), (-2, -1))
    assert convolution(x)[0, 0, 0, 0] == 4.0


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(names):
            picture = io.BytesIO()
            Image.new("RGB", (6, 4), (200, 0, number)).save(picture, "JPEG", quality=95)
            file.writestr(name, picture.getvalue())
    return path


def test_textures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    archive(folder / "textures_dev.zip", "dotted/1.jpg", "banded/2.jpg", "banded/1.jpg")
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    assert TEXTURES.available()
    textures = TEXTURES.load()
    assert textures.classes == ("banded", "dotted")
    assert textures.label.tolist() == [0, 0, 1]
    pixels = textures.pixels(0)
    assert pixels.shape == (4, 6, 3)
    assert np.abs(pixels[2, 3].astype(int) - (200, 0, 2)).max() < 6
    monkeypatch.delenv("EIGENWORKS_DATA")
    assert not TEXTURES.available()


def test_textures_that_are_broken(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="not a whole archive"):
        read_textures(tmp_path / "a.zip")
    with pytest.raises(DataError, match="expected images as CLASS/FILE"):
        read_textures(archive(tmp_path / "b.zip", "1.jpg"))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as file:
        file.writestr("banded/1.jpg", b"no picture")
    with pytest.raises(DataError, match=r"banded/1\.jpg: not a whole image"):
        read_textures(tmp_path / "c.zip").pixels(0)
