"""Actions from skeletons (MSR Action3D), subjects as domains, on subjects never seen.

Covariances (57, 57) over the frames of joints relative to the hip, of fewer frames than
variables in some sequences, hence shrunk. Odd subjects train, even ones test.
"""

from collections.abc import Iterator

import numpy as np
import torch
from eigenworks import Claim, Experiment, Figure, Row, Size, Trial
from eigenworks.data import MSR_ACTION3D
from linalg_kernels import covariance

from liebn.experiments.compare import ADAPTED, compare
from liebn.experiments.network import Recipe, Samples

HIP = 6
SHRINKAGE = 0.02
SPLIT = "even subjects"


def sequences() -> tuple[Samples, int]:
    """All sequences and the number of actions; domains are subjects."""
    skeletons = MSR_ACTION3D.load()
    others = [joint for joint in range(20) if joint != HIP]
    P = []
    for X in skeletons.joints:
        relative = (X[:, others] - X[:, [HIP]]).astype(np.float64)
        signal = torch.from_numpy(relative.reshape(len(X), -1)).mT
        P.append(covariance(signal, shrinkage=SHRINKAGE, ddof=0))
    label, subject = (torch.from_numpy(a) for a in (skeletons.action, skeletons.subject))
    return Samples(torch.stack(P), label, subject), skeletons.actions


def run(trial: Trial) -> Iterator[Row]:
    """Accuracies of every method on the even subjects."""
    samples, classes = sequences()
    odd = samples.domain % 2 == 1
    recipe = Recipe(epochs=trial.parameters["epochs"], decay=trial.parameters["decay"])
    splits = {SPLIT: (samples[odd], samples[~odd])}
    yield from compare(trial, splits, trial.parameters["sizes"], classes, recipe)


_PARAMETERS = {"decay": 1e-2, "sizes": (57, 30)}

experiment = Experiment(
    name="liebn/skeletons",
    title="Actions from skeletons on subjects never seen",
    claim=Claim(
        "LieBN raises the accuracy of SPDNet on skeleton actions",
        source="LieBN, ICLR 2024, Table 4 (HDM05 and FPHA; this is another data set)",
    ),
    run=run,
    quick=Size(seconds=20, seeds=(0,), parameters={"epochs": 5, **_PARAMETERS}),
    full=Size(seconds=70, seeds=tuple(range(10)), parameters={"epochs": 20, **_PARAMETERS}),
    data=(MSR_ACTION3D,),
    figures=(
        Figure(
            f"{ADAPTED}, {SPLIT}", "accuracy", 79.27,
            "pyRiemann 0.12, tangent space and logistic regression, not adapted, this data",
        ),
    ),
    notes="20 actions, 566 sequences, 10 subjects. The data set has no licence to pass it on: "
    "the file is looked for in the folder that EIGENWORKS_DATA names. HDM05 and FPHA, on which "
    "the paper reports, could not be had.",
)  # fmt: skip
