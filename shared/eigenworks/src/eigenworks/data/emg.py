"""Surface EMG of hand gestures: the armband recordings that the geomstats wheel carries.

Eight channels at about 240 Hz, two subjects (mg, rr) with two sessions each, five gestures
(ok, paper, rest, rock, scissors). 731,682 samples as text, 36 MB.

    recording = EMG.load()                   # the samples, about a second
    windows = recording.windows()            # (2880, 250, 8), 720 a session
    P = windows.covariances()                # (2880, 8, 8), positive definite
    test = windows.session == windows.sessions.index("mg_s2")
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from eigenworks.dataset import DataError, packaged_file, require

HEADER = b"time,c0,c1,c2,c3,c4,c5,c6,c7,label,exp"
CHANNELS = 8
REST_LEVEL = 127
"""The armband's zero: it sends unsigned bytes around 127."""


@dataclass(frozen=True)
class EmgWindows:
    """Windows of one gesture in one session each, in the order of the file.

    `signal` counts armband units from the rest level; `gesture` and `session` index
    `gestures` and `sessions`.
    """

    signal: Float64[np.ndarray, "windows length 8"]
    gesture: Int64[np.ndarray, " windows"]
    session: Int64[np.ndarray, " windows"]
    gestures: tuple[str, ...]
    sessions: tuple[str, ...]

    def covariances(self, ridge: float = 1e-6) -> Float64[np.ndarray, "windows 8 8"]:
        """Sample covariances X̃ᵀX̃/T + ridge tr(X̃ᵀX̃/T)/8 I of the centred windows X̃ (T, 8).

        The ridge is relative to each matrix, so the unit of the signal cancels out.
        Unit: armband units squared.
        """
        centred = self.signal - self.signal.mean(axis=1, keepdims=True)
        C = np.swapaxes(centred, 1, 2) @ centred / self.signal.shape[1]
        level = np.trace(C, axis1=1, axis2=2) / CHANNELS
        return C + ridge * level[:, None, None] * np.eye(CHANNELS)


@dataclass(frozen=True)
class EmgRecording:
    """The whole file: `signal` as sent (0..255), `gesture` and `session` by index, in order."""

    signal: UInt8[np.ndarray, "samples 8"]
    gesture: Int64[np.ndarray, " samples"]
    session: Int64[np.ndarray, " samples"]
    gestures: tuple[str, ...]
    sessions: tuple[str, ...]

    def windows(self, length: int = 250) -> EmgWindows:
        """Non-overlapping windows of `length` samples (250 are about a second).

        A window never crosses from one gesture or session into the next: each run of equal
        labels is cut from its start, and what is left at its end is dropped.
        """
        if length < 1:
            raise ValueError(f"length must be >= 1, got {length}")
        change = np.flatnonzero(
            (np.diff(self.gesture) != 0) | (np.diff(self.session) != 0),
        )
        starts = np.concatenate(([0], change + 1))
        stops = np.concatenate((change + 1, [len(self.signal)]))
        first = np.concatenate(
            [
                np.arange(start, stop - length + 1, length)
                for start, stop in zip(starts, stops, strict=True)
            ]
        )
        if not len(first):
            raise ValueError(f"length must not exceed the longest run of a gesture, got {length}")
        samples = first[:, None] + np.arange(length)
        return EmgWindows(
            signal=self.signal[samples].astype(np.float64) - REST_LEVEL,
            gesture=self.gesture[first],
            session=self.session[first],
            gestures=self.gestures,
            sessions=self.sessions,
        )


@dataclass(frozen=True)
class EmgArmband:
    """The data set. Nothing is read before `load`."""

    name: str = "surface EMG of hand gestures (geomstats wheel)"
    how: str = "pip install --no-deps geomstats"
    licence: str = "geomstats is MIT; the recordings carry no licence of their own"
    citation: str = "Miolane et al., Geomstats, JMLR 21(223), 2020; recorded by Guerard and Renaud"

    def path(self) -> Path | None:
        """Where the csv lies, or None."""
        return packaged_file("geomstats", "datasets/data/emg/emg.csv")

    def available(self) -> bool:
        """Whether the csv is installed."""
        return self.path() is not None

    def load(self) -> EmgRecording:
        """Reads the csv. Raises DataError if it is absent, cut short or has other columns."""
        return read_emg(require(self, self.path()))


