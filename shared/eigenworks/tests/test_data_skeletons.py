from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eigenworks.data import MSR_ACTION3D, DataError
from eigenworks.data.skeletons import FILE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EIGENWORKS_DATA", str(tmp_path))
    (tmp_path / FILE).parent.mkdir()
    return tmp_path


def write(folder: Path, **changed: Any) -> None:
    held: dict[str, Any] = {
        "X": np.arange(300, dtype=np.float32).reshape(5, 20, 3),
        "length": np.array([2, 3]),
        "action": np.array([1, 20]),
        "subject": np.array([10, 1]),
    }
    np.savez(folder / FILE, **{**held, **changed})


def test_sequences(folder):
    assert not MSR_ACTION3D.available()
    write(folder)
    assert MSR_ACTION3D.available()
    found = MSR_ACTION3D.load()
    assert [len(joints) for joints in found.joints] == [2, 3]
    assert found.joints[1][0, 0, 0] == 120
    assert found.action.tolist() == [0, 19]
    assert found.subject.tolist() == [10, 1]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"length": np.array([2, 2])}, "do not belong together"),
        ({"action": np.array([0, 1])}, "expected action from 1 to 20"),
        ({"subject": np.array([1, 11])}, "expected subject from 1 to 10"),
        ({"X": np.zeros((5, 19, 3), np.float32)}, "expected float32 joints"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_file_is_refused(folder, changed, told):
    write(folder, **changed)
    with pytest.raises(DataError, match=told):
        MSR_ACTION3D.load()


def test_broken_file(folder):
    (folder / FILE).write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="not a whole file of skeletons"):
        MSR_ACTION3D.load()
