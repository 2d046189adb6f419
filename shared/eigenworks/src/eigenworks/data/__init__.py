"""Real data that experiments share, each a small frozen object: `EMG.load()`."""

from eigenworks.data.emg import EMG
from eigenworks.dataset import DataError, DataSet, development_file

__all__ = ["EMG", "DataError", "DataSet", "development_file"]