EMG = EmgArmband()


def read_emg(path: Path) -> EmgRecording:
    """Parses the csv by its separators, column by column, with whole-array operations.

    A general csv reader spends seconds on each of 731,682 rows as objects of their own.
    Raises DataError naming the file and the first line that is wrong.
    """
    text = path.read_bytes()
    head, newline, _ = text.partition(b"\n")
    if head.rstrip(b"\r") != HEADER:
        shown = head[:80].decode("utf-8", "replace").rstrip("\r")
        raise DataError(f"{path}: expected the columns {HEADER.decode()}, got {shown!r}")
    if not newline or not text.endswith(b"\n"):
        raise DataError(f"{path}: the file is cut short: its last line does not end")
    if b"\r" in head:
        text = text.replace(b"\r\n", b"\n")
    buffer = np.frombuffer(text, np.uint8)[len(HEADER) + 1 :]
    if not len(buffer):
        raise DataError(f"{path}: the file is cut short: it has a header and no samples")

    comma, line_end = (np.flatnonzero(buffer == ord(separator)) for separator in ",\n")
    columns = HEADER.count(b",") + 1
    # With the right number of separators in all, a row is right if its own lie inside it.
    bounds = np.searchsorted(comma, line_end)
    per_row = np.diff(bounds, prepend=0)
    wrong = np.flatnonzero(per_row != columns - 1)
    if len(wrong):
        raise DataError(
            f"{path}: line {wrong[0] + 2} must have {columns} columns, got {per_row[wrong[0]] + 1}"
        )
    comma = comma.reshape(-1, columns - 1)

    signal = np.empty((len(line_end), CHANNELS), np.uint8)
    for channel in range(CHANNELS):
        start, stop = comma[:, channel] + 1, comma[:, channel + 1]
        signal[:, channel] = _bytes_column(path, buffer, start, stop, f"c{channel}")
    gesture, gestures = _word_column(buffer, comma[:, 8] + 1, comma[:, 9])
    session, sessions = _word_column(buffer, comma[:, 9] + 1, line_end)
    return EmgRecording(signal, gesture, session, gestures, sessions)


def _bytes_column(
    path: Path, buffer: np.ndarray, start: np.ndarray, stop: np.ndarray, name: str
) -> UInt8[np.ndarray, " samples"]:
    """Whole numbers 0..255 of one to three digits."""
    width = stop - start
    good = (width >= 1) & (width <= 3)
    value = np.zeros(len(start), np.int64)
    for place in range(3):
        used = width > place
        # Where a number has no such digit, the byte read is another field's and not counted.
        digit = buffer[np.maximum(stop - 1 - place, 0)].astype(np.int64) - ord("0")
        good &= ~used | ((digit >= 0) & (digit <= 9))
        value += np.where(used, digit * 10**place, 0)
    good &= value <= 255
    if not good.all():
        line = int(np.flatnonzero(~good)[0])
        shown = buffer[start[line] : stop[line]].tobytes().decode("utf-8", "replace")
        raise DataError(
            f"{path}: line {line + 2}, column {name} must be a whole number from 0 to 255, "
            f"got {shown!r}"
        )
    return value.astype(np.uint8)


def _word_column(
    buffer: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[Int64[np.ndarray, " samples"], tuple[str, ...]]:
    """Index of each row's word among the sorted distinct words, and those words.

    The words come in long runs, so only the first row of each run is turned into text.
    """
    width = int((stop - start).max())
    offset = np.arange(width)
    at = start[:, None] + offset
    letters = np.where(at < stop[:, None], buffer[np.minimum(at, len(buffer) - 1)], 0)
    new = np.concatenate(([True], (letters[1:] != letters[:-1]).any(axis=1)))
    first = np.flatnonzero(new)
    text = [buffer[start[row] : stop[row]].tobytes().decode("utf-8", "replace") for row in first]
    words = tuple(sorted(set(text)))
    index = np.array([words.index(word) for word in text], np.int64)
    return np.repeat(index, np.diff(first, append=len(start))), words
