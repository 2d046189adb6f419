"""Perplexity by the convention of GPTQ: windows of equal length, no overlap, tail dropped."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from asvd.blocks import Batch, call, input_ids, token_mask


def windows(ids: Int[Tensor, " tokens"], length: int = 2048) -> list[Int[Tensor, "1 length"]]:
    """⌊tokens / length⌋ windows of the text, each a batch of one.

    Raises ValueError for a text shorter than one window.
    """
    if length < 2:
        raise ValueError(f"length must be >= 2, got {length}")
    if ids.ndim != 1 or len(ids) < length:
        raise ValueError(f"ids must be (tokens,) with at least {length}, got {tuple(ids.shape)}")
    count = len(ids) // length
    return [row[None] for row in ids[: count * length].view(count, length)]


@torch.no_grad()
def perplexity(
    model: nn.Module,
    batches: Sequence[Batch],
    progress: Callable[[float, str], None] = lambda _fraction, _what: None,
) -> float:
    """exp of the mean over sequences of the mean cross entropy of tokens 2, 3, …

    For windows of equal length it is GPTQ's figure. The model is evaluated in the mode that it
    is in, its logits in float32. Infinite where the loss overflows; NaN is passed on.
    """
    outputs = (call(model, batch).logits for batch in batches)
    return perplexity_of(outputs, batches, progress)


@torch.no_grad()
def perplexity_of(
    outputs: Iterable[Tensor],
    batches: Sequence[Batch],
    progress: Callable[[float, str], None] = lambda _fraction, _what: None,
) -> float:
    """`perplexity` of logits (batch, T, vocabulary), which are asked for one batch at a time."""
    total, sequences = 0.0, 0
    for j, (batch, whole) in enumerate(zip(batches, outputs, strict=True)):
        ids, mask = input_ids(batch), token_mask(batch)
        logits = whole[:, :-1].float()
        losses = nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none").double()
        weight = torch.ones_like(losses) if mask is None else mask[:, 1:].double()
        total += float(((losses * weight).sum(1) / weight.sum(1)).sum())
        sequences += len(ids)
        progress((j + 1) / len(batches), f"window {j + 1} of {len(batches)}")
    if not sequences:
        raise ValueError("batches must hold at least one sequence, got none")
    mean = total / sequences
    return math.exp(mean) if mean < 700 else math.inf if mean == mean else math.nan
