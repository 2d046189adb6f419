"""`compress` on small random models of the usual architectures."""

from pathlib import Path
from typing import Any

import asvd
import pytest
import torch
from asvd.job import AllocationName
from asvd.spectra import Method
from asvd.spill import Folder
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

VOCABULARY = 61
SMALL: Any = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "head_dim": 6,
}
CONFIGURATIONS = {
    "llama": lambda: LlamaConfig(**SMALL, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**SMALL, sliding_window=8),
    "qwen3": lambda: Qwen3Config(**SMALL),
    "gemma2": lambda: Gemma2Config(**SMALL, sliding_window=8),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=3, n_head=4, n_positions=32
    ),
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY, hidden_size=24, ffn_dim=40, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=32, word_embed_proj_dim=24,
    ),
}  # fmt: skip
METHODS: tuple[Method, ...] = ("svd", "asvd", "whiten", "sequential")


def build(name: str = "llama") -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGURATIONS[name]()).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return model


def tokens(sequences: int = 6, length: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (sequences, length), generator=generator)


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_architecture(name: str, method: Method, tmp_path: Path) -> None:
    model, ids = build(name), tokens()
    dense = logits(model, ids)
    returned = asvd.compress(model, ids, 0.7, method)
    assert returned is model
    found = asvd.report(model)
    assert found.ratio <= 0.7
    assert found.ratio > 0.6
    assert asvd.low_rank_layers(model)
    now = logits(model, ids)
    assert torch.isfinite(now).all()
    assert not torch.equal(now, dense)
    model.save_pretrained(tmp_path)
    assert any(path.suffix == ".safetensors" for path in tmp_path.iterdir())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, ids), now)
    assert {n: m.rank for n, m in asvd.low_rank_layers(loaded).items()} == {
        layer.name: layer.rank for layer in found.layers if layer.rank is not None
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_whole_size_is_the_whole_model(method: Method) -> None:
    model, ids = build(), tokens()
    dense = logits(model, ids)
    asvd.compress(model, ids, 1.0, method)
    assert asvd.report(model).ratio == 1
    assert not asvd.low_rank_layers(model)
    torch.testing.assert_close(logits(model, ids), dense, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("allocation", ["uniform", "greedy", "fisher", "strs", "stable_rank"])
def test_allocations_keep_within_the_ratio(allocation: AllocationName) -> None:
    model = build()
    asvd.compress(model, tokens(), 0.65, "whiten", allocation=allocation)
    assert 0.55 < asvd.report(model).ratio <= 0.65


def test_methods_are_ordered_on_calibration_data() -> None:
    """Squared output error of one layer at one rank: whitening has the least."""
    errors = {}
    for method in ("svd", "asvd", "whiten"):
        torch.manual_seed(0)
        X = torch.randn(400, 24) * torch.logspace(0, 2, 24)
        net = nn.Sequential(nn.Linear(24, 16))
        target = net(X)
        asvd.compress(net, [X], 0.5, method)
        errors[method] = (net(X) - target).norm().item()
    assert errors["svd"] > errors["asvd"] > errors["whiten"]


def test_batching_changes_nothing() -> None:
    models = []
    for batches in (tokens(), [tokens()], [tokens()[:4], tokens()[4:]]):
        model = build().double()
        models.append(asvd.compress(model, batches, 0.7))
    expected = logits(models[0], tokens())
    for model in models[1:]:
        torch.testing.assert_close(logits(model, tokens()), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["asvd", "whiten", "sequential"])
def test_padding_does_not_count(method: Method) -> None:
    ids = tokens(4, 16)
    padded = torch.cat([ids, torch.zeros(4, 5, dtype=ids.dtype)], 1)
    mask = torch.cat([torch.ones(4, 16), torch.zeros(4, 5)], 1).long()
    plain = asvd.compress(build().double(), [ids], 0.7, method)
    masked = asvd.compress(
        build().double(), [{"input_ids": padded, "attention_mask": mask}], 0.7, method
    )
    torch.testing.assert_close(logits(masked, ids), logits(plain, ids), rtol=1e-6, atol=1e-8)


def test_whitening_ignores_a_rescaling_that_keeps_the_function() -> None:
    """Channels of norms times c, columns of the layers behind them over c."""
    compressed = []
    for rescaled in (False, True):
        model = build().double()
        if rescaled:
            rescale(model)
        compressed.append(logits(asvd.compress(model, tokens(), 0.6, "whiten"), tokens()))
    torch.testing.assert_close(compressed[0], compressed[1], rtol=1e-6, atol=1e-7)


def rescale(model: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for block in model.model.layers:
            pairs = [
                (
                    block.input_layernorm,
                    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                ),
                (block.post_attention_layernorm, ("mlp.gate_proj", "mlp.up_proj")),
            ]
            for norm, names in pairs:
                c = (1.5 * torch.randn(norm.weight.numel(), generator=generator)).exp()
                c = c.to(norm.weight.dtype)
                norm.weight *= c
                for name in names:
                    block.get_submodule(name).weight /= c


def test_any_module_without_blocks() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 8))
    X = torch.randn(200, 12) @ torch.randn(12, 12)
    target = net(X).detach()

    def loss(output: Tensor, _batch: Any) -> Tensor:
        return output.square().sum()

    for method in ("whiten", "sequential"):
        trial = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 8))
        trial.load_state_dict(net.state_dict())
        asvd.compress(trial, [X], 0.8, method, loss=loss)
        error = ((trial(X) - target).norm() / target.norm()).item()
        assert error < 0.5, method


