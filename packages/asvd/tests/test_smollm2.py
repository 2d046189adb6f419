"""The paper's claim on real weights: the first four blocks of SmolLM2, with outlier channels."""

from typing import Any

import asvd
import pytest
import torch
from asvd.experiments.smollm2 import (
    cut,
    divergence_from,
    english,
    experiment,
    first_blocks,
    log_probabilities,
)
from eigenworks import Trial
from eigenworks.data import SMOLLM2
from torch import Tensor

RATIOS = (0.6, 0.4)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    model, tokenizer = SMOLLM2.load()
    return first_blocks(model, 4), tokenizer


@torch.no_grad()
def scale_channels(model: Any) -> None:
    """Channels of very unequal size, the function as it was.

    Norms times c, columns of the layers that read them over c; rows of up_proj times c, columns
    of down_proj over c.
    """
    generator = torch.Generator().manual_seed(3)

    def factors(like: Tensor) -> Tensor:
        return (1.5 * torch.randn(len(like), generator=generator)).exp()

    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        for norm, readers in (
            (block.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            c = factors(norm.weight)
            norm.weight *= c
            for reader in readers:
                reader.weight /= c
        c = factors(mlp.up_proj.weight)
        mlp.up_proj.weight *= c[:, None]
        mlp.down_proj.weight /= c


@pytest.mark.timeout(900)
def test_order_of_the_methods(loaded: tuple[Any, Any]) -> None:
    """KL of the logits to the dense model on tokens that no method saw."""
    model, tokenizer = loaded
    text = english()
    calibration = cut(text, tokenizer, 5, 128)
    test = cut(text[len(text) // 2 :], tokenizer, 2, 128)
    dense = log_probabilities(model, test)
    scale_channels(model)
    measure = divergence_from(dense, test)
    assert measure(model) < 1e-4
    found: dict[str, list[float]] = {}
    for method in ("svd", "asvd", "whiten", "sequential"):
        points = asvd.sweep(model, calibration, RATIOS, measure, method)
        assert all(0.95 * p.ratio < p.report.ratio <= p.ratio for p in points)
        found[method] = [point.value for point in points]
    for svd, scaled, whitened, sequential in zip(*found.values(), strict=True):
        assert svd > scaled > whitened >= sequential, found
    # A sweep leaves the model as it was.
    assert measure(model) < 1e-4


@pytest.mark.slow
def test_the_quick_experiment() -> None:
    parameters: dict[str, Any] = dict(experiment.quick.parameters)
    rows = {(row.label, row.metric): row.value for row in experiment.run(Trial(0, parameters))}
    values = [rows[f"{name}, 0.8", "KL to the dense model"] for name in parameters["methods"]]
    assert values == sorted(values, reverse=True)
