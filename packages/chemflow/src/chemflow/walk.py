"""A walk of a batch: the navigator moves, the model decodes, oracles and surrogates score.

One step is held at a time and no graph is kept, so that memory does not grow with the length.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from chemflow.protocol import LatentModel, Navigator, Surrogate
from chemflow.scoring import Scored, Scorer
from chemflow.starts import Start


@dataclass(frozen=True)
class Step:
    """A batch after `t` steps.

    Attributes:
        z: Codes (b, D).
        smiles: As decoded, "" where nothing was.
        scored: By the oracles.
        predicted, std: By the surrogates (b, k), in the order of the oracles; NaN without one.
    """

    t: int
    z: Float[Tensor, "b d"]
    smiles: list[str]
    scored: Scored
    predicted: Float64[np.ndarray, "b k"]
    std: Float64[np.ndarray, "b k"]


def walk(
    model: LatentModel,
    navigator: Navigator,
    start: Start,
    steps: int,
    scorer: Scorer,
    surrogates: Mapping[str, Surrogate] | None = None,
) -> Iterator[Step]:
    """The start, t = 0, and then `steps` steps.

    Raises ValueError for codes that are not finite, naming the row and the step.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    surrogates = dict(surrogates or {})
    if unknown := set(surrogates) - set(scorer.names):
        raise ValueError(f"surrogates must be of {list(scorer.names)}, got {sorted(unknown)}")
    navigator.reset()
    z = start.z.detach()
    rows = torch.tensor(start.rows, dtype=torch.int64, device=z.device)
    for t in range(steps + 1):
        if t and len(z):
            z = navigator.step(z, t - 1, rows).detach()
            if not bool(z.isfinite().all()):
                bad = int((~z.isfinite().all(-1)).nonzero()[0])
                raise ValueError(f"the code of row {start.rows[bad]} is not finite after step {t}")
        with torch.no_grad():
            smiles = model.decode_smiles(z) if len(z) else []
        if len(smiles) != len(z):
            raise ValueError(f"the model decoded {len(z)} codes to {len(smiles)} strings")
        predicted = np.full((len(z), len(scorer.names)), np.nan)
        std = predicted.copy()
        for column, name in enumerate(scorer.names):
            if name in surrogates and len(z):
                with torch.no_grad():
                    predicted[:, column] = surrogates[name].predict(z).double().cpu().numpy()
                    std[:, column] = surrogates[name].std(z).double().cpu().numpy()
        yield Step(t, z, smiles, scorer(smiles), predicted, std)
