"""Shoulder exercises by a watch's motion sensor, subjects as domains, on subjects never seen.

Covariances (6, 6) of windows of four seconds. Every third subject is held out; their
statistics come from their own unlabelled windows.
"""

from collections.abc import Iterator

import numpy as np
import torch
from eigenworks import Claim, Experiment, Figure, Row, Size, Trial
from eigenworks.data import WATCH
from linalg_kernels import covariance

from liebn.experiments.compare import ADAPTED, compare
from liebn.experiments.network import Recipe, Samples

LENGTH = 200
"""Samples of a window, 50 a second; what is left at the end of a recording is dropped."""
SPLIT = "subjects 3, 6, 9"


def windows() -> tuple[Samples, int]:
    """All windows and the number of exercises; domains are subjects."""
    recordings = WATCH.load()
    cut = [
        x[: len(x) // LENGTH * LENGTH].reshape(-1, LENGTH, x.shape[1]) for x in recordings.signal
    ]
    counts = torch.tensor([len(x) for x in cut])
    signal = torch.from_numpy(np.concatenate(cut)).double().mT
    label = torch.from_numpy(recordings.exercise).repeat_interleave(counts)
    subject = torch.from_numpy(recordings.subject).repeat_interleave(counts)
    P = covariance(signal, shrinkage=1e-6, ddof=0)
    return Samples(P, label.long(), subject.long()), len(recordings.exercises)


def run(trial: Trial) -> Iterator[Row]:
    """Accuracies of every method on the subjects that were held out."""
    samples, classes = windows()
    held = samples.domain % 3 == 0
    recipe = Recipe(
        epochs=trial.parameters["epochs"],
        batch=trial.parameters["batch"],
        decay=trial.parameters["decay"],
    )
    splits = {SPLIT: (samples[~held], samples[held])}
    yield from compare(trial, splits, trial.parameters["sizes"], classes, recipe)


_PARAMETERS = {"batch": 60, "decay": 1e-2, "sizes": (6, 6)}

experiment = Experiment(
    name="liebn/imu",
    title="Shoulder exercises by a watch on subjects never seen",
    claim=Claim(
        "Domain-specific LieBN adapts to new subjects",
        source="LieBN, ICLR 2024, Table 5 (inter-subject EEG)",
    ),
    run=run,
    quick=Size(seconds=10, seeds=(0,), parameters={"epochs": 5, **_PARAMETERS}),
    full=Size(seconds=30, seeds=tuple(range(10)), parameters={"epochs": 20, **_PARAMETERS}),
    data=(WATCH,),
    figures=(
        Figure(
            f"{ADAPTED}, {SPLIT}", "accuracy", 75.59,
            "pyRiemann 0.12, tangent space and logistic regression, not adapted, this data",
        ),
    ),
    notes="7 exercises, 10 subjects. Domain-specific layers see the held-out subjects' windows "
    "without labels; the other methods do not. The test set is three people.",
)  # fmt: skip
