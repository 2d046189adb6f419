"""Labelled matrices in a folder: what is read, and what is refused in one sentence."""

import numpy as np
import pytest
from eigenworks.data import DataError, read_labelled

P = np.stack([np.eye(3)] * 4)


def test_labels_and_domains_become_indices(tmp_path):
    label, domain = np.array([5, 9, 5, 7]), np.array([30, 10, 10, 30])
    np.savez(tmp_path / "some.npz", P=P.astype(np.float32), label=label, domain=domain)
    found = read_labelled(tmp_path, "some", rank=3)
    assert found.points.dtype == np.float64
    assert found.label.tolist() == [0, 2, 0, 1]
    assert found.domain is not None
    assert found.domain.tolist() == [1, 0, 0, 1]
    assert found.test is None
    assert found.classes == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"P": P}, "must have P and label"),
        ({"P": P[0], "label": [0, 1, 2]}, "P must hold 3-d numbers"),
        ({"P": P[:, :2], "label": [0, 1, 2, 3]}, "P must hold 3-d numbers"),
        ({"P": P, "label": [0, 1]}, r"label must be \(4,\), got \(2,\)"),
        ({"P": P, "label": [0, 1, 0, 1], "test": [True]}, r"test must be \(4,\)"),
        ({"P": P[:0], "label": []}, "at least one sample"),
        ({"P": np.array([None]), "label": [0]}, "not a whole file of labelled matrices"),
    ],
)
def test_wrong_files_are_refused(tmp_path, arrays, message):
    np.savez(
        tmp_path / "some.npz", allow_pickle=True, **{k: np.asarray(v) for k, v in arrays.items()}
    )
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path, "some", rank=3)


def test_a_cut_file_and_none(tmp_path):
    with pytest.raises(DataError, match=r"must hold some\.npz"):
        read_labelled(tmp_path, "some", rank=3)
    np.savez(tmp_path / "some.npz", P=P, label=np.arange(4))
    whole = (tmp_path / "some.npz").read_bytes()
    (tmp_path / "some.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole file"):
        read_labelled(tmp_path, "some", rank=3)
    with (tmp_path / "some.npz").open("wb") as stream:
        np.save(stream, P)
    with pytest.raises(DataError, match="not a whole file"):
        read_labelled(tmp_path, "some", rank=3)
