"""What is written is read back; what is not a checkpoint is refused in words."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asvd
import pytest
import torch
from asvd.checkpoint import CheckpointError
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

CONFIGURATION: Any = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}


def compressed() -> Any:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**CONFIGURATION)).eval()
    return asvd.compress(model, ratio=0.7, method="svd")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def official(folder: Path, binary: bool) -> Any:
    """A folder as the official program writes it."""
    model = compressed()
    ranks = {name: layer.rank for name, layer in asvd.low_rank_layers(model).items()}
    settings = {
        **model.config.to_dict(),
        "architectures": ["ASVDLlamaForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_asvd_llama.ASVDLlamaForCausalLM"},
        "truncation_ranks": ranks,
        "torch_dtype": "float32",
    }
    settings = {k: v for k, v in settings.items() if k not in ("quantization_config", "dtype")}
    (folder / "config.json").write_text(json.dumps(settings, default=str))
    (folder / "modeling_asvd_llama.py").write_text("raise SystemExit('code was run')")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if binary:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        from safetensors.torch import save_file

        save_file(state, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("binary", [False, True])
def test_official_checkpoints(tmp_path: Path, binary: bool) -> None:
    model = official(tmp_path, binary)
    loaded, tokenizer = asvd.load(tmp_path)
    assert tokenizer is None
    assert torch.equal(logits(loaded), logits(model))
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert torch.equal(logits(asvd.load(again)[0]), logits(model))


@pytest.mark.bad_input
def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "harmed"),))

    official(tmp_path, binary=True)
    torch.save({"x": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        asvd.load(tmp_path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.bad_input
def test_ranks_that_do_not_fit_the_weights(tmp_path: Path) -> None:
    official(tmp_path, binary=False)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["truncation_ranks"]["model.layers.0.mlp.up_proj"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="do not fit the ranks; missing"):
        asvd.load(tmp_path)
    settings["truncation_ranks"]["model.layers.7.mlp.up_proj"] = 3
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"no linear layer 'model\.layers\.7"):
        asvd.load(tmp_path)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", "[]", "must hold an object"),
        ("x.gguf", "GGUFxx", "not a GGUF model"),
        ("other", "", r"folder with a config\.json"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        asvd.load(tmp_path / name if name.endswith(".gguf") else tmp_path)


@pytest.mark.bad_input
def test_a_rank_that_is_no_number_is_refused(tmp_path: Path) -> None:
    compressed().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    first = next(iter(settings["quantization_config"]["ranks"]))
    settings["quantization_config"]["ranks"][first] = "many"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="must be an integer >= 0, got 'many'"):
        asvd.load(tmp_path)


@pytest.mark.slow
def test_without_the_import_transformers_says_what_is_missing(tmp_path: Path) -> None:
    """A process that loads a compressed model has to import asvd."""
    compressed().save_pretrained(tmp_path)
    command = (
        "from transformers import AutoModelForCausalLM\n"
        f"AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})"
    )
    failed = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert failed.returncode != 0
    assert "import_asvd_before_from_pretrained" in failed.stderr
    subprocess.run([sys.executable, "-c", "import asvd\n" + command], check=True)


def test_quantised_factors_are_near_and_keep_their_place() -> None:
    model = compressed()
    before = logits(model)
    asvd.quantize_factors(model, 8)
    near = (logits(model) - before).norm() / before.norm()
    assert 0 < near < 0.05
    asvd.quantize_factors(model, 2)
    assert (logits(model) - before).norm() / before.norm() > near