@pytest.mark.parametrize("method", METHODS)
def test_layers_outside_the_blocks(method: Method) -> None:
    """The output embedding belongs to no block: the model is then calibrated as a whole."""
    model = build("mistral")
    asvd.compress(model, tokens(), 0.6, method, layers="*")
    assert asvd.report(model).ratio <= 0.6
    assert "lm_head" in {layer.name for layer in asvd.report(model).layers}
    assert torch.isfinite(logits(model, tokens())).all()


def test_within_a_perplexity() -> None:
    model, ids = build(), tokens()
    dense = asvd.perplexity(model, [row[None] for row in ids])
    budget = 1.05 * dense
    asvd.compress(model, ids, method="whiten", allocation="greedy", perplexity_budget=budget)
    assert asvd.report(model).ratio < 1
    assert asvd.perplexity(model, [row[None] for row in ids]) <= budget


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_is_compress_at_each_ratio(method: Method, tmp_path: Path) -> None:
    model, ids = build(), tokens()
    dense = logits(model, ids)
    calls = []

    def measure(net: Any) -> float:
        calls.append(1)
        return float(logits(net, ids).square().sum())

    arguments: Any = {"run_folder": tmp_path}
    points = asvd.sweep(model, ids, (0.8, 0.6), measure, method, **arguments)
    assert torch.equal(logits(model, ids), dense)
    assert not asvd.low_rank_layers(model)
    for point in points:
        alone = asvd.compress(build(), ids, point.ratio, method)
        assert float(logits(alone, ids).square().sum()) == pytest.approx(point.value, rel=1e-4)
        assert [layer.rank for layer in asvd.report(alone).layers] == [
            layer.rank for layer in point.report.layers
        ]
    again = asvd.sweep(model, ids, (0.8, 0.6), measure, method, **arguments)
    assert [point.value for point in again] == [point.value for point in points]
    assert len(calls) == 2
    # Another ratio begins with the spectra that are there, and compress with those of a sweep.
    asvd.sweep(model, ids, (0.7,), measure, method, **arguments)
    assert len(calls) == 3
    asvd.compress(model, ids, 0.6, method, run_folder=tmp_path)
    assert float(logits(model, ids).square().sum()) == pytest.approx(points[1].value, rel=1e-4)


def test_probes_run_from_the_touched_block_on() -> None:
    """And give what the whole model gives."""
    model, ids = build("gemma2"), tokens(3)
    ranked = asvd.probe(model, ids, ratios=(0.5,), layers="*.v_proj")
    spectra = {name: harm for name, _, harm in ranked.entries}
    for name, harm in spectra.items():
        trial = asvd.compress(build("gemma2"), ids, 0.5, "asvd", layers=name, allocation="uniform")
        expected = asvd.perplexity(trial, [row[None] for row in ids])
        assert harm == pytest.approx(expected, rel=1e-4)


