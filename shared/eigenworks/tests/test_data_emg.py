"""The EMG recordings: the facts of the real file, and errors on small ones."""

import time
from pathlib import Path

import numpy as np
import pytest
from eigenworks.data import EMG, DataError
from eigenworks.data.emg import EmgRecording, read_emg

HEADER = "time,c0,c1,c2,c3,c4,c5,c6,c7,label,exp\n"


@pytest.fixture(scope="module")
def recording() -> EmgRecording:
    return EMG.load()


def test_facts_of_the_recording(recording: EmgRecording) -> None:
    assert recording.signal.shape == (731_682, 8)
    assert recording.gestures == ("ok", "paper", "rest", "rock", "scissors")
    assert recording.sessions == ("mg_s1", "mg_s2", "rr_s1", "rr_s2")
    assert np.bincount(recording.gesture).tolist() == [146241, 146567, 145794, 146501, 146579]
    assert np.bincount(recording.session).tolist() == [182798, 182925, 182863, 183096]
    first = [127, 123, 128, 134, 125, 128, 130, 124]
    assert recording.signal[0].tolist() == first


def test_parsing_agrees_with_a_plain_reader(recording: EmgRecording) -> None:
    """Every thousandth line, split by hand."""
    path = EMG.path()
    assert path is not None
    lines = path.read_text().splitlines()[1:]
    for row in range(0, len(lines), 1000):
        cells = lines[row].split(",")
        assert recording.signal[row].tolist() == [int(cell) for cell in cells[1:9]]
        assert recording.gestures[recording.gesture[row]] == cells[9]
        assert recording.sessions[recording.session[row]] == cells[10]


def test_windows_are_720_a_session_and_balanced(recording: EmgRecording) -> None:
    windows = recording.windows()
    assert windows.signal.shape == (2880, 250, 8)
    assert np.bincount(windows.session).tolist() == [720] * 4
    assert np.bincount(windows.gesture).tolist() == [576] * 5


def test_windows_do_not_cross_a_border() -> None:
    gesture = np.array([0] * 5 + [1] * 7 + [1] * 4 + [0] * 2)
    session = np.array([0] * 5 + [0] * 7 + [1] * 4 + [1] * 2)
    signal = np.arange(18, dtype=np.uint8)[:, None].repeat(8, axis=1)
    small = EmgRecording(signal, gesture, session, ("a", "b"), ("s", "t"))
    windows = small.windows(length=3)
    assert (windows.signal[:, 0, 0] + 127).tolist() == [0, 5, 8, 12]
    assert windows.gesture.tolist() == [0, 1, 1, 1]
    assert windows.session.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("length", "message"), [(0, "length must be >= 1"), (10**6, "longest run")]
)
def test_impossible_windows_are_refused(recording: EmgRecording, length: int, message) -> None:
    with pytest.raises(ValueError, match=message):
        recording.windows(length)


def test_covariances_are_those_of_numpy(recording: EmgRecording) -> None:
    windows = recording.windows()
    C = windows.covariances()
    assert C.shape == (2880, 8, 8)
    assert np.linalg.eigvalsh(C).min() > 0
    for index in (0, 1234, 2879):
        expected = np.cov(windows.signal[index].T, bias=True)
        expected += 1e-6 * np.trace(expected) / 8 * np.eye(8)
        np.testing.assert_allclose(C[index], expected, rtol=1e-12, atol=1e-12 * expected.max())


def test_loading_takes_seconds_and_not_minutes() -> None:
    start = time.process_time()
    EMG.load()
    assert time.process_time() - start < 10


def csv(path: Path, *rows: str) -> Path:
    file = path / "emg.csv"
    file.write_bytes((HEADER + "".join(f"{row}\n" for row in rows)).encode())
    return file


ROW = "23,0,1,20,255,4,5,6,107,rest,mg_s1"


def test_small_file_and_windows_line_ends(tmp_path: Path) -> None:
    path = csv(tmp_path, ROW, ROW.replace("rest", "rock"))
    plain = read_emg(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    windows = read_emg(path)
    for found in (plain, windows):
        assert found.signal.tolist() == [[0, 1, 20, 255, 4, 5, 6, 107]] * 2
        assert found.gestures == ("rest", "rock")
        assert found.gesture.tolist() == [0, 1]
        assert found.sessions == ("mg_s1",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("23,0,1",), "line 2 must have 11 columns, got 3"),
        ((ROW, ROW + ",1"), "line 3 must have 11 columns, got 12"),
        ((ROW, ROW.replace("255", "256")), "line 3, column c3 must be .* got '256'"),
        ((ROW, ROW.replace(",1,", ",1.5,")), "line 3, column c1 must be .* got '1.5'"),
        ((ROW, ROW.replace(",1,", ",,")), "line 3, column c1 must be .* got ''"),
        ((ROW, ROW.replace(",1,", ",-1,")), "line 3, column c1 must be .* got '-1'"),
        ((ROW, ROW.replace(",1,", ",0001,")), "line 3, column c1 must be .* got '0001'"),
        ((), "it has a header and no samples"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_emg(csv(tmp_path, *rows))


def test_truncated_file_is_named(tmp_path: Path) -> None:
    path = csv(tmp_path, ROW, ROW)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"emg.csv: the file is cut short: its last line does not"):
        read_emg(path)


def test_other_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "emg.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"expected the columns time,c0,.* got 'a,b'"):
        read_emg(path)
