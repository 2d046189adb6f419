"""Reading plain arrays from an .npz file, without running code from it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eigenworks.dataset import DataError


def read_npz(path: Path, what: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays by name. Raises DataError naming the file where one of `names` is absent too."""
    try:
        # Opened here: NumPy leaves a file open that is no archive.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except MemoryError as error:
        raise DataError(f"{path}: it asks for more memory than there is") from error
    # A changed file makes NumPy fail in any way, even as a program with a wrong syntax.
    except Exception as error:
        raise DataError(f"{path}: not a whole file of {what}: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: {name} must be an array, got {type(array).__name__}")
    if not set(names) <= arrays.keys():
        raise DataError(f"{path}: must have {' and '.join(names)}, got {sorted(arrays)}")
    return arrays
