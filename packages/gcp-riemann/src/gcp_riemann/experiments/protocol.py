"""One training protocol for every head: the same trunk, reduction, budget and number of trials.

SGD with momentum 0.9, gradients clipped to norm 5, learning rate falling to 0 by a cosine.
Learning rate and weight decay of each head are those of the best of the same trials for all,
by accuracy on a validation split; the model is then trained anew on training and validation
images together, and seen by the test images after each epoch, which decide nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from linalg_kernels.errors import LinAlgError
from torch import Tensor, nn

from gcp_riemann.heads import ChoTMLR, LogEMLR, PowEMLR, PowTMLR, ScalePowEMLR
from gcp_riemann.network import reduction
from gcp_riemann.pooling import CovariancePooling

COVARIANCE_HEADS = (LogEMLR, PowEMLR, ScalePowEMLR, PowTMLR, ChoTMLR)
AVERAGE = "average pooling"
NAMES = (AVERAGE, *(head.__name__ for head in COVARIANCE_HEADS))

MOMENTUM, CLIP = 0.9, 5.0


class PooledClassifier(nn.Module):
    """Trunk, 1x1 reduction to `dim` channels, pooling by mean or covariance, classifier."""

    def __init__(self, name: str, trunk: nn.Module, channels: int, dim: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.reduction = reduction(channels, dim)
        if name == AVERAGE:
            self.pooling: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head: nn.Module = nn.Linear(dim, classes)
        else:
            self.pooling = CovariancePooling()
            (head,) = (head for head in COVARIANCE_HEADS if head.__name__ == name)
            self.head = head(dim, classes)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        return self.head(self.pooling(self.reduction(self.trunk(x))))


@dataclass(frozen=True)
class Images:
    """Images, or their feature maps, (images, C, h, w) with the class of each."""

    x: Float[Tensor, "images c h w"]
    y: Int64[Tensor, " images"]

    def __getitem__(self, chosen: Tensor) -> "Images":
        return Images(self.x[chosen], self.y[chosen])


@dataclass(frozen=True)
class Split:
    """Indices of training, validation and test images."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @staticmethod
    def draw(y: Tensor, sizes: tuple[int, int, int], generator: torch.Generator) -> "Split":
        """`sizes` images of each class, at random."""
        parts: list[list[Tensor]] = [[], [], []]
        for label in y.unique():
            own = torch.nonzero(y == label).flatten()
            if len(own) < sum(sizes):
                raise ValueError(f"sizes must add up to at most {len(own)}, got {sizes}")
            own = own[torch.randperm(len(own), generator=generator)]
            for part, piece in zip(parts, own[: sum(sizes)].split(list(sizes)), strict=True):
                part.append(piece)
        return Split(*(torch.cat(part) for part in parts))


@dataclass(frozen=True)
class Setting:
    """What is tuned."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Course:
    """Hits among the images that were held out, after each epoch, and seconds of an epoch.

    `diverged` says that training met numbers that are not finite and stopped; hits are then 0.
    """

    hits: tuple[int, ...]
    seconds: float
    diverged: bool


def hits(model: nn.Module, held_out: Images) -> int:
    """How many images are given their class."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(x) for x in held_out.x.split(100)])
    return int((logits.argmax(-1) == held_out.y).sum())


def train(
    model: nn.Module,
    images: Images,
    held_out: Images,
    setting: Setting,
    *,
    epochs: int,
    batch: int,
    generator: torch.Generator,
    every_epoch: bool,
    frozen_statistics: Sequence[nn.Module] = (),
) -> Course:
    """Trains the model in place. Modules of `frozen_statistics` stay in evaluation mode."""
    optimiser = torch.optim.SGD(
        model.parameters(), setting.lr, momentum=MOMENTUM, weight_decay=setting.weight_decay
    )
    steps = epochs * math.ceil(len(images.y) / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[int] = []
    spent = 0.0
    try:
        for epoch in range(epochs):
            start = time.perf_counter()
            model.train()
            for module in frozen_statistics:
                module.eval()
            order = torch.randperm(len(images.y), generator=generator)
            for chosen in order.split(batch):
                loss = nn.functional.cross_entropy(model(images.x[chosen]), images.y[chosen])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP, error_if_nonfinite=True)
                optimiser.step()
                schedule.step()
            spent += time.perf_counter() - start
            if every_epoch or epoch == epochs - 1:
                curve.append(hits(model, held_out))
    except (LinAlgError, RuntimeError) as error:
        if not isinstance(error, LinAlgError) and "non-finite" not in str(error):
            raise
        return Course((0,) * (epochs if every_epoch else 1), math.inf, diverged=True)
    return Course(tuple(curve), spent / epochs, diverged=False)


@dataclass(frozen=True)
class Tuned:
    """The setting of the best trial, and how many trials diverged."""

    setting: Setting
    diverged: int


def tune(
    make: Callable[[], nn.Module],
    images: Images,
    split: Split,
    settings: Sequence[Setting],
    *,
    epochs: int,
    batch: int,
    seed: int,
) -> Tuned:
    """Tries every setting from the same start; ties go to the earlier one."""
    found: list[Course] = []
    for setting in settings:
        torch.manual_seed(seed)
        course = train(
            make(),
            images[split.train],
            images[split.validation],
            setting,
            epochs=epochs,
            batch=batch,
            generator=torch.Generator().manual_seed(seed),
            every_epoch=False,
        )
        found.append(course)
    best = max(range(len(settings)), key=lambda i: (found[i].hits[-1], -i))
    return Tuned(settings[best], sum(course.diverged for course in found))
