"""The detectors that RankFeat is compared with: scores of logits, ReAct, ASH, ViM and KNN."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rankfeat.detector import ModelDetector, Scored, inputs_of, logits_of
from rankfeat.edited import EditedDetector, Trunk, require_score, score_from_json, score_to_json
from rankfeat.hooks import edit_output, find_layers
from rankfeat.scores import Energy, Score

Shaping = Literal["p", "b", "s"]


class LogitDetector(ModelDetector):
    """The score of the model's own logits: `LogitDetector(model, MSP())`, `MaxLogit()`, `Energy()`.

    Args:
        model: A classifier in eval mode.
        score: `Energy()`, `MSP()` or `MaxLogit()`.
    """

    def __init__(self, model: nn.Module, score: Score = Energy()) -> None:  # noqa: B008  (frozen)
        super().__init__(model)
        require_score(score)
        self.score_function = score

    def extra_repr(self) -> str:
        return f"score={self.score_function}"

    def settings(self) -> dict[str, Any]:
        """The score."""
        return {"score": score_to_json(self.score_function)}

    @classmethod
    def from_settings(cls, model: nn.Module, settings: dict[str, Any]) -> ModelDetector:
        """The detector of what `settings` gave."""
        return cls(model, score_from_json(settings["score"]))

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients."""
        self.require_ready()
        logits = logits_of(self.model(*args, **kwargs))
        return Scored(self.score_function(logits), logits.argmax(-1), logits, logits)


def _percentile(values: Tensor, share: float) -> Tensor:
    """The order statistic at share (n - 1), linear between neighbours, as numpy.percentile."""
    place = share * (values.numel() - 1)
    below = int(place)
    low = values.kthvalue(below + 1).values
    if below + 1 == values.numel():
        return low
    return low + (place - below) * (values.kthvalue(below + 2).values - low)


class ReAct(EditedDetector):
    """Clips the features at a percentile of their values on ID data: min(F, c).

    Args:
        model, layers, score, trunk: As in `RankFeat`; the paper takes the penultimate layer.
        percentile: The share of activations below c. `fit` finds c for each layer and keeps all
            activations of the ID data for it, in memory.

    Source: Sun, Guo and Li, ReAct (NeurIPS 2021), arXiv 2111.12797.
    """

    STATISTICS = ("clip",)
    clip: Float[Tensor, " layers"] | None

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        percentile: float = 0.9,
        score: Score = Energy(),  # noqa: B008  (frozen)
        trunk: Trunk = "shared",
    ) -> None:
        super().__init__(model, layers, score, trunk)
        if not 0 <= percentile <= 1:
            raise ValueError(f"percentile must lie in [0, 1], got {percentile}")
        self.percentile = percentile
        self._seen: dict[str, list[Tensor]] | None = None

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {**super().settings(), "percentile": self.percentile}

    @torch.no_grad()
    def fit(self, batches: Iterable[Any]) -> "ReAct":
        """Find the percentile of each layer's activations. ValueError if there are no data."""
        self.require_ready()
        self._seen = {name: [] for name in self.layers}
        try:
            for batch in batches:
                args, kwargs = inputs_of(batch)
                for name in self.layers:
                    self._run((name,), args, kwargs, name)
            if not any(map(len, self._seen.values())):
                raise ValueError("batches must hold at least one sample, got none")
            found = [_percentile(torch.cat(self._seen[name]), self.percentile)
                     for name in self.layers]  # fmt: skip
        finally:
            self._seen = None
        self.clip = torch.stack(found)
        return self

    def edit(self, F: Tensor, layer: str) -> Tensor:
        """min(F, c); while fitting F itself, noted."""
        if self._seen is not None:
            self._seen[layer].append(F.detach().flatten())
            return F
        if self.clip is None:
            raise RuntimeError("this ReAct is not fitted: call fit on ID data")
        return F.clamp(max=self.clip[self.layers.index(layer)].to(F.dtype))


