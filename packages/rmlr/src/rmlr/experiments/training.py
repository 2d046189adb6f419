"""Training with equal budgets, and the choice of a configuration on validation data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from eigenworks import HeatMap, Row, wilson
from linalg_kernels import logdet
from spd_metrics import BiMap, ReEig
from torch import Tensor, nn

from rmlr.experiments.methods import BASELINE, METHODS, Classifier, Configuration


@dataclass(frozen=True)
class Samples:
    """Points (samples, ...), SPD matrices but in `rotations`, and the class of each, by index."""

    S: Tensor
    y: Tensor

    def __getitem__(self, chosen: Tensor) -> "Samples":
        return Samples(self.S[chosen], self.y[chosen])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Split:
    """Training, validation and test data. Only the first two are seen before the end."""

    name: str
    train: Samples
    validation: Samples
    test: Samples
    classes: int

    def in_unit_size(self) -> "Split":
        """Everything divided by the geometric mean size of the training matrices."""
        n = self.train.S.shape[-1]
        size = torch.exp(logdet(self.train.S).mean() / n)
        parts = [
            Samples(part.S / size, part.y) for part in (self.train, self.validation, self.test)
        ]
        return Split(self.name, *parts, self.classes)


@dataclass(frozen=True)
class Budget:
    """What every fit of every method gets."""

    epochs: int
    batch: int


def fit(
    model: nn.Module, train: Samples, budget: Budget, rate: float, seed: int
) -> Callable[[Tensor], Tensor]:
    """Cross-entropy under Adam (amsgrad) in random batches; the guesses as a function.

    A classifier without a network in front sees features of its samples that are computed once.
    """
    apart = isinstance(model, Classifier)
    data = model.features(train.S) if apart else train.S
    logits = model.logits if apart else model
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, amsgrad=True)
    order = torch.Generator().manual_seed(seed)
    for _ in range(budget.epochs):
        for some in torch.randperm(len(train), generator=order).split(budget.batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits(data[some]), train.y[some]).backward()
            optimiser.step()

    def guess(S: Tensor) -> Tensor:
        with torch.no_grad():
            return model(S).argmax(-1)

    return guess


@dataclass(frozen=True)
class Outcome:
    """Hits among the test samples, of the configuration that validation data preferred."""

    chosen: str
    hits: int
    tests: int

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100 * self.hits / self.tests


def leave_subject_out(samples: Samples, subject: Tensor, held: Tensor, seed: int) -> Split:
    """Test on the subjects `held`; another one, which goes with the seed, validates."""
    others = subject[~torch.isin(subject, held)].unique()
    judge = subject == others[seed % len(others)]
    test = torch.isin(subject, held)
    parts = [samples[mask.nonzero().flatten()] for mask in (~test & ~judge, judge, test)]
    classes = int(samples.y.max()) + 1
    return Split("new subjects", *parts, classes=classes).in_unit_size()


def evaluate(
    configurations: tuple[Configuration, ...],
    split: Split,
    budget: Budget,
    seed: int,
    inner: int | None = None,
) -> Outcome:
    """Fit every configuration, and test the one that does best on validation data.

    Of equal ones the first in the list counts. With `inner` matrices first go through an SPDNet
    block onto that size.
    """
    n = split.train.S.shape[-1]
    best: tuple[int, str, Callable[[Tensor], Tensor]] | None = None
    for configuration in configurations:
        torch.manual_seed(seed)
        if inner is None:
            model = configuration.make(n, split.classes)
        else:
            block = BiMap(n, inner, dtype=torch.float64), ReEig(1e-4, relative=True)
            model = nn.Sequential(*block, configuration.make(inner, split.classes))
        guess = fit(model, split.train, budget, configuration.rate, seed)
        hits = int((guess(split.validation.S) == split.validation.y).sum())
        if best is None or hits > best[0]:
            best = hits, configuration.label, guess
    assert best is not None
    found = int((best[2](split.test.S) == split.test.y).sum())
    return Outcome(best[1], found, len(split.test))


def rows(found: Mapping[str, Mapping[str, Outcome]]) -> Iterator[Row]:
    """Accuracies of methods on splits, and what each gains over LogEig with the same seed.

    Over several seeds the interval of a gain is the paired one.
    """
    splits = tuple(next(iter(found.values())))
    overview = HeatMap(
        "Accuracy of each classifier",
        [[found[method][split].accuracy for split in splits] for method in found],
        rows=tuple(found),
        columns=splits,
        unit="%",
    )
    for method, outcomes in found.items():
        for split, outcome in outcomes.items():
            first = method == BASELINE and split == splits[0]
            label = f"{method}, {split}"
            yield Row(
                label, "accuracy", outcome.accuracy, unit="%", better="higher",
                interval=wilson(outcome.hits, outcome.tests, scale=100, of="samples"),
                plots=(overview,) if first else (),
            )  # fmt: skip
            if method != BASELINE:
                gain = outcome.accuracy - found[BASELINE][split].accuracy
                yield Row(label, f"gain over {BASELINE}", gain, unit="points", better="higher")


def compare(
    splits: list[Split],
    budget: Budget,
    seed: int,
    progress: Callable[[float, str], None],
    inner: int | None = None,
) -> dict[str, dict[str, Outcome]]:
    """`evaluate` for every method on every split."""
    found: dict[str, dict[str, Outcome]] = {}
    for name, configurations in METHODS.items():
        found[name] = {}
        for i, split in enumerate(splits):
            progress((len(found) - 1 + i / len(splits)) / len(METHODS), f"{name}, {split.name}")
            found[name][split.name] = evaluate(configurations, split, budget, seed, inner)
    return found
