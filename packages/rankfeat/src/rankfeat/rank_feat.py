"""RankFeat: out-of-distribution scores from features without their rank-one part."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from rankfeat.edited import EditedDetector, Trunk
from rankfeat.removal import Layout, remove_feature
from rankfeat.scores import Energy, Score


class RankFeat(EditedDetector):
    """Detector that scores the logits of features without their rank-one part.

    At each layer X' = X - s1 u1 v1^T of every sample, see `remove_feature`; the rest of the model
    runs on X'. The score is that of the mean over the layers of the resulting logits; in the
    branch of one layer the others are left as they are. The model is not changed: its hooks do
    nothing but while the detector runs, and `close` (or leaving the context) removes them.

    Args:
        model: A classifier in eval mode that returns logits (b, classes), or an object with
            `.logits`.
        layers: Names of layers, as in `model.named_modules()`, whose output (or the first of a
            tuple) is the features, batch first.
        score: `Energy()`, `MSP()` or `MaxLogit()`.
        layout, iters, tol: As in `remove_feature`.
        check: Raise `LinAlgError` naming the first sample whose features hold NaN or Inf.
        trunk: "shared" runs the model once: from a layer on, its branch is a further part of the
            batch. "repeated" runs the model once more for each layer, the definition, for models
            in which something bypasses the layer, such as the skip around the inner layer of a
            residual block.

    Source: Song, Sebe and Wang, RankFeat (NeurIPS 2022), arXiv 2209.08590.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        score: Score = Energy(),  # noqa: B008  (frozen)
        layout: Layout = "auto",
        iters: int = 20,
        tol: float | None = None,
        check: bool = True,
        trunk: Trunk = "shared",
    ) -> None:
        super().__init__(model, layers, score, trunk)
        self.layout: Layout = layout
        self.iters, self.tol, self.check = iters, tol, check

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        own = {"layout": self.layout, "iters": self.iters, "tol": self.tol, "check": self.check}
        return {**super().settings(), **own}

    def edit(self, F: Tensor, layer: str) -> Tensor:  # noqa: ARG002
        """X' of each sample."""
        return remove_feature(F, self.layout, iters=self.iters, tol=self.tol, check=self.check)
