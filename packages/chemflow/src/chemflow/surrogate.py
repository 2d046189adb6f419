"""Guesses of a property from what a code decodes to, as an ensemble of networks.

Wei et al. 2024, appendix D.5: the network reads the decoder's probabilities, not the code. Its
gradient in the code then passes through the decoder, and a change that changes no token has little
effect on it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .checkpoint import digest, no_more_than, read_checkpoint, write_checkpoint
from .files import WRONG, reason
from .networks import ResidualNetwork, SequenceNetwork
from .training import Losses, Options, Progress, Task, Trainer

FORMAT = "chemflow surrogate 1"
FILE = "surrogate.safetensors"


@runtime_checkable
class Decodes(Protocol):
    """What a surrogate asks of a model."""

    @property
    def latent_size(self) -> int:
        """D."""
        ...

    def probabilities(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b l v"]:
        """Of each token at each position; differentiable in z."""
        ...


@dataclasses.dataclass(frozen=True)
class Config:
    """What a surrogate is.

    Args:
        property: Its name.
        network: "sequence" convolves over positions; "residual" is the paper's, over all
            probabilities at once; "codes" reads the code itself.
        members: Networks in the ensemble.
        width: Of the networks.
        depth: Convolutions, or blocks.
    """

    property: str
    network: Literal["sequence", "residual", "codes"] = "sequence"
    members: int = 3
    width: int = 64
    depth: int = 3

    def __post_init__(self) -> None:
        if self.network not in ("sequence", "residual", "codes"):
            raise ValueError(
                f"network must be 'sequence', 'residual' or 'codes', got {self.network!r}"
            )
        if min(self.members, self.width, self.depth) < 1:
            raise ValueError(f"members, width and depth must be positive, got {self}")


class Surrogate(nn.Module):
    """The mean of an ensemble, in units of the property.

    Args:
        model: Whose codes are judged; not a part of the surrogate, and not changed by it.
        config: See there.
        shape: (L, V) of the model's probabilities.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, model: Decodes, config: Config, shape: tuple[int, int]) -> None:
        super().__init__()
        # In a tuple: a module of ours would be trained and saved with us.
        self._model = (model,)
        self.config = config
        self.shape = tuple(shape)
        length, vocabulary = shape
        c = config
        build: dict[str, Callable[[], nn.Module]] = {
            "sequence": lambda: SequenceNetwork(vocabulary, c.width, c.depth),
            "residual": lambda: ResidualNetwork(length * vocabulary, [c.width] * c.depth),
            "codes": lambda: ResidualNetwork(model.latent_size, [c.width] * c.depth),
        }
        self.members = nn.ModuleList(build[c.network]() for _ in range(c.members))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.quality: Quality | None = None
        """Agreement on held-out codes, once it is trained."""

    def __repr__(self) -> str:
        return f"Surrogate({self.config}, weights={digest(self.state_dict())})"

    def inputs(self, z: Float[Tensor, "b d"]) -> Tensor:
        """What the networks read."""
        return z if self.config.network == "codes" else self._model[0].probabilities(z)

    def standardised(self, inputs: Tensor) -> Float[Tensor, "members b"]:
        """Each member's guess in units of the spread of the labels."""
        return torch.stack([member(inputs) for member in self.members])

    def predict(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Mean of the ensemble. Differentiable in z."""
        self._check_mode()
        return self.mean + self.scale * self.standardised(self.inputs(z)).mean(0)

    def std(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Standard deviation over the ensemble, with its size as the divisor."""
        self._check_mode()
        return self.scale * self.standardised(self.inputs(z)).std(0, correction=0)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """`predict`."""
        return self.predict(z)

    def _check_mode(self) -> None:
        if self.training:
            raise RuntimeError("the surrogate is in training mode: call eval() first")


class Quality(NamedTuple):
    """Agreement of guesses with the oracle on codes that training did not see."""

    r: float
    """Pearson's correlation."""
    rank_r: float
    """Spearman's."""
    error: float
    """Root of the mean squared error, in units of the property."""
    n: int

    def __str__(self) -> str:
        return (
            f"held-out r {self.r:.3f}, rank r {self.rank_r:.3f}, "
            f"error {self.error:.3f} ({self.n} codes)"
        )


def correlation(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Pearson's r; 0 where one of the two is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    size = a.norm() * b.norm()
    return float(a @ b / size) if size > 0 else 0.0


def _ranks(x: Tensor) -> Tensor:
    # Ties get the mean of their ranks.
    _, place, count = x.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place]


class SurrogateTask(Task):
    """E |h(z) - y|² / 2 with y in units of its spread, summed over the ensemble.

    Args:
        surrogate: Trained in place; takes mean and spread of the labels.
        codes: (n, D).
        values: The oracle's, finite.
        limit: Labels beyond so many spreads count as that: a property with a cliff, as a ring
            penalty is, has few labels that would decide everything.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        codes: Float[Tensor, "n d"],
        values: Float[Tensor, " n"],
        limit: float = 3.0,
    ) -> None:
        super().__init__()
        if not bool(values.isfinite().all()):
            raise ValueError("values must be finite: leave out codes that decode to no molecule")
        self.size = len(codes)
        self.surrogate = surrogate
        self.codes = codes
        values = values.double()
        mean, scale = values.mean(), values.std(correction=0)
        if not scale > 0:
            raise ValueError(f"values must differ from one another, all are {values[0].item()}")
        surrogate.mean.copy_(mean)
        surrogate.scale.copy_(scale)
        self.targets = ((values - mean) / scale).clamp(-limit, limit).float().to(codes.device)

    def loss(self, rows: Int64[Tensor, " b"], generator: torch.Generator, share: float) -> Losses:  # noqa: ARG002
        """Of some codes; probabilities are made anew, so that they are never all in memory."""
        with torch.no_grad():
            inputs = self.surrogate.inputs(self.codes[rows])
        found = self.surrogate.standardised(inputs)
        squares = (found - self.targets[rows]).square().mean(-1)
        return Losses(squares.sum() / 2, {"mse": squares.mean().detach()})


def fit_surrogate(
    surrogate: Surrogate,
    codes: Float[Tensor, "n d"],
    values: Float[Tensor, " n"],
    options: Options,
    *,
    held_out: float = 0.1,
    folder: Path | None = None,
    report: Callable[[Progress], object] | None = None,
) -> Quality:
    """Trains on all but a share of the labelled codes, and says how it does on that share.

    Codes whose value is NaN decode to no molecule and are left out.

    Raises ValueError where fewer than 20 codes are left.
    """
    valid = values.isfinite()
    codes, values = codes[valid], values[valid]
    if len(codes) < 20:
        raise ValueError(f"values must have at least 20 that are finite, got {len(codes)}")
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(options.seed))
    aside = order[: max(2, round(held_out * len(codes)))]
    rest = order[len(aside) :]
    Trainer(SurrogateTask(surrogate, codes[rest], values[rest]), options, folder).run(report)
    surrogate.requires_grad_(False)
    surrogate.quality = quality(surrogate, codes[aside], values[aside])
    return surrogate.quality


@torch.no_grad()
def quality(
    surrogate: Surrogate, codes: Float[Tensor, "n d"], values: Float[Tensor, " n"]
) -> Quality:
    """Of guesses beside the oracle's values."""
    guesses = torch.cat([surrogate.predict(part) for part in codes.split(1024)]).double()
    values = values.to(guesses)
    return Quality(
        correlation(guesses, values),
        correlation(_ranks(guesses), _ranks(values)),
        float((guesses - values).square().mean().sqrt()),
        len(values),
    )


def save_surrogate(folder: Path, surrogate: Surrogate) -> None:
    """Weights, and what it is and how good it was found to be."""
    about = {
        "config": dataclasses.asdict(surrogate.config),
        "shape": list(surrogate.shape),
        "quality": None if surrogate.quality is None else surrogate.quality._asdict(),
    }
    write_checkpoint(folder / FILE, FORMAT, about, surrogate.state_dict())


def load_surrogate(folder: Path, model: Decodes, device: torch.device | str = "cpu") -> Surrogate:
    """In evaluation mode and frozen. Raises ValueError for any other file, naming it."""
    about, weights = read_checkpoint(folder / FILE, FORMAT)
    try:
        with no_more_than(weights):
            surrogate = Surrogate(model, Config(**about["config"]), tuple(about["shape"]))
        surrogate.load_state_dict(weights)
        if about["quality"] is not None:
            surrogate.quality = Quality(**about["quality"])
    except WRONG as error:
        told = f"{folder / FILE}: weights do not fit its head: {reason(error)}"
        raise ValueError(told) from error
    return surrogate.to(device).eval().requires_grad_(False)
