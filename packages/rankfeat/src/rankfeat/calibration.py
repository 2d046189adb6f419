"""The threshold of a detector: which share of in-distribution scores it accepts."""

import ctypes
import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Calibration:
    """In-distribution scores, ascending, and the share of them that is to be accepted."""

    id_scores: Float[Tensor, " n"]
    tpr: float
    fingerprint: str

    def __post_init__(self) -> None:
        if not 0 < self.tpr <= 1:
            raise ValueError(f"tpr must lie in (0, 1], got {self.tpr}")
        if self.id_scores.ndim != 1 or len(self.id_scores) == 0:
            raise ValueError(
                f"id_scores must be (n,) with n >= 1, got {tuple(self.id_scores.shape)}"
            )
        bad = ~self.id_scores.isfinite()
        if bool(bad.any()):
            raise ValueError(f"id_scores[{int(bad.nonzero()[0])}] is NaN or Inf")

    @cached_property
    def threshold(self) -> float:
        """The largest score t such that at least `tpr` of the ID scores are >= t."""
        n = len(self.id_scores)
        share = torch.arange(1, n + 1, dtype=torch.float64) / n
        accepted = int((share < self.tpr).sum()) + 1
        return float(self.id_scores.sort().values[n - accepted])


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of the parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.nbytes else b"")
    return digest.hexdigest()
