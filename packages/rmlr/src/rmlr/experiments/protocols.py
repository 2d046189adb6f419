"""The experiments of the papers as configurations, for whoever has the data.

    python -m rmlr.experiments.protocols hdm05 FOLDER --seeds 10

FOLDER holds `covariances.npz` with `P` (samples, n, n), positive definite, or for `g3d` and
`hdm05-rotations` `rotations.npz` with `P` (samples, joints, frames, 3, 3); in both `label`, and
either `test` (True for test samples), or `domain` (subject or session, of which the last ones
test), or neither, when a fraction is drawn for each seed. Sizes, step sizes and numbers of
epochs are those of Chen et al., NeurIPS 2024, with Adam in place of Riemannian SGD; what the
paper prints stands beside what is measured.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from eigenworks.data import Labelled, read_labelled
from spd_metrics import (
    AffineInvariant,
    BiMap,
    BuresWasserstein,
    LogCholesky,
    LogEuclidean,
    Metric,
    PowerEuclidean,
    ReEig,
    RiemannianResidual,
    SpectralField,
)
from torch import Tensor, nn

from rmlr.experiments.rotations import LIE, LOG, lie_net
from rmlr.experiments.training import Budget, Samples, Split, fit
from rmlr.log_eig import LogEigMLR
from rmlr.mlr import RiemannianMLR

METRICS: Mapping[str, Metric] = {
    "AIM-(1,1,0)": AffineInvariant(),
    "EM-(1,1,0)": PowerEuclidean(),
    "EM-(1,1,1/8)": PowerEuclidean(1.0, 1.0, 1 / 8),
    "EM-(.5,1,1/30)": PowerEuclidean(0.5, 1.0, 1 / 30),
    "LEM-(1,0)": LogEuclidean(),
    "LEM-(1,1)": LogEuclidean(1.0, 1.0),
    "BWM-(.5)": BuresWasserstein(0.5),
    "BWM-(.25)": BuresWasserstein(0.25),
    "LCM-(1)": LogCholesky(),
    "LCM-(.5)": LogCholesky(0.5),
}
"""The paper's names of metrics, (θ, α, β)."""
LOG_EIG = "LogEig"
Published = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Protocol:
    """One data set of the paper.

    `published` are mean and standard deviation, in per cent, of the methods that it prints.
    `sizes` are those of the SPDNet in front, one size for none; `residual` puts a Riemannian
    residual block (affine-invariant) behind it. `held_out` is the fraction of samples, or of
    domains, that test where the file names none; `balanced` averages accuracy over classes.
    """

    sizes: tuple[int, ...]
    budget: Budget
    rate: float
    held_out: float
    published: Published
    residual: bool = False
    balanced: bool = False
    file: str = "covariances"


_SPDNET = Budget(epochs=200, batch=30)
_EEG = Budget(epochs=50, batch=50)

PROTOCOLS: Mapping[str, Protocol] = {
    "radar": Protocol((20, 16, 8), _SPDNET, 1e-2, 0.25, {
        LOG_EIG: (92.88, 1.05), "AIM-(1,1,0)": (94.53, 0.95), "EM-(1,1,0)": (94.24, 0.55),
        "EM-(1,1,1/8)": (94.93, 0.60), "LEM-(1,0)": (93.55, 1.21), "LEM-(1,1)": (95.64, 0.83),
        "BWM-(.5)": (92.22, 0.83), "BWM-(.25)": (94.99, 0.47), "LCM-(1)": (93.49, 1.25),
        "LCM-(.5)": (94.59, 0.82),
    }),
    "hdm05": Protocol((93, 30), _SPDNET, 1e-2, 0.5, {
        LOG_EIG: (57.42, 1.31), "AIM-(1,1,0)": (58.07, 0.64), "EM-(1,1,0)": (66.32, 0.63),
        "EM-(.5,1,1/30)": (71.65, 0.88), "LEM-(1,0)": (56.97, 0.61), "BWM-(.5)": (70.24, 0.92),
        "LCM-(1)": (63.84, 1.31), "LCM-(.5)": (65.66, 0.73),
    }),
    "hdm05-residual": Protocol((93, 30), _SPDNET, 1e-2, 0.5, {
        LOG_EIG: (58.17, 2.07), "AIM-(1,1,0)": (60.23, 1.26), "EM-(.5,1,1/30)": (71.89, 0.60),
        "LEM-(1,0)": (59.44, 0.87), "BWM-(.5)": (69.85, 0.23), "LCM-(.5)": (65.76, 0.96),
    }, residual=True),
    # The order of the matrices (25 joints) and their reduction are ours: not in the text read.
    "ntu60": Protocol((75, 30), _SPDNET, 1e-2, 0.5, {
        LOG_EIG: (45.22, 1.23), "AIM-(1,1,0)": (48.94, 0.68), "EM-(.5,1,1/30)": (52.24, 1.25),
        "LEM-(1,0)": (46.99, 0.41), "BWM-(.5)": (50.56, 0.59), "LCM-(.5)": (53.63, 0.95),
    }, residual=True),
    # Direct classification (Table 9): no network in front. The paper picked θ, α, β by result;
    # here they are the standard ones.
    "hinss2021-session": Protocol((30,), _EEG, 1e-3, 0.05, {
        LOG_EIG: (39.76, 7.60), "AIM-(1,1,0)": (41.14, 7.26), "EM-(1,1,0)": (45.78, 8.51),
        "LEM-(1,0)": (40.88, 7.46), "BWM-(.5)": (44.84, 8.00), "LCM-(1)": (43.17, 6.21),
    }, balanced=True),
    "hinss2021-subject": Protocol((30,), _EEG, 1e-3, 0.05, {
        LOG_EIG: (44.66, 7.17), "AIM-(1,1,0)": (45.89, 6.52), "EM-(1,1,0)": (45.84, 4.75),
        "LEM-(1,0)": (46.02, 5.96), "BWM-(.5)": (45.21, 7.44), "LCM-(1)": (45.10, 6.20),
    }, balanced=True),
    "g3d": Protocol((3,), _SPDNET, 1e-2, 0.5, {
        LOG: (87.91, 0.90), LIE: (89.13, 1.70),
    }, file="rotations"),
    "hdm05-rotations": Protocol((3,), _SPDNET, 1e-2, 0.5, {
        LOG: (76.92, 1.27), LIE: (78.24, 1.03),
    }, file="rotations"),
}  # fmt: skip


