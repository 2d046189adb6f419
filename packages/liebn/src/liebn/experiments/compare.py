"""Trains every method on every split of a data set and yields accuracies and gains."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from eigenworks import Row, Trial
from spd_metrics.estimators import MDM
from torch import Tensor

from liebn.experiments.methods import METHODS, NONE
from liebn.experiments.network import (
    NormalisedSPDNet,
    Recipe,
    Samples,
    accuracy,
    adapted_features,
    guesses,
    train,
)

ADAPTED = "domain-specific LieBN-AIM"
NEAREST = f"{ADAPTED}, nearest mean"


def nearest_mean(network: NormalisedSPDNet, known: Samples, test: Samples) -> Tensor:
    """Guesses for `test` by minimum distance to mean on the adapted features of the network."""
    model = MDM().fit(adapted_features(network, known).numpy(), known.label.numpy())
    return torch.from_numpy(model.predict(adapted_features(network, test).numpy()))


def compare(
    trial: Trial,
    splits: Mapping[str, tuple[Samples, Samples]],
    sizes: Sequence[int],
    classes: int,
    recipe: Recipe,
) -> Iterator[Row]:
    """Rows "method, split" of a seed; a gain is over the network without normalisation.

    Training and test matrices are divided by one number, the mean diagonal entry of the
    training matrices: log-Cholesky coordinates depend on the unit.
    """
    done = 0
    for split, parts in splits.items():
        unit = parts[0].P.diagonal(dim1=-2, dim2=-1).mean()
        known, test = (Samples(part.P / unit, part.label, part.domain) for part in parts)
        found: dict[str, float] = {}
        for name, normalisation in METHODS.items():
            trial.progress(done / (len(splits) * len(METHODS)), f"{split}, {name}")
            done += 1
            torch.manual_seed(trial.seed)
            network = NormalisedSPDNet(sizes, classes, normalisation)
            train(network, known, recipe)
            found[name] = accuracy(guesses(network, test), test.label)
            if name == ADAPTED:
                found[NEAREST] = accuracy(nearest_mean(network, known, test), test.label)
        for name, value in found.items():
            label = f"{name}, {split}"
            yield Row(label, "accuracy", value, unit="%", better="higher")
            if name != NONE:
                gain = value - found[NONE]
                yield Row(label, "gain over none", gain, unit="points", better="higher")
