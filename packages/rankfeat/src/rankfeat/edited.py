"""Detectors that score the logits of features edited at some layers."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rankfeat.detector import ModelDetector, Scored, logits_of
from rankfeat.hooks import edit_output, find_layers
from rankfeat.scores import MSP, Energy, MaxLogit, Score

_SCORES: tuple[type[Score], ...] = (Energy, MSP, MaxLogit)
Trunk = Literal["shared", "repeated"]


def require_score(score: Score) -> None:
    """TypeError unless it is one of `rankfeat.scores`, which can be saved."""
    if not isinstance(score, _SCORES):
        names = ", ".join(one.__name__ for one in _SCORES)
        raise TypeError(f"score must be one of {names}, got {score!r}")


def score_to_json(score: Score) -> dict[str, Any]:
    """Name and arguments."""
    return {"name": type(score).__name__, **asdict(score)}


def score_from_json(told: dict[str, Any]) -> Score:
    """What `score_to_json` was given."""
    told = dict(told)
    return {one.__name__: one for one in _SCORES}[told.pop("name")](**told)


class EditedDetector(ModelDetector):
    """Scores the mean over the layers of the logits after an edit of that layer's features.

    In the branch of one layer the others are left as they are. A subclass says in `edit` what is
    done to the features.

    Args:
        model: A classifier in eval mode.
        layers: Names of layers, as in `model.named_modules()`, whose output (or the first of a
            tuple) is the features, batch first.
        score: `Energy()`, `MSP()` or `MaxLogit()`.
        trunk: "shared" runs the model once: from a layer on, its branch is a further part of the
            batch. "repeated" runs the model once more for each layer, the definition, for models
            in which something bypasses the layer, such as the skip around the inner layer of a
            residual block.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], score: Score, trunk: Trunk) -> None:
        super().__init__(model)
        require_score(score)
        if trunk not in ("shared", "repeated"):
            raise ValueError(f"trunk must be 'shared' or 'repeated', got {trunk!r}")
        found = find_layers(model, layers)
        self.layers = tuple(layers)
        self.score_function = score
        self.trunk: Trunk = trunk
        # Layers to edit in the pass that is running, and those that it has reached.
        self._editing: tuple[str, ...] = ()
        self._reached: list[str] = []
        self._samples = 0
        # The layer at which the unedited samples may end, and the layer reached last so far.
        self._ending: str | None = None
        self._last = self.layers[0] if len(self.layers) == 1 else None
        for name, layer in found.items():
            self._hooks.add(layer, partial(self._hook, name))

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, score={self.score_function}, trunk={self.trunk!r}"

    def settings(self) -> dict[str, Any]:
        """Arguments beside the model, as JSON."""
        return {
            "layers": self.layers,
            "score": score_to_json(self.score_function),
            "trunk": self.trunk,
        }

    @classmethod
    def from_settings(cls, model: nn.Module, settings: dict[str, Any]) -> ModelDetector:
        """The detector of what `settings` gave."""
        given: dict[str, Any] = dict(settings)
        given["score"] = score_from_json(given["score"])
        return cls(model, **given)

    def edit(self, F: Tensor, layer: str) -> Tensor:
        """The features that the rest of the model runs on, of the shape of F."""
        raise NotImplementedError

    def _hook(self, name: str, _layer: nn.Module, _inputs: Any, output: Any) -> Any:
        if name not in self._editing:
            return None
        if name in self._reached or self._ending in self._reached:
            raise RuntimeError(f"layer {name!r} must run once in a pass, but ran again")
        edited = edit_output(output, partial(self._enlarge, name), name)
        self._reached.append(name)
        return edited

    def _enlarge(self, name: str, F: Tensor) -> Tensor:
        """The edited part behind the branches so far, or alone."""
        samples = F.shape[0] // (1 + len(self._reached))
        edited = self.edit(F[:samples], name)
        self._samples = samples
        if self.trunk == "repeated":
            return edited
        return torch.cat([F[samples:] if name == self._ending else F, edited])

    def _run(
        self, editing: tuple[str, ...], args: tuple, kwargs: dict[str, Any], ending: str | None
    ) -> Tensor:
        self._editing, self._reached, self._ending = editing, [], ending
        try:
            logits = logits_of(self.model(*args, **kwargs))
        except RuntimeError as error:
            if self.trunk == "shared" and self._reached:
                error.add_note(
                    f"RankFeat enlarges the batch at {', '.join(map(repr, self._reached))}; where"
                    " something bypasses such a layer, use trunk='repeated' or another layer"
                )
            raise
        finally:
            self._editing, self._ending = (), None
        missed = [name for name in editing if name not in self._reached]
        if missed:
            raise RuntimeError(f"layers {missed} did not run in this pass")
        return logits

    def _parts(self, logits: Tensor, parts: int) -> list[Tensor]:
        if logits.shape[0] != parts * self._samples:
            raise ValueError(
                "the output of a layer must have the batch first, got a first dimension of"
                f" {self._samples} where {logits.shape[0]} logits in {parts} parts came out"
            )
        n = self._samples
        return [logits[part * n : (part + 1) * n] for part in range(parts)]

    def branches(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of the model, and of the branch of each layer by its name, of one pass."""
        self.require_ready()
        self.require_fitted()
        plain, branches = self._branches(args, kwargs)
        order = self.layers if self.trunk == "repeated" else self._reached
        return plain, dict(zip(order, branches, strict=True))

    def _branches(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """Logits of the model, and of each branch, a shared trunk's in the order of the layers."""
        if self.trunk == "repeated":
            plain = self._run((), args, kwargs, None)
            return plain, [self._run((name,), args, kwargs, None) for name in self.layers]
        logits = self._run(self.layers, args, kwargs, None)
        if not torch.compiler.is_compiling():
            self._last = self._reached[-1]
        plain, *branches = self._parts(logits, 1 + len(self.layers))
        return plain, branches

    def _mean(self, branches: list[Tensor]) -> Tensor:
        # In the precision of the score: the mean of half-precision logits is not rounded to it.
        wide = torch.promote_types(branches[0].dtype, torch.float32)
        return torch.stack([one.to(wide) for one in branches]).mean(0)

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients.

        Raises:
            RuntimeError: The detector is closed or not fitted, the model is not in eval mode, or
                a layer did not run or ran twice.
            LinAlgError: Features of a sample hold NaN or Inf.
        """
        self.require_ready()
        self.require_fitted()
        logits, branches = self._branches(args, kwargs)
        edited = self._mean(branches)
        return Scored(self.score_function(edited), logits.argmax(-1), logits, edited)

    @torch.no_grad()
    def score(self, *args: Any, **kwargs: Any) -> Float[Tensor, " b"]:
        """Scores of a batch without gradients, larger = more in-distribution.

        Logits of the unedited features are not computed: of a shared trunk they end at the last
        layer.
        """
        self.require_ready()
        self.require_fitted()
        if self.trunk == "repeated":
            branches = [self._run((name,), args, kwargs, None) for name in self.layers]
        elif self._last is None:
            _, branches = self._branches(args, kwargs)
        else:
            logits = self._run(self.layers, args, kwargs, self._last)
            branches = self._parts(logits, len(self.layers))
        return self.score_function(self._mean(branches))
