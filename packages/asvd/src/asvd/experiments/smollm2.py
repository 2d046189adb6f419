"""SmolLM2-135M compressed by every method at the same ratios, from the same tokens.

Quick: the first blocks of the model alone, English that ships with Python, how far the next-token
distribution moves. Full: the whole model, WikiText-2, perplexity.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from eigenworks import Claim, Curve, Experiment, Figure, HeatMap, Lines, Row, Size, Trial
from eigenworks.data import SMOLLM2, WIKITEXT2
from jaxtyping import Float, Int
from torch import Tensor, nn

from asvd.perplexity import perplexity
from asvd.pipeline import Point, sweep

METHODS: Mapping[str, Mapping[str, Any]] = {
    "sequential": {"method": "sequential"},
    "whiten, uniform": {"method": "whiten"},
    "whiten, greedy": {"method": "whiten", "allocation": "greedy"},
    "svd": {"method": "svd"},
    "asvd α=0.5": {"method": "asvd", "alpha": 0.5},
    "asvd α=1": {"method": "asvd", "alpha": 1.0},
    "asvd α=0.5, STRS": {
        "method": "asvd",
        "alpha": 0.5,
        "allocation": "strs",
        "candidates": (0.4, 0.6, 0.8, 0.9),
    },
}
"""Arguments of `asvd.compress` by the name of the row; those of the same spectra are neighbours."""


def english() -> str:
    """The language reference that ships with Python."""
    return "\n\n".join(topics[name] for name in sorted(topics))


def cut(text: str, tokenizer: Any, windows: int, length: int) -> Int[Tensor, "windows length"]:
    """The first windows of the text."""
    ids = tokenizer(text[: 16 * windows * length], return_tensors="pt", verbose=False).input_ids[0]
    return ids[: windows * length].view(windows, length)


def first_blocks(model: Any, blocks: int) -> Any:
    """The model without its later blocks."""
    model.model.layers = model.model.layers[:blocks]
    model.config.num_hidden_layers = blocks
    return model


@torch.no_grad()
def log_probabilities(model: nn.Module, ids: Tensor) -> Float[Tensor, "windows length v"]:
    """Of the next token."""
    return torch.cat([model(row[None], use_cache=False).logits for row in ids]).log_softmax(-1)


def divergence_from(dense: Tensor, ids: Tensor) -> Callable[[nn.Module], float]:
    """Mean KL divergence from the dense model's next-token distribution, in nats."""

    def measure(model: nn.Module) -> float:
        now = log_probabilities(model, ids)
        return float((dense.exp() * (dense - now)).sum(-1).double().mean())

    return measure


def points_of(
    model: Any, calibration: Tensor, name: str, evaluate: Callable[[nn.Module], float],
    ratios: Sequence[float], folder: Path | None, **more: Any,
) -> list[Point]:  # fmt: skip
    """The method at all ratios; what is in the folder is not done again."""
    arguments = METHODS[name]
    spectra = "-".join(str(arguments[key]) for key in ("method", "alpha") if key in arguments)
    return sweep(
        model, calibration, ratios, evaluate, **arguments, **more,
        run_folder=None if folder is None else folder / spectra,
    )  # fmt: skip


