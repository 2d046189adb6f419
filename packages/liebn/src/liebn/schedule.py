"""The momenta of domain-specific normalisation from epoch to epoch (Kobler et al. 2022)."""

from torch import nn

from liebn.domain import DomainLieBatchNorm


def momenta(
    epoch: int, epochs: int, fraction: float, test_start: float = 0.15
) -> tuple[float, float]:
    """Momentum in training and in eval mode at `epoch` = 1, 2, ….

    With ρ = fraction^(1/epochs) and w falling linearly from 1 in epoch 1 to 0 from `epochs` on,

        momentum = 1 - ρ^(epochs w) + fraction
        test_momentum = 1 - (1 - test_start)^(w + (1 - w) fraction),

    from 1 to `fraction` and from `test_start` down. `fraction` is the size of a domain's part of
    a batch over the size that is enough for good statistics. The published code applies
    1 - test_momentum in its place, so that its test statistics forget all but the last batches.
    Raises ValueError for arguments out of range.
    """
    if epoch < 1 or epochs < 2:
        raise ValueError(f"need epoch >= 1 and epochs >= 2, got {epoch} and {epochs}")
    if not (0 < fraction <= 1 and 0 <= test_start <= 1):
        raise ValueError(
            f"need 0 < fraction <= 1 and 0 <= test_start <= 1, got {fraction:g} and {test_start:g}"
        )
    w = max(epochs - epoch, 0) / (epochs - 1)
    train = 1 - fraction**w + fraction
    return train, 1 - (1 - test_start) ** (w + (1 - w) * fraction)


class MomentumSchedule:
    """Sets the momenta of every `DomainLieBatchNorm` of a model; `step()` at each epoch's end.

    Arguments: see `momenta`. After `epochs` epochs the momenta stay.
    """

    def __init__(
        self, model: nn.Module, epochs: int, fraction: float, test_start: float = 0.15
    ) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, DomainLieBatchNorm)]
        self.epochs, self.fraction, self.test_start = epochs, fraction, test_start
        self.epoch = 0
        self.step()

    def step(self) -> None:
        """Goes on to the next epoch."""
        self.epoch += 1
        found = momenta(self.epoch, self.epochs, self.fraction, self.test_start)
        for layer in self.layers:
            layer.momentum, layer.test_momentum = found
