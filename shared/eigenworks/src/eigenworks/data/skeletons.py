"""Actions of ten people as skeletons: MSR Action3D, 566 sequences of 20 joints.

skeletons = MSR_ACTION3D.load()
skeletons.joints[0]                      # (54, 20, 3), metres
train = skeletons.subject % 2 == 1
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from eigenworks.data.npz import read_npz
from eigenworks.dataset import DataError, development_file, has_development_files

FILE = "spd/msraction3d_skeleton.npz"
ACTIONS, SUBJECTS, JOINTS = 20, 10, 20


@dataclass(frozen=True)
class SkeletonSequences:
    """One entry a sequence: `joints` (frames, 20, 3) in metres, `action` 0..19, `subject` 1..10."""

    joints: tuple[Float32[np.ndarray, "_ 20 3"], ...]
    action: Int64[np.ndarray, " sequences"]
    subject: Int64[np.ndarray, " sequences"]
    actions: int = ACTIONS


@dataclass(frozen=True)
class MsrAction3D:
    """The data set; `EIGENWORKS_DATA` says where it lies."""

    name: str = "MSR Action3D skeletons"
    how: str = (
        f"{FILE} (X of all frames, length, action, subject of each sequence) in the folder that "
        "EIGENWORKS_DATA names"
    )
    licence: str = "none stated; for research"
    citation: str = "Li, Zhang and Liu, CVPR workshops 2010"

    def available(self) -> bool:
        """Whether the file is there."""
        return has_development_files(FILE)

    def load(self) -> SkeletonSequences:
        """Reads the sequences. Raises DataError if the file is absent, cut short or different."""
        return read_skeletons(development_file(FILE))


MSR_ACTION3D = MsrAction3D()


def read_skeletons(path: Path) -> SkeletonSequences:
    """`X`, `length`, `action` 1..20 and `subject` of an .npz file. Raises DataError naming it."""
    names = ("X", "length", "action", "subject")
    arrays = read_npz(path, "skeletons", names)
    X, length, action, subject = (arrays[name] for name in names)
    if X.dtype != np.float32 or X.ndim != 3 or X.shape[1:] != (JOINTS, 3):
        raise DataError(f"{path}: expected float32 joints (frames, 20, 3), got {X.dtype} {X.shape}")
    if not (len(length) == len(action) == len(subject) and length.sum() == len(X)):
        raise DataError(f"{path}: sequences, actions and subjects do not belong together")
    for name, values, most in (("action", action, ACTIONS), ("subject", subject, SUBJECTS)):
        if not np.isin(values, np.arange(1, most + 1)).all():
            raise DataError(f"{path}: expected {name} from 1 to {most}")
    joints = tuple(np.split(X, np.cumsum(length)[:-1]))
    return SkeletonSequences(joints, action.astype(np.int64) - 1, subject.astype(np.int64))