def run(trial: Trial) -> Iterator[Row]:
    """The measure and the seconds of every method at every ratio."""
    p = trial.parameters
    model, tokenizer = SMOLLM2.load()
    if p["text"] == "wikitext":
        texts = WIKITEXT2.load()
        seen, unseen = texts.valid, texts.test
    else:
        whole = english()
        seen, unseen = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    calibration = cut(seen, tokenizer, p["calibration"], p["length"])
    test = cut(unseen, tokenizer, p["test"], p["length"])
    yield Row("calibration", "tokens", calibration.numel())
    yield Row("test", "tokens", test.numel())
    if p["blocks"]:
        model = first_blocks(model, p["blocks"])
        metric = "KL to the dense model"
        evaluate = divergence_from(log_probabilities(model, test), test)
    else:
        metric = "perplexity"
        windows = [row[None] for row in test]

        def evaluate(model: nn.Module) -> float:
            return perplexity(model, windows)

        yield Row("dense", metric, evaluate(model), better="lower")
    curves = []
    names = [name for name in METHODS if name in p["methods"]]
    for position, name in enumerate(names):
        start = time.perf_counter()

        def tell(fraction: float, stage: str, name: str = name, position: int = position) -> None:
            trial.progress((position + 0.9 * fraction) / len(names), f"{name}: {stage}")

        points = points_of(
            model, calibration, name, evaluate, p["ratios"], trial.folder,
            probe_batches=p["probes"], progress=tell,
        )  # fmt: skip
        for point in points:
            label = f"{name}, {point.ratio:g}"
            yield Row(label, metric, point.value, better="lower")
            yield Row(label, "seconds", sum(point.report.seconds.values()), unit="s")
            yield Row(label, "kept share", point.report.ratio)
        curves.append(Curve(name, p["ratios"], [point.value for point in points]))
        trial.progress((position + 1) / len(names), f"{name}: {time.perf_counter() - start:.0f} s")
        if name == names[0]:
            allocation = heat_map(points[-1])
    lines = Lines("Loss by method", "kept share", metric, tuple(curves), log_y=True)
    yield Row("methods compared", "number", len(names), plots=(lines, allocation))


def heat_map(point: Point) -> HeatMap:
    """Kept share of each layer, kinds of layers by blocks."""
    shares: dict[str, list[float]] = {}
    for layer in point.report.layers:
        shares.setdefault(layer.name.rpartition(".")[2], []).append(layer.ratio)
    blocks = len(next(iter(shares.values())))
    return HeatMap(
        f"Kept share of each layer, {point.report.method} at {point.ratio:g}",
        list(shares.values()), list(shares), [str(i) for i in range(blocks)], "layer", "block",
    )  # fmt: skip


_BASELINE = "the first implementation of these methods here, same number of tokens"
_KNOWN = {
    "dense": 22.3,
    "whiten, uniform, 0.9": 70, "whiten, uniform, 0.8": 105, "whiten, uniform, 0.6": 246,
    "whiten, greedy, 0.9": 46, "whiten, greedy, 0.8": 102,
    "asvd α=1, 0.9": 867, "asvd α=1, 0.8": 5387, "asvd α=1, 0.6": 76343,
}  # fmt: skip
_GOALS = {"sequential, 0.9": 40, "sequential, 0.8": 75}

experiment = Experiment(
    name="asvd/smollm2",
    title="SmolLM2-135M: low rank by SVD, ASVD, whitening and the sequential method",
    claim=Claim(
        "At every ratio the sequential method has a lower perplexity than ASVD and than whitening "
        "with uniform or greedy ranks",
        source="goal of this package; the order SVD > ASVD > whitening is that of ASVD "
        "(arXiv:2312.05821) and SVD-LLM",
    ),
    run=run,
    quick=Size(
        seconds=60,
        parameters={
            "text": "python", "length": 256, "calibration": 8, "test": 4, "blocks": 4,
            "ratios": (0.8,), "probes": 1,
            "methods": ("svd", "asvd α=0.5", "whiten, uniform", "sequential"),
        },
    ),
    full=Size(
        seconds=2500,
        parameters={
            "text": "wikitext", "length": 512, "calibration": 8, "test": 4, "blocks": 0,
            "ratios": (0.9, 0.8, 0.7, 0.6), "probes": 1, "methods": tuple(METHODS),
        },
    ),
    data=(SMOLLM2,),
    figures=(
        *(Figure(label, "perplexity", value, _BASELINE) for label, value in _KNOWN.items()),
        *(
            Figure(label, "perplexity", value, "goal of this package", 0.0, "at most")
            for label, value in _GOALS.items()
        ),
    ),
    headline=(("sequential, 0.8", "perplexity"), ("sequential, 0.8", "KL to the dense model")),
    notes="The weights were rounded to four bits before. WikiText-2 is the word-level form with "
    "its tokenisation undone, and few of its tokens are used, so that perplexities compare with "
    "nothing published. The full size needs WikiText-2 in the folder that EIGENWORKS_DATA names: "
    f"{WIKITEXT2.how}. STRS probes four candidate "
    "ratios (the official program six) on one calibration window. Seconds are those of the last "
    "process that worked on a method, without what an interrupted one had done.",
)  # fmt: skip
