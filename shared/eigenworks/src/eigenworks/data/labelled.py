"""Labelled matrices in a user's folder, for protocols whose data cannot be passed on.

samples = read_labelled(folder, "covariances", rank=3)   # folder/covariances.npz
samples.points                                            # (samples, n, n)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from eigenworks.data.npz import read_npz
from eigenworks.dataset import DataError


@dataclass(frozen=True)
class Labelled:
    """`points` (samples, ..., n, n), `label` 0, 1, …, and where the file has them the `domain`
    (session or subject) of each and which samples `test`."""

    points: Float64[np.ndarray, "samples *shape n n"]
    label: Int64[np.ndarray, " samples"]
    domain: Int64[np.ndarray, " samples"] | None
    test: Bool[np.ndarray, " samples"] | None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1


def read_labelled(folder: Path, name: str, rank: int) -> Labelled:
    """Arrays `P`, `label` and, where they are there, `domain` and `test` of `folder/name.npz`.

    P has `rank` dimensions. Raises DataError naming the file and what is wrong with it.
    """
    path = Path(folder, f"{name}.npz")
    if not path.is_file():
        raise DataError(f"{folder} must hold {name}.npz with P, label and test or domain")
    arrays = read_npz(path, "labelled matrices", ("P", "label"))
    P = arrays["P"]
    if P.ndim != rank or P.shape[-1] != P.shape[-2] or P.dtype.kind not in "fiu":
        raise DataError(f"{path}: P must hold {rank}-d numbers of (n, n), got {P.shape} {P.dtype}")
    for key in ("label", "domain", "test"):
        if key in arrays and arrays[key].shape != (len(P),):
            raise DataError(f"{path}: {key} must be ({len(P)},), got {arrays[key].shape}")
    if not len(P):
        raise DataError(f"{path}: P must hold at least one sample")
    label = np.unique(arrays["label"], return_inverse=True)[1]
    domain = np.unique(arrays["domain"], return_inverse=True)[1] if "domain" in arrays else None
    return Labelled(
        P.astype(np.float64),
        label.astype(np.int64),
        None if domain is None else domain.astype(np.int64),
        arrays["test"].astype(bool) if "test" in arrays else None,
    )