def split(samples: Labelled, protocol: Protocol, seed: int) -> Split:
    """Training and test samples: as the file says, the last domains, or at random by seed.

    Nothing is chosen, so that there is no validation: that part is empty.
    """
    count = len(samples.label)
    if samples.test is not None:
        held = torch.from_numpy(samples.test)
    elif samples.domain is not None:
        domain = torch.from_numpy(samples.domain)
        last = max(1, round(protocol.held_out * int(domain.max() + 1)))
        held = domain > domain.max() - last
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        held = torch.zeros(count, dtype=torch.bool)
        held[order[: round(protocol.held_out * count)]] = True
    if held.all() or not held.any():
        raise ValueError(f"some samples must train and some test, got {int(held.sum())} of {count}")
    every = Samples(torch.from_numpy(samples.points), torch.from_numpy(samples.label))
    parts = [every[mask.nonzero().flatten()] for mask in (~held, held & ~held, held)]
    made = Split("test", *parts, classes=samples.classes)
    return made if protocol.file == "rotations" else made.in_unit_size()


def network(method: str, protocol: Protocol, shape: Sequence[int], classes: int) -> nn.Module:
    """The network whose classifier the paper's row names, for samples of this shape."""
    if protocol.file == "rotations":
        return lie_net(method, shape[0], shape[1], classes)
    if protocol.sizes[0] != shape[-1]:
        raise ValueError(f"P must be of order {protocol.sizes[0]}, got {shape[-1]}")
    inner, dtype = protocol.sizes[-1], torch.float64
    layers: list[nn.Module] = []
    for m, n in pairwise(protocol.sizes):
        layers += [BiMap(m, n, dtype=dtype), ReEig(1e-4, relative=True)]
    if protocol.residual:
        layers.append(RiemannianResidual(AffineInvariant(), SpectralField(inner, dtype=dtype)))
    if method == LOG_EIG:
        head: nn.Module = LogEigMLR(inner, classes, dtype=dtype)
    else:
        head = RiemannianMLR(inner, classes, METRICS[method], dtype=dtype)
    return nn.Sequential(*layers, head) if layers else head


def accuracy(guess: Tensor, y: Tensor, balanced: bool) -> float:
    """In per cent; `balanced`: the mean over the classes that occur."""
    hit = (guess == y).double()
    if not balanced:
        return 100 * float(hit.mean())
    return 100 * statistics.mean(float(hit[y == label].mean()) for label in y.unique())


def run(
    protocol: Protocol,
    folder: Path,
    seeds: Sequence[int],
    methods: Sequence[str] | None = None,
    watch: Callable[[str, int], None] = lambda _method, _seed: None,
) -> dict[str, list[float]]:
    """Test accuracies, in per cent, of each method for each seed."""
    rank = 5 if protocol.file == "rotations" else 3
    samples = read_labelled(folder, protocol.file, rank)
    found: dict[str, list[float]] = {}
    for method in protocol.published if methods is None else methods:
        for seed in seeds:
            watch(method, seed)
            data = split(samples, protocol, seed)
            torch.manual_seed(seed)
            model = network(method, protocol, data.train.S.shape[1:], data.classes)
            guess = fit(model, data.train, protocol.budget, protocol.rate, seed)
            value = accuracy(guess(data.test.S), data.test.y, protocol.balanced)
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
    found = run(
        protocol, options.folder, range(options.seeds),
        watch=lambda method, seed: print(f"{method}, seed {seed}", end="\x1b[K\r", flush=True),
    )  # fmt: skip
    for method, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        mean, sd = protocol.published[method]
        print(
            f"{method:24s} {statistics.mean(values):6.2f} ± {spread:5.2f} %   "
            f"published {mean:6.2f} ± {sd:5.2f} %"
        )


if __name__ == "__main__":
    main()
