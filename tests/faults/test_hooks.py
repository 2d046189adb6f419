"""Hooks and patched forwards are gone after use, and after an error in the middle of it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asvd
import pytest
import rankfeat
import torch
from torch import Tensor, nn


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    ).eval()


X = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(one, kind)) for one in model.modules() for kind in kinds)


class BreaksError(Exception):
    pass


class Breaks(nn.Module):
    """Works as often as it is told to, and then raises."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise BreaksError
        return x


DETECTORS: dict[str, Callable[[nn.Module], Any]] = {
    "RankFeat": lambda m: rankfeat.RankFeat(m, ["0"]),
    "ReAct": lambda m: rankfeat.ReAct(m, ["2"]),
    "ASH": lambda m: rankfeat.ASH(m, ["2"]),
    "ViM": lambda m: rankfeat.ViM(m, "4", d=1),
    "KNN": lambda m: rankfeat.KNN(m, "4", k=2),
}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("left", [0, 1, 2, 9])
def test_detectors_leave_no_hook(name: str, left: int) -> None:
    """After use, after an error in calibration or in a score, and after close."""
    model = classifier()
    model.append(Breaks(left)).eval()
    with suppress(BreaksError), DETECTORS[name](model) as one:
        one.fit([X])
        one.score(X)
        one.score(X)
    assert hooks(model) == 0


@pytest.mark.parametrize("left", range(0, 12, 3))
@pytest.mark.parametrize("method", ["svd", "asvd", "whiten", "sequential"])
def test_compression_leaves_no_hook(method: Any, left: int) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 4), Breaks(left), nn.Linear(4, 4)) for _ in range(2)
            )
            self.head = nn.Linear(4, 7)

        def forward(self, ids: Tensor) -> Any:
            h = self.embedding(ids)
            for block in self.blocks:
                h = h + block(h)
            return type("Output", (), {"logits": self.head(h)})

    torch.manual_seed(0)
    model = Model().eval()
    ids = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))
    with suppress(BreaksError):
        asvd.compress(model, ids, 0.7, method, layers="blocks.*")
    assert hooks(model) == 0
    assert all("forward" not in vars(module) for module in model.modules())


def test_rank_weight_is_undone_after_an_error() -> None:
    model = classifier()
    before = model(X)
    with suppress(BreaksError), rankfeat.RankWeight(model, ["4"]):
        raise BreaksError
    assert hooks(model) == 0
    assert torch.equal(model(X), before)
