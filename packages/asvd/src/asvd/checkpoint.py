"""Reading models: compressed ones, the official program's, and GGUF."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from asvd import hf
from asvd.files import load_tensors, no_more_than
from asvd.layers import install

OFFICIAL = {"ASVDLlamaForCausalLM": "llama", "ASVDOPTForCausalLM": "opt"}
"""Architectures of official checkpoints and the model type that they extend."""


class CheckpointError(ValueError):
    """A folder or file that is not the checkpoint it was taken for."""


def load(path: Path | str, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, Any]:
    """(model, tokenizer) of a folder or of a `.gguf` file; the tokenizer is None if there is none.

    A folder may hold a dense model, one that `asvd.compress` made, or one of the official program
    (ASVD4LLM). No code of the checkpoint is run. Raises CheckpointError for anything else.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".gguf":
        return load_gguf(path, dtype)
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} must be a folder with a config.json, or a .gguf file")
    if "truncation_ranks" in _json(path / "config.json"):
        return load_official(path, dtype)
    try:
        with no_more_than(file for file in path.iterdir() if file.is_file()):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a model that transformers reads: {error}") from error
    return model.eval(), _tokenizer(path)


def load_official(
    path: Path | str, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, Any]:
    """A checkpoint of the official program, without the code that it carries.

    Its `config.json` has `truncation_ranks` by layer; its weights are named `NAME.ALinear.weight`,
    `NAME.ALinear.bias` and `NAME.BLinear.weight`. Weights are read from safetensors, or from
    `pytorch_model*.bin` with `weights_only`. The model can be saved again in this package's format.
    """
    path = Path(path)
    settings = _json(path / "config.json")
    ranks = settings.pop("truncation_ranks", None)
    if not isinstance(ranks, Mapping) or not all(
        isinstance(rank, int) and rank >= 0 for rank in ranks.values()
    ):
        raise CheckpointError(f"{path}: config.json must have truncation_ranks, a rank by layer")
    architecture = (settings.get("architectures") or [""])[0]
    if architecture not in OFFICIAL:
        raise CheckpointError(
            f"{path}: architectures must be one of {', '.join(OFFICIAL)}, got {architecture!r}"
        )
    settings.pop("auto_map", None)
    settings.pop("architectures", None)
    settings["model_type"] = OFFICIAL[architecture]
    kind = settings.pop("model_type")
    stored = settings.pop("dtype", None) or settings.pop("torch_dtype", None)
    chosen = dtype or getattr(torch, str(stored or "float32").removeprefix("torch."))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **settings), dtype=chosen
        )
        try:
            install(model, ranks)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
    weights = {name: value.to(chosen) for name, value in _weights(path).items()}
    model.to_empty(device="cpu")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    lacking = [name for name in missing if name not in tied and not name.endswith("inv_freq")]
    if lacking or unexpected:
        raise CheckpointError(
            f"{path}: the weights do not fit the ranks; missing {lacking[:3]}, "
            f"unexpected {list(unexpected)[:3]}"
        )
    _rebuild_buffers(model)
    hf.annotate(model)
    return model.eval(), _tokenizer(path)


def load_gguf(path: Path | str, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, Any]:
    """A GGUF file as an ordinary model, its rounded weights as they are.

    What transformers makes of it refuses to be saved because its configuration still calls it
    quantised; the weights are therefore moved into a model without that entry.
    """
    path = Path(path)
    try:
        with no_more_than([path]):
            rounded = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=dtype, local_files_only=True
            )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The parser checks next to nothing, and what it stumbles on raises nearly anything.
    except Exception as error:
        raise CheckpointError(f"{path} is not a GGUF model that can be read: {error}") from error
    settings = rounded.config.to_dict()
    settings.pop("quantization_config", None)
    kind = settings.pop("model_type")
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **settings), dtype=rounded.dtype
    )
    model.load_state_dict(rounded.state_dict())
    model.tie_weights()
    return model.eval(), tokenizer


def _rebuild_buffers(model: PreTrainedModel) -> None:
    """Buffers that are computed and not stored (rotary frequencies), which `meta` left empty."""
    fresh = {
        name: module
        for name, module in type(model)(model.config).named_modules()
        if module._non_persistent_buffers_set
    }
    for name, module in fresh.items():
        own = model.get_submodule(name)
        for buffer in module._non_persistent_buffers_set:
            own.register_buffer(buffer, getattr(module, buffer), persistent=False)


def _weights(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a whole safetensors file: {error}") from error
    if found:
        return found
    for file in sorted(path.glob("pytorch_model*.bin")):
        try:
            found |= load_tensors(file)
        except Exception as error:
            raise CheckpointError(f"{file} holds more than tensors, or is cut: {error}") from error
    if not found:
        raise CheckpointError(f"{path} must hold safetensors or pytorch_model*.bin")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold an object")
    return data


def _tokenizer(path: Path) -> Any:
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    return AutoTokenizer.from_pretrained(path, local_files_only=True)
