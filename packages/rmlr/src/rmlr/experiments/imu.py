"""Shoulder exercises by a watch's motion sensor, on subjects never seen.

Covariances (6, 6) of windows of four seconds. Every third subject is held out; one of the
others decides between configurations, which one goes with the seed.
"""

from collections.abc import Iterator

import torch
from eigenworks import Claim, Experiment, Row, Size, Trial
from eigenworks.data import WATCH
from linalg_kernels import covariance
from torch import Tensor

from rmlr.experiments.training import Budget, Samples, compare, leave_subject_out, rows

LENGTH = 200
"""Samples of a window, 50 a second."""


def windows() -> tuple[Samples, Tensor]:
    """All whole windows, and the subject of each."""
    recordings = WATCH.load()
    cut = [torch.from_numpy(x).unfold(0, LENGTH, LENGTH) for x in recordings.signal]
    counts = torch.tensor([len(x) for x in cut])
    S = covariance(torch.cat(cut).double(), shrinkage=1e-6, ddof=0)
    y = torch.from_numpy(recordings.exercise).long().repeat_interleave(counts)
    return Samples(S, y), torch.from_numpy(recordings.subject).repeat_interleave(counts)


def run(trial: Trial) -> Iterator[Row]:
    """Accuracies of every method on the subjects that were held out."""
    samples, subject = windows()
    split = leave_subject_out(samples, subject, torch.tensor([3, 6, 9]), trial.seed)
    budget = Budget(trial.parameters["epochs"], batch=64)
    yield from rows(compare([split], budget, trial.seed, trial.progress))


experiment = Experiment(
    name="rmlr/imu",
    title="Shoulder exercises by a watch on subjects never seen: classifiers of eight metrics",
    claim=Claim(
        "Classifiers of other metrics than the log-Euclidean one beat LogEig in direct "
        "classification of covariances",
        source="Chen et al., NeurIPS 2024, Table 9 (radar, skeletons, EEG)",
    ),
    run=run,
    quick=Size(seconds=10, seeds=(0,), parameters={"epochs": 3}),
    full=Size(seconds=20, seeds=tuple(range(10)), parameters={"epochs": 10}),
    data=(WATCH,),
    headline=(("affine-invariant, new subjects", "gain over LogEig"),),
    notes="7 exercises, 10 subjects, 6 x 6 covariances. Budgets and choices as in rmlr/emg. The "
    "test set is three people; windows of a recording are correlated.",
)
