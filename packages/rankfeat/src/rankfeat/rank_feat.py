"""RankFeat: out-of-distribution scores from features without their rank-one part."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rankfeat.calibration import Calibration, fingerprint
from rankfeat.hooks import Hooks, edit_output, find_layers
from rankfeat.removal import Layout, remove_feature
from rankfeat.scores import MSP, Energy, MaxLogit, Score

_SCORES: tuple[type[Score], ...] = (Energy, MSP, MaxLogit)
_FORMAT = "rankfeat-1"


class Scored(NamedTuple):
    """Scores of a batch, larger = more in-distribution, with the class and the logits."""

    score: Float[Tensor, " b"]
    label: Int[Tensor, " b"]
    """The class, of the unedited logits: removal often destroys the classifier."""
    logits: Float[Tensor, "b classes"]
    """Those of the model itself."""
    edited_logits: Float[Tensor, "b classes"]
    """Mean over the layers of the logits after removal there, of which the score is."""


def _logits(output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            "model must return logits or an object that has them as .logits,"
            f" got {type(output).__name__}"
        )
    if logits.ndim != 2:
        raise ValueError(f"model must return logits (b, classes), got {tuple(logits.shape)}")
    return logits


def _inputs(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the model in a batch of a loader."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch[0] if isinstance(batch, (tuple, list)) else batch,), {}


class RankFeat(nn.Module):
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
        trunk: Literal["shared", "repeated"] = "shared",
    ) -> None:
        super().__init__()
        if not isinstance(score, _SCORES):
            names = ", ".join(one.__name__ for one in _SCORES)
            raise TypeError(f"score must be one of {names}, got {score!r}")
        if trunk not in ("shared", "repeated"):
            raise ValueError(f"trunk must be 'shared' or 'repeated', got {trunk!r}")
        found = find_layers(model, layers)
        self.training = model.training
        self.model = model
        self.layers = tuple(layers)
        self.score_function = score
        self.layout: Layout = layout
        self.iters, self.tol, self.check, self.trunk = iters, tol, check, trunk
        self.calibration: Calibration | None = None
        # Layers to edit in the pass that is running, and those that it has reached.
        self._editing: tuple[str, ...] = ()
        self._reached: list[str] = []
        self._samples = 0
        self._hooks = Hooks()
        for name, layer in found.items():
            self._hooks.add(layer, partial(self._hook, name))

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, score={self.score_function}, trunk={self.trunk!r}"

    def _hook(self, name: str, _layer: nn.Module, _inputs: Any, output: Any) -> Any:
        if name not in self._editing:
            return None
        if name in self._reached:
            raise RuntimeError(f"layer {name!r} must run once in a pass, but ran again")
        edited = edit_output(output, self._edit, name)
        self._reached.append(name)
        return edited

    def _edit(self, F: Tensor) -> Tensor:
        """X' of the unedited samples: after the branches so far, or alone."""
        samples = F.shape[0] // (1 + len(self._reached))
        left = remove_feature(
            F[:samples], self.layout, iters=self.iters, tol=self.tol, check=self.check
        )
        self._samples = samples
        return torch.cat([F, left]) if self.trunk == "shared" else left

    def _run(self, editing: tuple[str, ...], args: tuple, kwargs: dict[str, Any]) -> Tensor:
        self._editing, self._reached = editing, []
        try:
            logits = _logits(self.model(*args, **kwargs))
        except RuntimeError as error:
            if self.trunk == "shared" and self._reached:
                error.add_note(
                    f"RankFeat enlarges the batch at {', '.join(map(repr, self._reached))}; where"
                    " something bypasses such a layer, use trunk='repeated' or another layer"
                )
            raise
        finally:
            self._editing = ()
        missed = [name for name in editing if name not in self._reached]
        if missed:
            raise RuntimeError(f"layers {missed} did not run in this pass")
        return logits

    def _branches(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """Logits of the model, and of each branch."""
        if self.trunk == "repeated":
            plain = self._run((), args, kwargs)
            return plain, [self._run((name,), args, kwargs) for name in self.layers]
        logits = self._run(self.layers, args, kwargs)
        parts = 1 + len(self.layers)
        if logits.shape[0] != parts * self._samples:
            raise ValueError(
                "the output of a layer must have the batch first, got a first dimension of"
                f" {self._samples} where {logits.shape[0]} logits in {parts} parts came out"
            )
        plain, *branches = logits.chunk(parts) if self._samples else [logits] * parts
        return plain, branches

    def forward(self, *args: Any, **kwargs: Any) -> Scored:
        """Scores and classes of a batch, the arguments of the model. Carries gradients.

        Raises:
            RuntimeError: The detector is closed, the model is not in eval mode, or a layer did
                not run or ran twice.
            LinAlgError: Features of a sample hold NaN or Inf.
        """
        if self._hooks.closed:
            raise RuntimeError("this detector is closed: its hooks are no longer on the model")
        training = [name for name, one in self.model.named_modules() if one.training]
        if training:
            raise RuntimeError(f"model must be in eval mode, but {training[0] or 'it'!r} trains")
        logits, branches = self._branches(args, kwargs)
        # In the precision of the score: the mean of half-precision logits is not rounded to it.
        wide = torch.promote_types(logits.dtype, torch.float32)
        edited = torch.stack([one.to(wide) for one in branches]).mean(0)
        return Scored(self.score_function(edited), logits.argmax(-1), logits, edited)

    @torch.no_grad()
    def score(self, *args: Any, **kwargs: Any) -> Float[Tensor, " b"]:
        """Scores of a batch without gradients, larger = more in-distribution."""
        return self(*args, **kwargs).score

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Any], tpr: float = 0.95) -> float:
        """Set the threshold that accepts at least `tpr` of in-distribution data; it is returned.

        `batches` are inputs, tuples whose first is the inputs, as a DataLoader gives them, or
        mappings of keyword arguments.

        Raises:
            ValueError: No data, `tpr` is outside (0, 1], or a score is not finite.
        """
        scores = []
        for batch in batches:
            args, kwargs = _inputs(batch)
            scores.append(self.score(*args, **kwargs).double().cpu())
        if not scores:
            raise ValueError("batches must hold at least one sample, got none")
        self.calibration = Calibration(torch.cat(scores), tpr, fingerprint(self.model))
        return self.calibration.threshold

    @property
    def threshold(self) -> float:
        """Scores below it are out-of-distribution. RuntimeError before `calibrate`."""
        return self._calibration().threshold

    def _calibration(self) -> Calibration:
        if self.calibration is None:
            raise RuntimeError("this detector has no threshold: call calibrate on ID data first")
        return self.calibration

    def predict(self, *args: Any, **kwargs: Any) -> Bool[Tensor, " b"]:
        """Whether each sample is out-of-distribution: score < threshold, or NaN."""
        threshold = self.threshold
        return ~(self.score(*args, **kwargs) >= threshold)

    def save(self, path: str | Path) -> None:
        """Write the detector without the model: ID scores, and settings as JSON in the header.

        A safetensors file. RuntimeError before `calibrate`.
        """
        calibration = self._calibration()
        settings = {
            "layers": self.layers,
            "score": {"name": type(self.score_function).__name__, **asdict(self.score_function)},
            "layout": self.layout,
            "iters": self.iters,
            "tol": self.tol,
            "check": self.check,
            "trunk": self.trunk,
            "tpr": calibration.tpr,
            "model_sha256": calibration.fingerprint,
        }
        header = {"format": _FORMAT, "settings": json.dumps(settings)}
        save_file({"id_scores": calibration.id_scores.contiguous()}, str(path), header)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> "RankFeat":
        """The detector that `save` wrote, on a model of the weights it was calibrated with.

        Raises:
            ValueError: The file is of another kind, or the weights differ from those that the
                threshold was found with.
        """
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT:
                raise ValueError(f"{path} must be a {_FORMAT} file, got {header.get('format')!r}")
            id_scores = file.get_tensor("id_scores")
        settings = json.loads(header["settings"])
        tpr, expected = settings.pop("tpr"), settings.pop("model_sha256")
        found = fingerprint(model)
        if found != expected:
            raise ValueError(
                f"model must have the weights that {path} was calibrated with (SHA-256"
                f" {expected[:12]}), got {found[:12]}: the threshold does not hold for it"
            )
        score = settings.pop("score")
        kind = {one.__name__: one for one in _SCORES}[score.pop("name")]
        detector = cls(model, settings.pop("layers"), score=kind(**score), **settings)
        detector.calibration = Calibration(id_scores, tpr, found)
        return detector

    def close(self) -> None:
        """Take the hooks off the model. The detector cannot be used afterwards."""
        self._hooks.close()

    def __enter__(self) -> "RankFeat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
