"""How long does the whole pipeline take beside the official program's, on the same layers?

SmolLM2, the seven layers of one block, the same calibration tokens, processor time of one thread.
The official program's cost is re-implemented here: for each layer and each of six ratios one
truncated SVD (torch.svd_lowrank) and one perplexity over the calibration set, then its search and
the final factors. Beside it our default (sequential) from calibration to the compressed block, and
our own run of the same search. The official cost grows with the number of layers, ours hardly.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import asvd
import torch
from asvd.calibration import inputs_of
from asvd.experiments.smollm2 import cut, english
from asvd.layers import LowRankLinear, matrix, replace
from asvd.search import RATIOS
from eigenworks.data import SMOLLM2
from eigenworks.timing import arguments, write_rows
from torch import Tensor

QUESTION = "How long does compression take beside the official program's search?"
GATE = 5.0
TARGET = 0.8


@torch.no_grad()
def official(model: Any, pattern: str, calibration: Tensor) -> None:
    """The cost of the official pipeline: statistics, sensitivities, search, factors."""
    layers = asvd.linear_layers(model, pattern)
    batches = [row[None] for row in calibration]
    scales = {name: torch.zeros(matrix(layer).shape[1]) for name, layer in layers.items()}
    for batch in batches:
        with inputs_of(model, list(layers)) as seen:
            model(batch, use_cache=False)
        for name, calls in seen.items():
            scales[name] += calls[0].abs().mean((0, 1))

    def factored(name: str, ratio: float) -> LowRankLinear:
        W = matrix(layers[name])
        m, n = W.shape
        s = scales[name] ** 0.5 + 1e-6
        U, sigma, V = torch.svd_lowrank(W * s, q=asvd.rank_for_ratio(m, n, ratio))
        return LowRankLinear.from_factors(U * sigma.sqrt(), (V * sigma.sqrt()).mT / s, None)

    sensitivity: dict[str, dict[float, float]] = {}
    for name, layer in layers.items():
        sensitivity[name] = {}
        for ratio in RATIOS:
            replace(model, name, factored(name, ratio))
            sensitivity[name][ratio] = asvd.perplexity(model, batches)
        replace(model, name, layer)
    shapes = {name: (len(matrix(layer)), matrix(layer).shape[1]) for name, layer in layers.items()}
    for name, ratio in asvd.RankList(sensitivity, shapes).parity_cut(TARGET).ratios.items():
        if ratio is not None:
            replace(model, name, factored(name, ratio))


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--block", type=int, default=15)
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    options = parser.parse_args()
    if options.quick:
        options.length = 16
    torch.set_num_threads(1)
    model, tokenizer = SMOLLM2.load()
    calibration = cut(english(), tokenizer, options.windows, options.length)
    pattern = f"model.layers.{options.block}.*"
    calls: dict[str, Callable[[Any], object]] = {
        "official cost": lambda model: official(model, pattern, calibration),
        "sequential": lambda model: asvd.compress(model, calibration, TARGET, layers=pattern),
        "whitening": lambda model: asvd.compress(
            model, calibration, TARGET, "whiten", layers=pattern
        ),
        "our search": lambda model: asvd.compress(
            model, calibration, TARGET, "asvd", allocation="strs", layers=pattern
        ),
    }
    seconds: dict[str, float] = {}
    rows = []
    for name, call in calls.items():
        trial = copy.deepcopy(model)
        start = time.process_time()
        call(trial)
        seconds[name] = time.process_time() - start
        ratio = seconds["official cost"] / seconds[name]
        gate = "" if name != "sequential" else "met" if ratio >= GATE else "missed"
        print(f"{name:16s} {seconds[name]:7.1f} s  {ratio:6.2f}x  {gate}", flush=True)
        if name != "official cost":
            rows.append({"label": f"{name}, layers of block {options.block}",
                         "metric": "official time over ours", "value": ratio, "unit": "x",
                         "better": "higher", "seconds": seconds[name]})  # fmt: skip
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
