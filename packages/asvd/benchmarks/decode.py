"""How fast does a compressed model decode, and what does its cache hold?

The shapes of SmolLM2-135M with random weights, one thread, float32, batch 1: tokens a second of
processor time, one at a time after a prompt, factored over dense. Ratios below 1 are slower.
Weights: all linear layers at a kept share. Cache: key and value projections factored and a
LowRankCache, which expands all cached keys and values at each step.
"""

import statistics
import time
from typing import Any

import torch
from asvd import LowRankCache
from asvd.layers import install, linear_layers, matrix
from asvd.search import uniform
from eigenworks.timing import arguments, write_rows
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

QUESTION = "How fast does a compressed model decode, and how large is its cache, beside the dense?"


def build() -> Any:
    """SmolLM2-135M, not trained."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
            tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip


def factored(ratio: float) -> Any:
    """All linear layers at the kept share."""
    model = build()
    shapes = {n: (len(matrix(m)), matrix(m).shape[1]) for n, m in linear_layers(model).items()}
    ranks = uniform(shapes, ratio).ranks
    return filled(model, {name: rank for name, rank in ranks.items() if rank is not None})


def cached(ratio: float) -> Any:
    """Keys and values at the kept share of the cache."""
    model = build()
    layers = linear_layers(model, ["*.k_proj", "*.v_proj"])
    return filled(model, {name: int(ratio * len(matrix(m))) for name, m in layers.items()})


def filled(model: Any, ranks: dict[str, int]) -> Any:
    """The model with random factors of these ranks."""
    install(model, ranks)
    for name, parameter in model.named_parameters():
        if "ALinear" in name or "BLinear" in name:
            nn.init.normal_(parameter, std=0.05)
    return model


@torch.no_grad()
def decode(model: Any, cache: Any, prompt: int, steps: int) -> float:
    """Tokens a second after the prompt: one over the median time of a step."""
    ids = torch.randint(0, 49152, (1, prompt))
    model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    taken = []
    for _ in range(steps):
        start = time.process_time()
        model(ids[:, :1], past_key_values=cache, use_cache=True)
        taken.append(time.process_time() - start)
    return 1 / statistics.median(taken)


def numbers(cache: Any) -> int:
    """Bytes of a cache."""
    if isinstance(cache, LowRankCache):
        return 4 * cache.numbers()
    return 4 * sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 1024])
    options = parser.parse_args()
    if options.quick:
        options.steps, options.prompts = 2, [64]
    torch.set_num_threads(1)
    dense = build()
    rows: list[dict[str, Any]] = []
    for prompt in options.prompts:
        cache: Any = DynamicCache()
        base = decode(dense, cache, prompt, options.steps)
        size = numbers(cache)
        print(
            f"dense, {prompt} tokens: {base:.1f} tokens/s, cache {size / 2**20:.1f} MiB", flush=True
        )
        for ratio in (0.8, 0.5, 0.2):
            speed = decode(factored(ratio), DynamicCache(), prompt, options.steps)
            rows.append({"label": f"weights at {ratio}, {prompt} tokens",
                         "metric": "tokens/s over dense", "value": speed / base, "unit": "x",
                         "better": "higher", "tokens_per_second": speed})  # fmt: skip
        for ratio in (0.5, 0.25):
            model = cached(ratio)
            with LowRankCache(model) as small:
                speed = decode(model, small, prompt, options.steps)
                share = numbers(small) / size
            label = f"cache at {ratio}, {prompt} tokens"
            rows.append({"label": label, "metric": "tokens/s over dense", "value": speed / base,
                         "unit": "x", "better": "higher", "tokens_per_second": speed})  # fmt: skip
            rows.append({"label": label, "metric": "cache bytes over dense", "value": share,
                         "unit": "x", "better": "lower"})  # fmt: skip
        for row in rows:
            if row["label"].endswith(f" {prompt} tokens"):
                print(f"{row['label']:32s} {row['metric']:24s} {row['value']:.3f}", flush=True)
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
