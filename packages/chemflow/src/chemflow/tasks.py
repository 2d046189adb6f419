"""Optimisation tasks of the paper (Sec. 4, App. D): unconstrained, constrained, multi-objective.

What is reported of a molecule is the oracle's value; the surrogate's stands beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from chemflow.objective import Objective, as_objective
from chemflow.optimization import BestOfParts, Optimization, merge
from chemflow.oracles import Oracle
from chemflow.protocol import LatentModel, Navigator, Surrogate
from chemflow.runs import Json, Run, fingerprint
from chemflow.scoring import Scorer
from chemflow.starts import Prior, Starts, digest
from chemflow.tally import THRESHOLDS, Tally
from chemflow.trajectory import Writer
from chemflow.walk import walk

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all, of the batches of this process."""


def optimize(
    model: LatentModel,
    navigator: Navigator,
    objective: Oracle | Objective,
    *,
    start: int | Sequence[str] | Float[Tensor, "n d"] = 1000,
    steps: int = 10,
    seed: int = 0,
    prior: Prior = "model",
    also: Sequence[Oracle] = (),
    surrogates: Mapping[str, Surrogate] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    top: int = 100,
    snapshots: Sequence[int] | None = None,
    batch: int = 256,
    workers: int = 1,
    keep_rows: bool = True,
    folder: str | Path | None = None,
    trajectories: bool = False,
    device: str | torch.device = "cpu",
    group: dist.ProcessGroup | None = None,
    progress: Progress | None = None,
) -> Optimization:
    """Walks from many starts and keeps what the oracles find best on the way.

    With a number as `start` this is the paper's unconstrained task, with SMILES the
    similarity-constrained one: improvements then are measured from the true input molecules, and
    beside from what their codes decode to, as the official code does. With an `Objective` of
    several properties it is the multi-objective task: how navigators follow several is
    `chemflow.multi_objective`.

    A molecule counts where the oracle sees it: the best of a path, the running best under each
    similarity, and the last are all by oracle. What decodes to no molecule is counted and has no
    score.

    Args:
        navigator: Moves the codes; it is reset for every batch, and its `seed` is its own.
        start: Codes of the prior, SMILES, or codes. See `Starts` for `prior`.
        also: Further properties to be measured and not optimised.
        surrogates: By the name of the property, to be reported beside the oracle.
        thresholds: Similarities δ.
        top: Length of the lists of best molecules.
        snapshots: Steps of which all values are kept, for densities; if None about ten, or none
            without rows.
        batch: Rows that walk together. It changes results by rounding only.
        workers: Processes of the oracles.
        keep_rows: Keep a record of every row. Without, what is held grows by a few kilobytes a
            batch: for millions of rows, with batches of thousands.
        folder: Keeps batches there, and the same call goes on after an interruption.
        trajectories: Write every step of every row to the folder.
        group: Processes of torch.distributed that share the batches; every one gets the result.

    Raises ValueError for arguments that do not fit and for a folder that holds another run.
    """
    goal = as_objective(objective)
    oracles = (*goal.oracles, *also)
    if trajectories and folder is None:
        raise ValueError("trajectories need a folder")
    if not all(0 <= one <= 1 for one in thresholds):
        raise ValueError(f"thresholds must be in 0 … 1, got {tuple(thresholds)}")
    starts = Starts(model, start, seed, prior, device)
    if snapshots is None:
        snapshots = _times(steps) if keep_rows else ()
    times = tuple(snapshots)
    settings: Json = {
        "task": "optimize",
        "version": version("chemflow"),
        "rdkit": version("rdkit"),
        "model": fingerprint(model),
        "navigator": fingerprint(navigator),
        "surrogates": {name: fingerprint(one) for name, one in (surrogates or {}).items()},
        "objective": goal.settings(),
        "also": [fingerprint(one) for one in also],
        "start": [starts.kind, starts.size, digest(start)],
        "seed": seed,
        "steps": steps,
        "thresholds": list(thresholds),
        "top": top,
        "snapshots": list(times),
        "batch": batch,
        "keep_rows": keep_rows,
        "trajectories": trajectories,
    }
    run = Run(settings, folder, group)
    share = len(run.share(starts.size, batch))
    done = [0]

    with Scorer(oracles, workers) as scorer:

        def work(number: int, first: int, stop: int) -> Json:
            before = (scorer.asked, scorer.invalid, scorer.evaluated, navigator.oracle_calls)
            begun = starts.batch(first, stop)
            inputs = scorer(begun.inputs) if starts.smiles else None
            tally = Tally(
                goal, begun, inputs, oracles=oracles, seed=seed, top=top, thresholds=thresholds,
                snapshots=times,
            )  # fmt: skip
            path = Path(folder or ".") / f"trajectories-{number:06d}.jsonl"
            with Writer.maybe(path if trajectories else None, scorer.names) as writer:
                for step in walk(model, navigator, begun, steps, scorer, surrogates):
                    similar = tally.see(step, steps)
                    if writer is not None:
                        writer.write(begun, step, similar)
                    if progress is not None:
                        progress(done[0] * (steps + 1) + step.t + 1, share * (steps + 1))
            after = (scorer.asked, scorer.invalid, scorer.evaluated, navigator.oracle_calls)
            names = ("asked", "invalid", "evaluated", "navigator")
            calls = {name: b - a for name, a, b in zip(names, before, after, strict=True)}
            return {**tally.to_json(keep_rows), "calls": calls}

        def finished(batches: int, _of: int) -> None:
            done[0] = batches

        fold = BestOfParts(goal, scorer.names, top)
        parts = run.batches(starts.size, batch, work, finished, fold)
    found = merge(
        parts, settings=settings, objective=goal, oracles=oracles, thresholds=thresholds,
        size=starts.size, seed=seed, top=top,
    )  # fmt: skip
    if folder is not None and run.rank == 0:
        found.save(folder)
    return found


def _times(steps: int) -> tuple[int, ...]:
    """About ten steps, evenly, with the first and the last."""
    return tuple(np.unique(np.linspace(0, steps, min(steps, 10) + 1).round().astype(int)).tolist())
