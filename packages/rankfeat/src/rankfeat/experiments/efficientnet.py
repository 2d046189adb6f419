"""RankFeat on EfficientNet-Lite0 with layers chosen by `suggest_layers` from ID data alone.

ID are crops of the nine photographs of things that scikit-image and scikit-learn ship; OOD are
crops of three surfaces, of five pictures from microscopes and telescopes, and of two pages of
print. So few photographs show that it runs and what it says, not how well it detects.
"""

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from eigenworks import Bars, Claim, Experiment, Row, Size, Trial
from eigenworks.data import EFFICIENTNET_LITE0, PHOTOGRAPHS
from eigenworks.data.photographs import DOCUMENTS, SCIENCE, TEXTURES, THINGS
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rankfeat.baselines import ASH, LogitDetector, ReAct
from rankfeat.detector import ModelDetector
from rankfeat.evaluate import evaluate
from rankfeat.experiments.rows import gains_of, rows_of
from rankfeat.rank_feat import RankFeat
from rankfeat.rank_weight import RankWeight
from rankfeat.scores import MSP, Energy
from rankfeat.suggest import suggest_layers

SIDE = 224
BATCH = 18


def crops(
    pixels: np.ndarray, count: int, generator: np.random.Generator
) -> Float[Tensor, "count 3 224 224"]:
    """Squares of 60 to 100 % of the short side at random places, at 224 x 224, (x - 127) / 128."""
    found = []
    height, width = pixels.shape[:2]
    for _ in range(count):
        side = int(min(height, width) * generator.uniform(0.6, 1.0))
        top, left = (int(generator.integers(size - side + 1)) for size in (height, width))
        square = Image.fromarray(pixels[top : top + side, left : left + side])
        resized = np.array(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        found.append(torch.from_numpy((resized.transpose(2, 0, 1) - 127) / 128))
    return torch.stack(found)


def images(
    photographs: Mapping[str, np.ndarray], names: Mapping[str, object], count: int, seed: int
) -> Float[Tensor, "images 3 224 224"]:
    """About `count` crops, equally many of each photograph."""
    generator = np.random.default_rng(seed)
    each = -(-count // len(names))
    return torch.cat([crops(photographs[name], each, generator) for name in names])


def run(trial: Trial) -> Iterator[Row]:
    """The layers suggested; FPR95 and AUROC with them, with the last map, and of other scores."""
    count = trial.parameters["images"]
    photographs = PHOTOGRAPHS.load()
    net = EFFICIENTNET_LITE0.network().eval()
    trial.progress(0.0, "layers")
    choosing = images(photographs, THINGS, trial.parameters["chosen_from"], trial.seed + 1)
    suggestion = suggest_layers(net, choosing.split(BATCH))
    best = suggestion.layers[0]
    kept = Bars(
        "Class kept when rank one is removed at a layer",
        "ID samples in %",
        tuple(one.layer for one in suggestion.candidates),
        ("class kept",),
        [[100 * one.agreement for one in suggestion.candidates]],
    )
    for one in suggestion.candidates:
        suggested = " (suggested)" if one.layer in suggestion.layers else ""
        yield Row(f"{one.layer}{suggested}", "class kept", 100 * one.agreement, unit="%",
                  plots=(kept,) if one is suggestion.candidates[0] else ())  # fmt: skip
        yield Row(f"{one.layer}{suggested}", "s1² share", 100 * one.share, unit="%")
    removed = copy.deepcopy(net)
    RankWeight(removed, ["conv_head"]).apply()
    chosen, last = f"RankFeat, {best} (suggested)", "RankFeat, act1 (last map)"
    detectors: dict[str, ModelDetector] = {
        "MSP": LogitDetector(net, MSP()),
        "Energy": LogitDetector(net, Energy()),
        "ReAct": ReAct(net, ["avgpool"]),
        "ASH-S": ASH(net, ["avgpool"]),
        chosen: RankFeat(net, [best]),
        last: RankFeat(net, ["act1"]),
        "RankWeight, conv_head": LogitDetector(removed, Energy()),
    }
    detectors["ReAct"].fit(choosing.split(BATCH))
    groups = {"surfaces": TEXTURES, "microscopes and telescopes": SCIENCE, "print": DOCUMENTS}
    sets = {
        name: images(photographs, names, count, trial.seed + 2).split(BATCH)
        for name, names in groups.items()
    }
    of_id = images(photographs, THINGS, count, trial.seed + 3).split(BATCH)
    found = evaluate(
        detectors, of_id, sets, resamples=trial.parameters["resamples"],
        progress=lambda name, samples: trial.progress(0.5, f"{name} {samples}"),
    )  # fmt: skip
    yield from rows_of(found, ("Energy", chosen, last))
    yield from gains_of(found, chosen, "Energy")


experiment = Experiment(
    name="rankfeat/efficientnet",
    title="EfficientNet-Lite0: layers chosen from ID data alone",
    claim=Claim(
        "The deepest layer at which removal keeps the class of half of the ID samples is a better "
        "choice than the last map, where removal destroys the classifier",
        source="this package; the papers name layers for their architectures and give no rule",
    ),
    run=run,
    quick=Size(seconds=60, seeds=(0,), parameters={
        "images": 36, "chosen_from": 18, "resamples": 200}),
    full=Size(seconds=400, seeds=(0, 1, 2), parameters={
        "images": 90, "chosen_from": 72, "resamples": 1000}),
    data=(EFFICIENTNET_LITE0, PHOTOGRAPHS),
    headline=(("RankFeat, blocks.10 (suggested), surfaces", "FPR95"),),
    notes="Nine photographs of things, three of surfaces, five from science and two of print: "
    "crops of one photograph are no independent samples, so that the intervals, which take them "
    "for such, are far too narrow. The layer is chosen from other crops of the same photographs.",
)  # fmt: skip
