"""The low-rank cache gives what the ordinary cache gives, from fewer numbers."""

from typing import Any

import asvd
import pytest
import torch
from asvd.kv_cache import LowRankCache
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, OPTConfig, Qwen3Config

SMALL: Any = {
    "vocab_size": 41,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGURATIONS = {
    "llama": lambda: LlamaConfig(**SMALL, attention_bias=True),
    "qwen3": lambda: Qwen3Config(**SMALL, head_dim=6),
    "opt": lambda: OPTConfig(
        vocab_size=41, hidden_size=24, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=24,
    ),
}  # fmt: skip


def compressed(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGURATIONS[name]()).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(0, 41, (4, 16), generator=torch.Generator().manual_seed(2))
    return asvd.compress(model, ids, method="whiten", **arguments)


def prompt(rows: int = 2) -> Tensor:
    return torch.randint(3, 41, (rows, 7), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def steps(model: Any, cache: Any, rows: int = 2) -> Tensor:
    """Logits of a prefill and of four tokens after it, one at a time."""
    ids = prompt(rows)
    found = [model(ids, past_key_values=cache, use_cache=True).logits[:, -1]]
    for token in (5, 9, 2, 17):
        new = torch.full((rows, 1), token)
        found.append(model(new, past_key_values=cache, use_cache=True).logits[:, -1])
    return torch.stack(found)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("allocation", ["uniform", "greedy"])
def test_same_logits_from_fewer_numbers(name: str, allocation: str) -> None:
    model = compressed(name, kv_ratio=0.5, allocation=allocation)
    assert asvd.report(model).ratio <= 0.5
    plain: Any = DynamicCache()
    expected = steps(model, plain)
    with LowRankCache(model) as cache:
        found = steps(model, cache)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    whole = sum(layer.keys.numel() + layer.values.numel() for layer in plain.layers)
    heads = 6
    rotations = 0 if name == "opt" else 2 * heads * 11
    assert cache.numbers() - rotations <= 0.5 * whole


@pytest.mark.parametrize("name", ["llama", "opt"])
@pytest.mark.parametrize("beams", [1, 3])
def test_generation(name: str, beams: int) -> None:
    model = compressed(name, kv_ratio=0.6)
    arguments: Any = {
        "max_new_tokens": 6, "num_beams": beams, "do_sample": False, "pad_token_id": 1,
        "eos_token_id": None,
    }  # fmt: skip
    expected = model.generate(prompt(), **arguments)
    with LowRankCache(model) as cache:
        found = model.generate(prompt(), past_key_values=cache, **arguments)
    assert torch.equal(found, expected)


def test_a_dense_projection_keeps_its_heads() -> None:
    model = compressed("llama", kv_ratio=0.6, layers="*.v_proj")
    expected = steps(model, DynamicCache())
    with LowRankCache(model) as cache:
        torch.testing.assert_close(steps(model, cache), expected, rtol=1e-4, atol=1e-4)


def test_cropping_forgets_the_last_tokens() -> None:
    model = compressed("llama", kv_ratio=0.6)
    with torch.no_grad(), LowRankCache(model) as cache:
        model(prompt(), past_key_values=cache, use_cache=True)
        model(torch.full((2, 3), 11), past_key_values=cache, use_cache=True)
        cache.crop(-3)
        found = model(torch.full((2, 1), 5), past_key_values=cache, use_cache=True).logits
        whole = torch.cat([prompt(), torch.full((2, 1), 5)], 1)
        expected = model(whole).logits[:, -1:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_closed_cache_leaves_no_hooks() -> None:
    model = compressed("llama", kv_ratio=0.6)
    with LowRankCache(model):
        pass
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.mark.bad_input
def test_models_without_coordinates_are_refused() -> None:
    model = AutoModelForCausalLM.from_config(CONFIGURATIONS["llama"]())
    with pytest.raises(ValueError, match="factored k_proj or v_proj"):
        LowRankCache(model)
