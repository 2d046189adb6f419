"""The check that comes after scores: which pair of sample and class has none."""

import torch
from jaxtyping import Float
from linalg_kernels import LinAlgError, errors
from torch import Tensor


def check_defined(scores: Float[Tensor, "b c"], sample: str, why: str) -> None:
    """LinAlgError naming the first sample and class whose score is NaN or infinite.

    Nothing is checked where Python cannot read values, as in a traced graph.
    """
    if not errors.can_read(scores) or torch._C._are_functorch_transforms_active():
        return
    found = scores.detach()
    # One pass in the usual case.
    if bool(torch.isfinite(found.sum())):
        return
    bad = ~torch.isfinite(found)
    if bool(bad.any()):
        i, k = torch.nonzero(bad)[0].tolist()
        raise LinAlgError(f"{sample}[{i}] seen from P[{k}] {why}")