def shape_activations(
    F: Float[Tensor, "b *feature"], share: float, shaping: Shaping = "s"
) -> Float[Tensor, "b *feature"]:
    """ASH: of a sample's n activations the round(share n) smallest are set to zero.

    "p" leaves the others, "b" sets them all to Σ F / their number, "s" multiplies them by
    exp(Σ F / Σ of those left); a sample of which nothing is left stays zero.

    Source: Djurisic et al., ASH (ICLR 2023), arXiv 2209.09858.
    """
    X = F.flatten(1)
    n = X.shape[1]
    kept, places = X.topk(n - round(n * share), dim=1)
    before = X.sum(1, keepdim=True)
    if shaping == "b":
        kept = (before / max(1, kept.shape[1])).expand_as(kept)
    elif shaping == "s":
        after = kept.sum(1, keepdim=True)
        kept = kept * torch.exp(torch.where(after == 0, 0, before / after))
    return torch.zeros_like(X).scatter(1, places, kept.to(X.dtype)).reshape(F.shape)


class ASH(EditedDetector):
    """Prunes and rescales the activations of each sample, see `shape_activations`.

    Args:
        model, layers, score, trunk: As in `RankFeat`; the paper takes the penultimate layer.
        share: The share of activations set to zero.
        shaping: "p", "b" or "s".

    Source: Djurisic et al., ASH (ICLR 2023), arXiv 2209.09858.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        share: float = 0.65,
        shaping: Shaping = "s",
        score: Score = Energy(),  # noqa: B008  (frozen)
        trunk: Trunk = "shared",
    ) -> None:
        super().__init__(model, layers, score, trunk)
        if not 0 <= share < 1:
            raise ValueError(f"share must lie in [0, 1), got {share}")
        if shaping not in get_args(Shaping):
            raise ValueError(f"shaping must be 'p', 'b' or 's', got {shaping!r}")
        self.share = share
        self.shaping: Shaping = shaping

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {**super().settings(), "share": self.share, "shaping": self.shaping}

    def edit(self, F: Tensor, layer: str) -> Tensor:  # noqa: ARG002
        """The activations of each sample, shaped."""
        return shape_activations(F, self.share, self.shaping)


def _pooled(F: Tensor) -> Tensor:
    """(b, d): the mean over the positions of maps (b, d, h, w), over the tokens of (b, n, d)."""
    if F.ndim == 3:
        F = F.mean(1)
    elif F.ndim > 3:
        F = F.flatten(2).mean(2)
    if F.ndim != 2:
        raise ValueError(
            f"features must be (b, d), (b, n, d) or (b, d, h, w), got {tuple(F.shape)}"
        )
    return F.float() if F.dtype in (torch.float16, torch.bfloat16) else F


class _FeatureDetector(ModelDetector):
    """Keeps the input of a layer of each pass."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__(model)
        (layer,) = find_layers(model, [head]).values()
        self.head = head
        self._watching = False
        self._features: Tensor | None = None
        self._hooks.add(layer, self._hook)

    def extra_repr(self) -> str:
        return f"head={self.head!r}"

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {"head": self.head}

    def _hook(self, _layer: nn.Module, inputs: Any, _output: Any) -> None:
        if self._watching:
            edit_output(inputs, self._keep, self.head)

    def _keep(self, F: Tensor) -> Tensor:
        self._features = _pooled(F)
        return F

    def read(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features (b, d) that enter the head, and logits."""
        self.require_ready()
        self._watching, self._features = True, None
        try:
            logits = logits_of(self.model(*args, **kwargs))
            features = self._features
        finally:
            self._watching, self._features = False, None
        if features is None:
            raise RuntimeError(f"layer {self.head!r} did not run in this pass")
        if len(features) != len(logits):
            raise ValueError(
                f"the input of {self.head!r} must have the batch first, got a first dimension of"
                f" {len(features)} where {len(logits)} logits came out"
            )
        return features, logits

    def read_all(self, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Features and logits of all batches. ValueError if there are none."""
        found = [self.read(*inputs_of(batch)) for batch in batches]
        if not found:
            raise ValueError("batches must hold at least one sample, got none")
        features, logits = zip(*found, strict=True)
        return torch.cat(features), torch.cat(logits)


class ViM(_FeatureDetector):
    """Virtual logit matching: S = log Σ exp y_q - α ‖R^T (f - o)‖.

    f is what enters the last layer y = W f + b, o = -W⁺ b, R the directions of least second
    moment of f - o on ID data, all but `d`, and α the mean of the largest logit over that of
    ‖R^T (f - o)‖.

    Args:
        model: A classifier in eval mode.
        head: Name of its last layer, linear or a 1 x 1 convolution; maps and tokens that enter it
            are averaged.
        d: Dimension of the principal space; by default 1000 of 2048 features and more, 512 of 768
            and more, else half of them, as in the paper.

    Source: Wang et al., ViM (CVPR 2022), arXiv 2203.10807.
    """

    STATISTICS = ("origin", "residual", "alpha")
    origin: Float[Tensor, " features"] | None
    residual: Float[Tensor, "features rest"] | None
    alpha: Float[Tensor, ""] | None

    def __init__(self, model: nn.Module, head: str, *, d: int | None = None) -> None:
        super().__init__(model, head)
        layer = model.get_submodule(head)
        weight = getattr(layer, "weight", None)
        if not isinstance(layer, (nn.Linear, nn.Conv2d)) or not isinstance(weight, Tensor):
            raise TypeError(f"head must be linear or a convolution, got {type(layer).__name__}")
        if weight[0].numel() != weight.shape[1]:
            raise ValueError(f"head must be a 1 x 1 convolution, got weights {tuple(weight.shape)}")
        features = weight.shape[1]
        if d is None:
            d = 1000 if features >= 2048 else 512 if features >= 768 else features // 2
        if not 0 < d < features:
            raise ValueError(f"d must lie in (0, {features}), the number of features, got {d}")
        self.d = d

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {**super().settings(), "d": self.d}

    @torch.no_grad()
    def fit(self, batches: Iterable[Any]) -> "ViM":
        """Find o, R and α. ValueError if there are no data."""
        F, logits = self.read_all(batches)
        layer: Any = self.model.get_submodule(self.head)
        W = layer.weight.flatten(1).double()
        b = W.new_zeros(len(W)) if layer.bias is None else layer.bias.double()
        origin = -(torch.linalg.pinv(W) @ b)
        centred = F.double() - origin
        _, vectors = torch.linalg.eigh(centred.mT @ centred / len(centred))
        residual = vectors[:, : -self.d]
        distance = torch.linalg.vector_norm(centred @ residual, dim=1).mean()
        if not float(distance) > 0:
            raise ValueError(
                f"d must leave some of the features of the ID data, got {self.d}, which spans them"
            )
        alpha = logits.double().amax(1).mean() / distance
        # In the order in which it comes back from a file: products round by it.
        self.origin, self.residual = origin.to(F.dtype), residual.to(F.dtype).contiguous()
        self.alpha = alpha.to(F.dtype)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients."""
        F, logits = self.read(args, kwargs)
        if self.origin is None or self.residual is None or self.alpha is None:
            raise RuntimeError("this ViM is not fitted: call fit on ID data")
        virtual = self.alpha * torch.linalg.vector_norm((F - self.origin) @ self.residual, dim=1)
        return Scored(Energy()(logits) - virtual, logits.argmax(-1), logits, logits)


class KNN(_FeatureDetector):
    """S = -‖z - z_(k)‖ with z = f / ‖f‖: the distance to the k-th nearest ID sample.

    Args:
        model: A classifier in eval mode.
        head: Name of the layer whose input is f; maps and tokens are averaged.
        k: Which neighbour.

    Source: Sun et al., Out-of-distribution detection with deep nearest neighbors (ICML 2022).
    """

    STATISTICS = ("bank",)
    bank: Float[Tensor, "samples features"] | None

    def __init__(self, model: nn.Module, head: str, *, k: int = 50) -> None:
        super().__init__(model, head)
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        self.k = k

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {**super().settings(), "k": self.k}

    @torch.no_grad()
    def fit(self, batches: Iterable[Any]) -> "KNN":
        """Keep z of all ID samples. ValueError if they are fewer than k."""
        F, _ = self.read_all(batches)
        if len(F) < self.k:
            raise ValueError(f"batches must hold at least k={self.k} samples, got {len(F)}")
        self.bank = torch.nn.functional.normalize(F, dim=1)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients."""
        F, logits = self.read(args, kwargs)
        if self.bank is None:
            raise RuntimeError("this KNN is not fitted: call fit on ID data")
        z = torch.nn.functional.normalize(F, dim=1)
        # By products the distance of near neighbours would lose half its digits.
        apart = torch.cdist(z, self.bank, compute_mode="donot_use_mm_for_euclid_dist")
        score = -apart.kthvalue(self.k, dim=1).values
        return Scored(score, logits.argmax(-1), logits, logits)
