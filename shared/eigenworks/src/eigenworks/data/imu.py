"""Shoulder exercises by the motion sensor of a watch, from the seglearn wheel.

140 recordings of ten subjects, seven exercises, both sides; acceleration and angular
velocity (ax, ay, az, wx, wy, wz) at 50 Hz, 947 samples and more each.

    recordings = WATCH.load()
    recordings.signal[0]                     # (1333, 6)
    held_out = recordings.subject == 3
"""

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from eigenworks.dataset import DataError, packaged_file, require

CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")


@dataclass(frozen=True)
class WatchRecordings:
    """One entry a recording: `exercise` indexes `exercises`, `subject` counts from 1, `right`
    says which arm.
    """

    signal: tuple[Float64[np.ndarray, "_ 6"], ...]
    exercise: Int64[np.ndarray, " recordings"]
    subject: Int64[np.ndarray, " recordings"]
    right: np.ndarray
    exercises: tuple[str, ...]


@dataclass(frozen=True)
class WatchImu:
    """The data set. Nothing is read before `load`."""

    name: str = "watch IMU of shoulder exercises (seglearn wheel)"
    how: str = "pip install --no-deps seglearn"
    licence: str = "BSD 3-clause (seglearn)"
    citation: str = "Burns et al., Physiol. Meas. 39 (2018), arXiv:1802.01489"

    def path(self) -> Path | None:
        """Where the file lies, or None."""
        return packaged_file("seglearn", "data/watch_dataset.npy")

    def available(self) -> bool:
        """Whether the file is installed."""
        return self.path() is not None

    def load(self) -> WatchRecordings:
        """Reads the recordings. Raises DataError if the file is absent, cut short or different."""
        return read_watch(require(self, self.path()))


WATCH = WatchImu()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers; any other name in the file is refused."""

    _modules = {  # noqa: RUF012 - a constant
        ("numpy", "dtype"): "numpy",
        ("numpy", "ndarray"): "numpy",
        # Arrays that NumPy 1 pickled name the module by its old path.
        ("numpy.core.multiarray", "_reconstruct"): "numpy._core.multiarray",
        ("numpy._core.multiarray", "_reconstruct"): "numpy._core.multiarray",
        ("_codecs", "encode"): "_codecs",
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._modules:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return super().find_class(self._modules[module, name], name)


def read_watch(path: Path) -> WatchRecordings:
    """Reads the .npy file, which holds a pickled dictionary, without running code from it.

    Raises DataError naming the file and what is wrong with it.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"its format version is {version}, not (1, 0)")
            np.lib.format.read_array_header_1_0(file)
            with warnings.catch_warnings():
                # Old pickles give dtype() an int where NumPy 2.4 wants a bool.
                warnings.simplefilter("ignore")
                held = _ArraysOnly(file).load()
        # A changed file makes an unpickler fail in any way.
        except Exception as error:
            raise DataError(f"{path}: not a whole watch data set: {error}") from error
    data = held.item() if isinstance(held, np.ndarray) and held.ndim == 0 else held
    expected = {"X", "y", "subject", "side", "X_labels", "y_labels"}
    if not isinstance(data, dict) or set(data) != expected:
        got = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{path}: expected the entries {sorted(expected)}, got {got}")
    if tuple(data["X_labels"]) != CHANNELS:
        raise DataError(f"{path}: expected the channels {CHANNELS}, got {data['X_labels']}")
    counts = {len(data[name]) for name in ("X", "y", "subject", "side")}
    if len(counts) != 1 or any(x.ndim != 2 or x.shape[1] != len(CHANNELS) for x in data["X"]):
        raise DataError(f"{path}: recordings, labels and subjects do not belong together")
    return WatchRecordings(
        signal=tuple(data["X"]),
        exercise=data["y"],
        subject=data["subject"],
        right=data["side"] == 1,
        exercises=tuple(data["y_labels"]),
    )
