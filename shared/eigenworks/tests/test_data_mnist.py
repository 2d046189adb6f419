"""MNIST: what a file must hold, and one sentence for what is wrong."""

import numpy as np
import pytest
from eigenworks.data import MNIST, DataError, DataSet
from eigenworks.data.mnist import read_mnist

IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)


def test_reads_what_it_names(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    np.savez(tmp_path / "images" / "mnist_10k.npz", images=IMAGES, labels=np.array([0, 9, 3]))
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    assert MNIST.available()
    found = MNIST.load()
    assert np.array_equal(found.image, IMAGES)
    assert found.digit.tolist() == [0, 9, 3]
    assert found.digit.dtype == np.int64


def test_absent(monkeypatch):
    monkeypatch.delenv("EIGENWORKS_DATA", raising=False)
    assert isinstance(MNIST, DataSet)
    assert not MNIST.available()
    with pytest.raises(DataError, match="EIGENWORKS_DATA"):
        MNIST.load()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES}, "labels"),
        ({"images": IMAGES.astype(float), "labels": np.zeros(3)}, "uint8"),
        ({"images": IMAGES[:, :8], "labels": np.zeros(3)}, "28x28"),
        ({"images": IMAGES, "labels": np.zeros(2)}, "each of 3"),
        ({"images": IMAGES, "labels": np.array([0, 1, 10])}, "0..9"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, words):
    path = tmp_path / "digits.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=words):
        read_mnist(path)


def test_cut_short(tmp_path):
    path = tmp_path / "digits.npz"
    np.savez(path, images=IMAGES, labels=np.zeros(3))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="not a whole file"):
        read_mnist(path)
