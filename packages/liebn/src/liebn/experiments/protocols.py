"""The experiments of the paper as configurations, for whoever has the data.

    python -m liebn.experiments.protocols hdm05 FOLDER --seeds 10

FOLDER holds `covariances.npz` with `P` (samples, n, n), positive definite, `label`, and either
`test` (True for test samples) or none, when a fraction is drawn for each seed; for Hinss2021
also `domain` (session or subject), and the last domains test. Sizes, splits and training are
those of Chen et al., ICLR 2024; what the paper prints stands beside what is measured.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from eigenworks.data import read_labelled
from torch import Tensor

from liebn.batch_norm import LieBatchNorm
from liebn.domain import DomainLieBatchNorm
from liebn.experiments.brooks import SPDNetBN
from liebn.experiments.network import (
    NormalisedSPDNet,
    Recipe,
    Samples,
    accuracy,
    guesses,
    train,
)
from liebn.group import LieGroup
from liebn.groups import AffineInvariantGroup, LogCholeskyGroup, LogEuclideanGroup

GROUPS: Mapping[str, LieGroup] = {
    "AIM-(1)": AffineInvariantGroup(),
    "LEM": LogEuclideanGroup(),
    "LCM-(1)": LogCholeskyGroup(),
    "AIM-(1.5)": AffineInvariantGroup(1.5),
    "AIM-(-0.5)": AffineInvariantGroup(-0.5),
    "LCM-(0.5)": LogCholeskyGroup(0.5),
    "LCM-(-0.5)": LogCholeskyGroup(-0.5),
}


@dataclass(frozen=True)
class Protocol:
    """One data set of the paper.

    `published` are mean and standard deviation, in per cent, of the methods that it prints.
    `held_out` is the fraction of samples that test where the file names none; `specific`
    makes the normalisation domain-specific.
    """

    sizes: tuple[int, ...]
    recipe: Recipe
    held_out: float
    published: Mapping[str, tuple[float, float]]
    specific: bool = False


_PLAIN = Recipe(epochs=200, batch=30, rate=5e-3)
# Adaptation ends after 40 of 50 epochs; a batch of 50 has 5 domains.
_EEG = Recipe(epochs=50, batch=50, rate=1e-3, decay=1e-4, fraction=0.2, settled=40)

PROTOCOLS: Mapping[str, Protocol] = {
    "radar": Protocol((20, 16, 8), _PLAIN, 0.25, {
        "SPDNet": (93.25, 1.10), "SPDNetBN": (94.85, 0.99), "AIM-(1)": (95.47, 0.90),
        "LEM": (94.89, 1.04), "LCM-(1)": (93.52, 1.07), "LCM-(-0.5)": (94.80, 0.71),
    }),
    "hdm05": Protocol((93, 30), _PLAIN, 0.5, {
        "SPDNet": (59.13, 0.67), "SPDNetBN": (66.72, 0.52), "AIM-(1)": (67.79, 0.65),
        "LEM": (65.05, 0.63), "LCM-(1)": (66.68, 0.71), "AIM-(1.5)": (68.16, 0.68),
        "LCM-(0.5)": (70.84, 0.92),
    }),
    "fpha": Protocol((63, 33), _PLAIN, 0.5, {
        "SPDNet": (85.59, 0.72), "SPDNetBN": (89.33, 0.49), "AIM-(1)": (89.70, 0.51),
        "LEM": (86.56, 0.79), "LCM-(1)": (77.64, 1.00), "AIM-(1.5)": (90.39, 0.66),
        "LCM-(0.5)": (86.33, 0.43),
    }),
    "hinss2021-session": Protocol((40, 20), _EEG, 0.5, {
        "AIM-(1)": (55.10, 7.61), "LEM": (54.95, 10.09), "LCM-(1)": (51.54, 6.88),
        "LCM-(0.5)": (53.11, 5.65),
    }, specific=True),
    "hinss2021-subject": Protocol((40, 20), _EEG, 0.1, {
        "AIM-(1)": (50.04, 8.01), "LEM": (50.95, 6.40), "LCM-(1)": (51.86, 4.53),
        "AIM-(-0.5)": (53.97, 8.78),
    }, specific=True),
}  # fmt: skip


def read(folder: Path) -> tuple[Samples, Tensor | None]:
    """Samples, and which of them test where the file says so. Raises DataError if it is wrong."""
    found = read_labelled(folder, "covariances", rank=3)
    domain = 0 * found.label if found.domain is None else found.domain
    arrays = (found.points, found.label, domain)
    test = None if found.test is None else torch.from_numpy(found.test)
    return Samples(*(torch.from_numpy(array) for array in arrays)), test


def split(samples: Samples, test: Tensor | None, protocol: Protocol, seed: int) -> Tensor:
    """Which samples test: as the file says, the last domains, or at random by seed."""
    if test is not None:
        return test
    domains = samples.domain.unique()
    if protocol.specific and len(domains) > 1:
        last = max(1, round(protocol.held_out * len(domains)))
        return torch.isin(samples.domain, domains[-last:])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator)
    chosen = torch.zeros(len(samples), dtype=torch.bool)
    chosen[order[: round(protocol.held_out * len(samples))]] = True
    return chosen


def network(method: str, protocol: Protocol, n: int, classes: int) -> NormalisedSPDNet:
    """An SPDNet with the normalisation that the paper's row names."""
    if protocol.sizes[0] != n:
        raise ValueError(f"P must be of order {protocol.sizes[0]}, got {n}")

    def normalisation(order: int) -> torch.nn.Module:
        if method == "SPDNetBN":
            return SPDNetBN(order, dtype=torch.float64)
        kind = DomainLieBatchNorm if protocol.specific else LieBatchNorm
        return kind(GROUPS[method], order, dtype=torch.float64)

    return NormalisedSPDNet(protocol.sizes, classes, None if method == "SPDNet" else normalisation)


def run(
    protocol: Protocol, folder: Path, seeds: Sequence[int], methods: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """Test accuracies, in per cent, of each method for each seed."""
    samples, test = read(folder)
    found: dict[str, list[float]] = {}
    for method in protocol.published if methods is None else methods:
        for seed in seeds:
            held = split(samples, test, protocol, seed)
            torch.manual_seed(seed)
            model = network(method, protocol, samples.P.shape[-1], int(samples.label.max()) + 1)
            train(model, samples[~held], protocol.recipe)
            value = accuracy(guesses(model, samples[held]), samples.label[held])
            found.setdefault(method, []).append(value)
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=sorted(PROTOCOLS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    protocol = PROTOCOLS[options.protocol]
    for method, values in run(protocol, options.folder, range(options.seeds)).items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        mean, sd = protocol.published[method]
        print(
            f"{method:12s} {statistics.mean(values):6.2f} ± {spread:5.2f} %   "
            f"published {mean:6.2f} ± {sd:5.2f} %"
        )


if __name__ == "__main__":
    main()