def test_interrupted_runs_go_on(tmp_path: Path) -> None:
    expected = logits(asvd.compress(build(), tokens(), 0.7), tokens())
    stages: list[str] = []

    def stop(fraction: float, what: str) -> None:
        stages.append(what)
        if what == "update" and fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asvd.compress(build(), tokens(), 0.7, run_folder=tmp_path, progress=stop)
    again = asvd.compress(build(), tokens(), 0.7, run_folder=tmp_path)
    assert torch.equal(logits(again, tokens()), expected)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("moment", [5, 26, 29, 33, 60, 75, 82])
@pytest.mark.parametrize("what", ["save", "remove"])
def test_a_run_that_died_anywhere_goes_on(
    what: str, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the n-th file is written, or removed, as a kill would have it."""
    small = tokens(2)
    expected = logits(asvd.compress(build(), small, 0.7), small)
    original = getattr(Folder, what)
    calls = iter(range(10_000))

    def dying(self: Folder, *arguments: Any) -> Any:
        if next(calls) == moment:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, what, dying)
        try:
            asvd.compress(build(), small, 0.7, run_folder=tmp_path)
        except KeyboardInterrupt:
            pass
        else:
            assert next(calls) <= moment, "there are fewer such moments in a run"
    again = asvd.compress(build(), small, 0.7, run_folder=tmp_path)
    assert torch.equal(logits(again, small), expected)


@pytest.mark.bad_input
def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    asvd.compress(build(), tokens(), 0.7, "whiten", run_folder=tmp_path)
    with pytest.raises(asvd.StaleRunError, match="another method"):
        asvd.compress(build(), tokens(), 0.7, "sequential", run_folder=tmp_path)
    with pytest.raises(asvd.StaleRunError, match="another calibration"):
        asvd.compress(build(), tokens(5), 0.7, "whiten", run_folder=tmp_path)


def test_training_mode_and_hooks_are_as_before() -> None:
    model = build()
    model.train()
    model.model.layers[0].eval()
    calls = []
    layer = model.model.layers[1].mlp.gate_proj
    handle = layer.register_forward_hook(lambda *_: calls.append(1))
    asvd.compress(model, tokens(), 0.7, skip="*.gate_proj")
    assert model.training
    assert not model.model.layers[0].training
    assert not model.model.layers[0].mlp.training
    calls.clear()
    model(tokens())
    assert calls == [1]
    handle.remove()
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
    assert all("forward" not in block.__dict__ for block in model.model.layers)


@pytest.mark.bad_input
def test_activations_that_are_not_finite_name_their_layer() -> None:
    model = build()
    with torch.no_grad():
        model.model.layers[1].post_attention_layernorm.weight[3] = torch.nan
    message = r"input of layer 'model.layers.1.mlp.gate_proj' holds NaN"
    with pytest.raises(asvd.NonFiniteActivationError, match=message):
        asvd.compress(model, tokens(), 0.7, "whiten")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0.0}, r"ratio must lie in \(0, 1\], got 0.0"),
        ({"ratio": 0.5, "method": "pca"}, "method must be one of 'svd', 'asvd'"),
        ({"ratio": 0.5, "allocation": "even"}, "allocation must be one of"),
        ({"ratio": None}, "give one of ratio, perplexity_budget and kv_ratio"),
        (
            {"ratio": 0.5, "perplexity_budget": 9.0},
            "give one of ratio, perplexity_budget and kv_ratio",
        ),
        ({"ratio": 0.5, "calibration": None}, "calibration must be given"),
        ({"ratio": 0.5, "calibration": []}, "at least one batch"),
        ({"ratio": 0.5, "calibration": torch.zeros(3)}, r"token ids \(N, T\)"),
        ({"ratio": 0.5, "calibration": torch.zeros(0, 9)}, r"got a tensor \(0, 9\)"),
        ({"ratio": 0.5, "layers": "*.nothing"}, "no linear layer matches"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    given: Any = {"calibration": tokens()} | arguments
    with pytest.raises(ValueError, match=message):
        asvd.compress(build(), **given)


def test_bfloat16_models_keep_their_dtype() -> None:
    model = build().bfloat16()
    asvd.compress(model, tokens(), 0.7)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(logits(model, tokens()).float()).all()


def test_frozen_parameters_stay_frozen() -> None:
    model = build().requires_grad_(False)
    asvd.compress(model, tokens(), 0.7)
    assert not any(p.requires_grad for p in model.parameters())
