"""Gestures from surface EMG across sessions: train on one, test on the other.

Each session is a domain. Electrodes move between sessions; statistics of the training session
do not fit the other one, while domain-specific layers are refitted to its unlabelled windows.
"""

from collections.abc import Iterator

import torch
from eigenworks import Claim, Experiment, Figure, Row, Size, Trial
from eigenworks.data import EMG

from liebn.experiments.compare import ADAPTED, NEAREST, compare
from liebn.experiments.network import Recipe, Samples

SPLITS = {"mg s1→s2": ("mg_s1", "mg_s2"), "rr s1→s2": ("rr_s1", "rr_s2")}
"""Training and test session."""


def run(trial: Trial) -> Iterator[Row]:
    """Accuracies of every method on the second session of each subject, and gains."""
    cut = EMG.load().windows()
    arrays = (cut.covariances(), cut.gesture, cut.session)
    windows = Samples(*(torch.from_numpy(a) for a in arrays))

    def of(session: str) -> Samples:
        return windows[windows.domain == cut.sessions.index(session)]

    splits = {split: (of(known), of(test)) for split, (known, test) in SPLITS.items()}
    recipe = Recipe(epochs=trial.parameters["epochs"], decay=trial.parameters["decay"])
    yield from compare(trial, splits, trial.parameters["sizes"], len(cut.gestures), recipe)


_TANGENT = {"mg s1→s2": 74.31, "rr s1→s2": 77.64}
_MDM = {"mg s1→s2": 84.86, "rr s1→s2": 82.64}

experiment = Experiment(
    name="liebn/emg",
    title="Gestures from surface EMG across sessions",
    claim=Claim(
        "Domain-specific LieBN lifts the accuracy in a new session by at least 10 points, to at "
        "least that of the re-centred tangent space",
        source="LieBN, ICLR 2024, Table 5 (domain-specific momentum on EEG); pyRiemann 0.12 here",
    ),
    run=run,
    quick=Size(
        seconds=20, seeds=(0,), parameters={"epochs": 4, "decay": 1e-2, "sizes": (8, 8)}
    ),
    full=Size(
        seconds=80,
        seeds=tuple(range(10)),
        parameters={"epochs": 20, "decay": 1e-2, "sizes": (8, 8)},
    ),
    data=(EMG,),
    figures=(
        *(
            Figure(
                f"{ADAPTED}, {split}", "accuracy", value,
                "pyRiemann 0.12, re-centred tangent space and logistic regression, this data",
                tolerance=0.0, relation="at least",
            )
            for split, value in _TANGENT.items()
        ),
        *(
            Figure(
                f"{name}, {split}", "accuracy", value,
                "pyRiemann 0.12, re-centred minimum distance to mean, this data",
            )
            for split, value in _MDM.items()
            for name in (NEAREST, "domain-specific LieBN-LEM")
        ),
        *(
            Figure(
                f"{ADAPTED}, {split}", "gain over none", 10.0,
                "what is expected of it", tolerance=0.0, relation="at least",
            )
            for split in SPLITS
        ),
    ),
    notes="5 gestures, 720 windows a session. Gains are of the same seed, so that their "
    "intervals are paired. Domain-specific layers are refitted to the unlabelled windows of the "
    "test session, as re-centring is; the others know nothing of it.",
)  # fmt: skip
