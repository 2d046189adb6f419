"""The command on a small model in a folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asvd
import pytest
import torch
from asvd.cli import app, main
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

TEXT = "the a model of words reads and writes lines that say little or much"
WORDS = ["<unk>", *TEXT.split(" ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, its tokenizer and a text."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        )
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "model")
    level = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=level).save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(1)
    picks = torch.randint(1, len(WORDS), (600,), generator=generator).tolist()
    (tmp_path / "text.txt").write_text(" ".join(WORDS[i] for i in picks))
    return tmp_path


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def options(folder: Path) -> list[object]:
    return ["--text", folder / "text.txt", "--samples", 6, "--length", 32]


def test_compress_then_evaluate_and_report(folder: Path) -> None:
    out = folder / "small"
    printed = run("compress", folder / "model", out, "--ratio", 0.6, *options(folder))
    assert "kept 0.59" in printed or "kept 0.6" in printed
    assert not (out / ".asvd-run").exists()
    assert (out / "asvd_report.html").is_file()
    assert (out / "asvd_allocation.png").read_bytes().startswith(b"\x89PNG")
    model, tokenizer = asvd.load(out)
    assert tokenizer is not None
    assert asvd.low_rank_layers(model)
    stored = json.loads((out / "asvd_report.json").read_text())
    assert stored["report"]["ratio"] <= 0.6
    printed = run("eval", out, "--text", folder / "text.txt", "--length", 32)
    assert "on 18 windows of 32 tokens" in printed
    assert "model.layers.0.mlp.up_proj" in run("report", out)


def test_dry_run_writes_nothing(folder: Path) -> None:
    out = folder / "small"
    printed = run("compress", folder / "model", out, "--ratio", 0.5, "--dry-run", *options(folder))
    assert "28 layers" in printed
    assert "at ratio 0.5: at most" in printed
    assert "sequential takes about" in printed
    assert not out.exists()


def test_search_prints_ranks_and_keeps_its_probes(folder: Path) -> None:
    out = folder / "probes"
    printed = run(
        "search", folder / "model", "--ratio", 0.7, "--ratio", 0.9, "--out", out, *options(folder)
    )
    assert "realised" in printed
    (log,) = out.rglob("probes.jsonl")
    before = log.read_text()
    assert len(before.splitlines()) == 28 * 6
    for name in ("asvd_sensitivity.png", "asvd_curve.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "Perplexity by kept share" in (out / "asvd_search.html").read_text()
    run("search", folder / "model", "--ratio", 0.8, "--out", out, *options(folder))
    assert log.read_text() == before


def test_tasks_of_the_harness(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model object goes to lm-eval, which is not installed here; without it, say so."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ValueError, match=r"pip install 'asvd\[lm-eval\]'"):
        run("eval", folder / "model", "--lm-eval", "piqa")
    asked = {}

    def simple_evaluate(model: Any, tasks: list[str]) -> dict:
        asked["model"], asked["tasks"] = model, tasks
        return {"results": {"piqa": {"acc,none": 0.625, "alias": "piqa"}}}

    harness = SimpleNamespace(simple_evaluate=simple_evaluate)
    monkeypatch.setitem(sys.modules, "lm_eval", harness)
    backend = SimpleNamespace(HFLM=lambda **given: given)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", backend)
    assert "piqa acc,none 0.6250" in run("eval", folder / "model", "--lm-eval", "piqa")
    assert isinstance(asked["model"]["pretrained"], LlamaForCausalLM)
    assert asked["model"]["tokenizer"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "nowhere"], "must be a folder with a config.json"),
        (["compress", "model", "model", "--ratio", "0.5"], "OUT must be an empty folder"),
        (["compress", "model", "new", "--ratio", "1.5", "--text", "text.txt"], "ratio must lie"),
        (
            ["compress", "model", "new", "--ratio", "0.5", "--text", "empty.txt"],
            "--text must hold at least 2 tokens",
        ),
        (["eval", "model", "--text", "nowhere.txt"], "No such file or directory: 'nowhere.txt'"),
        (
            ["search", "model", "--ratio", "nan", "--out", "new"],
            "ratio must lie in (0, 1], got nan",
        ),
        (["report", "model"], "is not a report of asvd"),
    ],
)
def test_errors_are_one_sentence(
    folder: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty.txt").touch()
    monkeypatch.setattr(sys, "argv", ["asvd", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("asvd: ")
    assert message in last
    # Said before any work.
    assert not (folder / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.2, 0.5, 1.0, 1.5])
def test_kill_and_go_on(folder: Path, delay: float) -> None:
    """Killed without warning at some moment, the same command ends with the same model."""
    expected = folder / "expected"
    command = [sys.executable, "-m", "asvd.cli", "compress", str(folder / "model")]
    rest = ["--ratio", "0.6", *(str(o) for o in options(folder))]
    subprocess.run([*command, str(expected), *rest], check=True, capture_output=True)
    out = folder / "killed"
    process = subprocess.Popen([*command, str(out), *rest], stdout=subprocess.DEVNULL)
    while not (out / ".asvd-run").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(out), *rest], check=True, capture_output=True)
    for file in expected.glob("*.safetensors"):
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert not list(out.rglob("*.partial"))
