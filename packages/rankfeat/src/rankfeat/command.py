"""`rankfeat evaluate | calibrate | score | suggest`, a thin shell over the functions."""

import copy
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from rankfeat.baselines import ASH, KNN, LogitDetector, ReAct, ViM
from rankfeat.detector import Detector
from rankfeat.evaluate import evaluate as evaluate_detectors
from rankfeat.files import write_text
from rankfeat.protocols import PROTOCOLS, Protocol
from rankfeat.rank_feat import RankFeat
from rankfeat.rank_weight import RankWeight
from rankfeat.report import to_text, write
from rankfeat.scores import MSP, Energy, MaxLogit, Score
from rankfeat.sources import Preprocessing, batches, load_data, load_model
from rankfeat.suggest import suggest_layers

app = typer.Typer(
    help="Out-of-distribution detection by removing rank one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)

_SCORES: dict[str, Score] = {"energy": Energy(), "msp": MSP(), "maxlogit": MaxLogit()}

Model = Annotated[str | None, typer.Option(help="torchvision:NAME, timm:NAME or MODULE:FUNCTION.")]
Weights = Annotated[
    str | None, typer.Option(help="A state dictionary, or 'pretrained' to download.")
]
Name = Annotated[
    str | None, typer.Option("--protocol", help=f"Of the paper: {', '.join(PROTOCOLS)}.")
]
Layers = Annotated[list[str] | None, typer.Option("--layer", help="Of RankFeat; may be repeated.")]
IdData = Annotated[str, typer.Option("--id", help="A folder, or torchvision:NAME:ROOT[:SPLIT].")]
Size = Annotated[int | None, typer.Option(help="Side of the images.")]
Crop = Annotated[bool, typer.Option(help="Resize the short side and crop, instead of squeezing.")]
Mean = Annotated[str | None, typer.Option(help="Three numbers, as 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Three numbers.")]
Batch = Annotated[int, typer.Option(min=2, help="Images in a batch.")]
ScoreName = Annotated[str | None, typer.Option("--score", help=f"{', '.join(_SCORES)}.")]


def _refuse(error: Exception) -> "typer.Exit":
    console.print(f"rankfeat: {error}", style="red", markup=False)
    return typer.Exit(2)


class _Setting:
    """Model and preprocessing of a protocol, or as given."""

    def __init__(
        self, protocol: str | None, model: str | None, weights: str | None,
        size: int | None, crop: bool, mean: str | None, std: str | None,
    ) -> None:  # fmt: skip
        if protocol is not None and protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        self.protocol: Protocol | None = PROTOCOLS[protocol] if protocol else None
        name = model or (self.protocol.model if self.protocol else None)
        if name is None:
            raise ValueError("say --model, or a --protocol that has one")
        self.model = load_model(name, weights)
        plain = Preprocessing()
        half = (0.5, 0.5, 0.5)
        self.preprocessing = Preprocessing(
            size or (self.protocol.size if self.protocol else plain.size),
            "crop" if crop else "direct",
            _numbers(mean) if mean else half if self.protocol else plain.mean,
            _numbers(std) if std else half if self.protocol else plain.std,
        )

    def layers(self, given: list[str] | None) -> list[str]:
        found = given or (list(self.protocol.layers) if self.protocol else [])
        if not found:
            raise ValueError("say --layer (see `rankfeat suggest`), or a --protocol")
        return found

    def score(self, given: str | None) -> Score:
        if given is None:
            return self.protocol.score if self.protocol else Energy()
        if given not in _SCORES:
            raise ValueError(f"score must be one of {', '.join(_SCORES)}, got {given!r}")
        return _SCORES[given]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise ValueError(f"mean and std must be numbers with commas, got {text!r}") from None


@app.command()
def suggest(
    id_data: IdData,
    model: Model = None, weights: Weights = None, protocol: Name = None,
    size: Size = None, crop: Crop = False, mean: Mean = None, std: Std = None,
    batch: Batch = 16,
    agreement: Annotated[float, typer.Option(help="Share that must keep its class.")] = 0.5,
    images: Annotated[int, typer.Option(min=2, help="Images to look at.")] = 96,
) -> None:  # fmt: skip
    """Layers for RankFeat, from in-distribution images alone."""
    try:
        setting = _Setting(protocol, model, weights, size, crop, mean, std)
        data = load_data(id_data, setting.preprocessing)
        # Spread over the data, which often are in the order of their classes.
        total = len(data)
        chosen = torch.linspace(0, total - 1, min(images, total)).round().long().unique().tolist()
        part = torch.utils.data.Subset(data, chosen)
        found = suggest_layers(setting.model, batches(part, batch), agreement=agreement)
    except (ValueError, TypeError, OSError) as error:
        raise _refuse(error) from error
    console.print(found.table(), markup=False)
    console.print(f"{found.samples} images; suggested: {', '.join(found.layers)}")


@app.command()
def calibrate(
    id_data: IdData,
    out: Annotated[Path, typer.Option(help="File of the detector.")],
    layer: Layers = None, model: Model = None, weights: Weights = None, protocol: Name = None,
    score: ScoreName = None,
    size: Size = None, crop: Crop = False, mean: Mean = None, std: Std = None,
    batch: Batch = 16,
    tpr: Annotated[float, typer.Option(help="Share of the images to be accepted.")] = 0.95,
) -> None:  # fmt: skip
    """Find the threshold of RankFeat on in-distribution images and save both."""
    try:
        setting = _Setting(protocol, model, weights, size, crop, mean, std)
        detector = RankFeat(setting.model, setting.layers(layer), score=setting.score(score))
        threshold = detector.calibrate(
            batches(load_data(id_data, setting.preprocessing), batch), tpr
        )
        detector.save(out)
    except (ValueError, TypeError, OSError) as error:
        raise _refuse(error) from error
    console.print(f"threshold {threshold:.6g} accepts {100 * tpr:g} %; written to {out}")


@app.command("score")
def score_images(
    detector: Annotated[Path, typer.Option(help="What `rankfeat calibrate` wrote.")],
    data: Annotated[str, typer.Option(help="A folder, or torchvision:NAME:ROOT[:SPLIT].")],
    model: Model = None, weights: Weights = None, protocol: Name = None,
    size: Size = None, crop: Crop = False, mean: Mean = None, std: Std = None,
    batch: Batch = 16,
    out: Annotated[Path | None, typer.Option(help="File for the lines; else printed.")] = None,
) -> None:  # fmt: skip
    """One line of JSON for each image: its score, whether it is out-of-distribution, its class."""
    try:
        setting = _Setting(protocol, model, weights, size, crop, mean, std)
        loaded = RankFeat.load(detector, setting.model)
        images = load_data(data, setting.preprocessing)
        lines = []
        paths = getattr(images, "paths", None)
        with torch.no_grad():
            for part in batches(images, batch):
                found = loaded(part)
                for value, label in zip(found.score.tolist(), found.label.tolist(), strict=True):
                    index = len(lines)
                    told: dict[str, Any] = {"image": str(paths[index]) if paths else index}
                    told |= {"score": value, "ood": not value >= loaded.threshold, "class": label}
                    lines.append(json.dumps(told))
    except (ValueError, TypeError, OSError) as error:
        raise _refuse(error) from error
    text = "\n".join(lines) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


@app.command()
def evaluate(
    id_data: IdData,
    ood: Annotated[list[str], typer.Option(help="NAME=FOLDER; may be repeated.")],
    layer: Layers = None, model: Model = None, weights: Weights = None, protocol: Name = None,
    score: ScoreName = None,
    near: Annotated[list[str] | None, typer.Option(help="NAME of a near set.")] = None,
    far: Annotated[list[str] | None, typer.Option(help="NAME of a far set.")] = None,
    rank_weight: Annotated[
        list[str] | None, typer.Option(help="Layers of RankWeight; may be repeated.")
    ] = None,
    penultimate: Annotated[
        str | None, typer.Option(help="Layer of ReAct and ASH, e.g. the pooled features.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Last layer, for ViM and KNN.")] = None,
    fit: Annotated[
        str | None, typer.Option(help="ID images for ReAct, ViM and KNN, other than --id.")
    ] = None,
    size: Size = None, crop: Crop = False, mean: Mean = None, std: Std = None,
    batch: Batch = 16,
    resamples: Annotated[int, typer.Option(min=2, help="Of the bootstrap.")] = 1000,
    out: Annotated[
        list[Path] | None, typer.Option(help="FILE.csv, .json, .html, .txt or .pt (scores).")
    ] = None,
) -> None:  # fmt: skip
    """Compare RankFeat, RankWeight and other scores: FPR95, AUROC, AUPR in both conventions."""
    try:
        setting = _Setting(protocol, model, weights, size, crop, mean, std)
        chosen = setting.score(score)
        detectors: dict[str, Detector] = {
            "MSP": LogitDetector(setting.model, MSP()),
            "MaxLogit": LogitDetector(setting.model, MaxLogit()),
            "Energy": LogitDetector(setting.model, Energy()),
            "RankFeat": RankFeat(setting.model, setting.layers(layer), score=chosen),
        }
        fitted = _fitted(setting, penultimate, head, fit, batch)
        detectors |= fitted
        removed = rank_weight or list(setting.protocol.rank_weight if setting.protocol else ())
        if removed:
            edited = copy.deepcopy(setting.model)
            RankWeight(edited, removed).apply()
            after = layer or list(setting.protocol.with_rank_weight if setting.protocol else ())
            detectors["RankWeight"] = LogitDetector(edited, chosen)
            detectors["RankFeat+RankWeight"] = RankFeat(edited, after, score=chosen)
        of_id = load_data(id_data, setting.preprocessing)
        sets = {}
        for one in ood:
            name, equals, place = one.partition("=")
            if not equals:
                raise ValueError(f"ood must be NAME=FOLDER, got {one!r}")
            sets[name] = batches(load_data(place, setting.preprocessing), batch)
        groups = {name: tuple(sets_) for name, sets_ in (("near", near), ("far", far)) if sets_}
        with console.status("") as status:
            found = evaluate_detectors(
                detectors, batches(of_id, batch), sets, groups=groups, resamples=resamples,
                progress=lambda name, samples: status.update(f"{name}: {samples} images"),
            )  # fmt: skip
        for path in out or []:
            write(found, path)
    except (ValueError, TypeError, OSError) as error:
        raise _refuse(error) from error
    console.print(to_text(found), markup=False, end="")


def _fitted(
    setting: _Setting, penultimate: str | None, head: str | None, fit: str | None, batch: int
) -> dict[str, Detector]:
    """ReAct, ASH, ViM and KNN, of the layers that were named."""
    found: dict[str, Detector] = {}
    if penultimate is not None:
        found["ASH-S"] = ASH(setting.model, [penultimate])
    if (penultimate or head) and fit is not None:
        data = load_data(fit, setting.preprocessing)
        if penultimate is not None:
            found["ReAct"] = ReAct(setting.model, [penultimate])
        if head is not None:
            found["ViM"] = ViM(setting.model, head)
            found["KNN"] = KNN(setting.model, head)
        for name in ("ReAct", "ViM", "KNN"):
            if name in found:
                found[name].fit(batches(data, batch))
    return found
