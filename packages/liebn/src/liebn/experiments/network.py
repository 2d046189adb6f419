"""SPDNet with a normalisation after each BiMap, and how experiments train and score it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from spd_metrics import BiMap, LogEig, ReEig
from torch import Tensor, nn

from liebn.domain import DomainLieBatchNorm, refitting
from liebn.schedule import MomentumSchedule

Normalisation = Callable[[int], nn.Module]
"""From the order of matrices to a layer."""


@dataclass(frozen=True)
class Samples:
    """Covariances (samples, n, n), the class of each and its domain."""

    P: Float[Tensor, "samples n n"]
    label: Int64[Tensor, " samples"]
    domain: Int64[Tensor, " samples"]

    def __getitem__(self, chosen: Tensor) -> "Samples":
        return Samples(self.P[chosen], self.label[chosen], self.domain[chosen])

    def __len__(self) -> int:
        return len(self.label)


class NormalisedSPDNet(nn.Module):
    """(BiMap, normalisation, ReEig)*, LogEig and a linear classifier.

    The last BiMap has no ReEig behind it, as in the experiments of the paper.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        normalisation: Normalisation | None,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        self.maps = nn.ModuleList(BiMap(m, n, dtype=dtype) for m, n in pairs)
        self.norms = nn.ModuleList(
            nn.Identity() if normalisation is None else normalisation(n) for _, n in pairs
        )
        self.rectify = ReEig(1e-4, relative=True)
        n = sizes[-1]
        self.log, self.head = LogEig(), nn.Linear(n * (n + 1) // 2, classes, dtype=dtype)

    def features(
        self, P: Float[Tensor, "b n n"], domain: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b m m"]:
        """The normalised matrices that the classifier sees."""
        for i, (bimap, norm) in enumerate(zip(self.maps, self.norms, strict=True)):
            P = bimap(P if i == 0 else self.rectify(P))
            P = norm(P, domain) if isinstance(norm, DomainLieBatchNorm) else norm(P)
        return P

    def forward(
        self, P: Float[Tensor, "b n n"], domain: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b classes"]:
        """Logits."""
        return self.head(self.log(self.features(P, domain)))


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam (AMSGrad) on the cross-entropy.

    `fraction`, if given, schedules the momenta of domain-specific layers, which settle after
    `settled` epochs (None: at the end). Only the classifier's weights decay.
    """

    epochs: int
    batch: int = 30
    rate: float = 5e-3
    decay: float = 0.0
    fraction: float | None = None
    settled: int | None = None


def train(network: NormalisedSPDNet, samples: Samples, recipe: Recipe) -> None:
    """Trains in place; the order of samples comes from torch's global generator."""
    network.train()
    decayed = [p for name, p in network.named_parameters() if name.startswith("head")]
    free = [p for name, p in network.named_parameters() if not name.startswith("head")]
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": free}]
    optimizer = torch.optim.Adam(groups, lr=recipe.rate, amsgrad=True)
    schedule = None
    if recipe.fraction is not None:
        schedule = MomentumSchedule(network, recipe.settled or recipe.epochs, recipe.fraction)
    for _ in range(recipe.epochs):
        # The last, smaller part of an epoch may be one sample, which has no variance.
        whole = len(samples) // recipe.batch * recipe.batch
        for chosen in torch.randperm(len(samples))[:whole].split(recipe.batch):
            part = samples[chosen]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(part.P, part.domain), part.label)
            loss.backward()
            optimizer.step()
        if schedule is not None:
            schedule.step()


@torch.no_grad()
def adapted_features(network: NormalisedSPDNet, samples: Samples) -> Tensor:
    """Features in eval mode, domain-specific layers refitted to each domain of the samples."""
    network.eval()
    with refitting(network):
        return network.features(samples.P, samples.domain)


@torch.no_grad()
def guesses(network: NormalisedSPDNet, samples: Samples) -> Int64[Tensor, " samples"]:
    """The likeliest class of each sample, by adapted features."""
    features = adapted_features(network, samples)
    return network.head(network.log(features)).argmax(-1)


def accuracy(guess: Tensor, label: Tensor) -> float:
    """In per cent."""
    return 100 * float((guess == label).double().mean())
