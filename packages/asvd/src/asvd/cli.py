"""The command `asvd`: a thin shell over load, compress, perplexity and report."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
except ModuleNotFoundError:  # pragma: no cover - told to the user in words
    sys.exit("The command asvd needs its extra: pip install 'asvd[hf]'")

from asvd.allocate import check_share
from asvd.job import AllocationName
from asvd.pipeline import ProbeMethod
from asvd.spectra import Method

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(
    help="Compresses language models by low-rank factors that know the activations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[Path, typer.Argument(help="Folder of a model, or a .gguf file.")]
Text = Annotated[
    Path | None,
    typer.Option(help="Text file; without one, English that ships with Python."),
]
Length = Annotated[int, typer.Option(min=2, help="Tokens in a sequence.")]
Samples = Annotated[int, typer.Option(min=1, help="Calibration sequences.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]
Patterns = Annotated[list[str] | None, typer.Option(help="Pattern of layer names; repeatable.")]


def main() -> None:
    """Entry point of the console script: errors of the user's are one sentence, status 2."""
    from asvd.checkpoint import CheckpointError

    # Everything is read from folders; only the tasks of lm-eval are fetched by their names.
    if "--lm-eval" not in sys.argv:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        app()
    except (CheckpointError, ValueError, OSError) as error:
        typer.echo(f"asvd: {error}", err=True)
        raise SystemExit(2) from error


@app.command()
def compress(
    model: Model,
    out: Annotated[Path, typer.Argument(help="Folder for the compressed model.")],
    ratio: Annotated[float | None, typer.Option(help="Kept share of the weights.")] = None,
    perplexity: Annotated[
        float | None, typer.Option(help="In place of a ratio: largest calibration perplexity.")
    ] = None,
    kv_ratio: Annotated[
        float | None, typer.Option(help="In place of a ratio: kept share of the KV cache.")
    ] = None,
    method: Annotated[Method, typer.Option(help="What a truncation is best for.")] = "sequential",
    allocation: Annotated[
        AllocationName, typer.Option(help="How many parameters each layer gets.")
    ] = "auto",
    alpha: Annotated[float, typer.Option(help="Exponent of asvd.")] = 0.5,
    align: Annotated[int, typer.Option(min=1, help="Ranks are multiples of it.")] = 1,
    bits: Annotated[
        int | None, typer.Option(min=2, max=8, help="Round the factors to so many bits.")
    ] = None,
    text: Text = None,
    samples: Samples = 32,
    length: Length = 2048,
    layers: Patterns = None,
    skip: Patterns = None,
    threads: Threads = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do and how long, and stop.")
    ] = False,
) -> None:
    """Compresses MODEL into OUT, a folder that transformers loads after `import asvd`.

    Work in progress is kept in OUT/.asvd-run and removed at the end; the same command goes on
    from it after an interruption.
    """
    import torch

    import asvd
    from asvd import draw
    from asvd.publish import Place, state_of

    torch.set_num_threads(threads)
    console = _console()
    how: dict[str, Any] = {
        "ratio": ratio, "perplexity_budget": perplexity, "kv_ratio": kv_ratio, "method": method,
        "allocation": allocation, "alpha": alpha, "align": align, "layers": layers,
        "skip": skip or (),
    }  # fmt: skip
    files = [state_of(path) for path in (model, text) if path is not None and path.exists()]
    place = Place(out, {**how, "bits": bits, "samples": samples, "length": length, "files": files})
    place.check()
    if place.ready and not dry_run:
        place.publish()
        _told(out, console)
        return
    words = _read(text)
    network: Any
    network, tokenizer = asvd.load(model)
    ids = _tokens(words, tokenizer)
    calibration = torch.cat(asvd.windows(ids, min(length, len(ids))))[:samples]
    chosen = asvd.linear_layers(network, layers, skip or ())
    weights = sum(p.numel() for layer in chosen.values() for p in layer.parameters() if p.ndim == 2)
    whole = sum(p.numel() for p in network.parameters())
    console.print(
        f"{len(chosen)} layers, {weights:,} of {whole:,} parameters; "
        f"{len(calibration)} sequences of {calibration.shape[1]} tokens"
    )
    if dry_run:
        _estimate(network, chosen, calibration, ratio, method, allocation, console)
        return
    with _progress(console) as tell:
        asvd.compress(network, calibration, run_folder=place.work, progress=tell, **how)
    if bits is not None:
        asvd.quantize_factors(network, bits)
    figures = {
        "calibration perplexity": asvd.perplexity(network, [row[None] for row in calibration])
    }
    with place.staging() as folder:
        network.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        draw.write(folder, asvd.report(network), figures)
    place.publish()
    _told(out, console)


@app.command("eval")
def evaluate(
    model: Model,
    text: Text = None,
    length: Length = 2048,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many windows.")] = None,
    threads: Threads = 1,
    lm_eval: Annotated[
        list[str] | None, typer.Option(help="A task of lm-eval, in place of a text; repeatable.")
    ] = None,
) -> None:
    """Perplexity of MODEL on a text, in windows without overlap (the convention of GPTQ)."""
    import torch

    import asvd

    torch.set_num_threads(threads)
    words = "" if lm_eval else _read(text)
    network, tokenizer = asvd.load(model)
    console = _console()
    if lm_eval:
        _tasks(network, tokenizer, lm_eval, console)
        return
    found = asvd.windows(_tokens(words, tokenizer), length)[:limit]
    with _progress(console) as tell:
        value = asvd.perplexity(network, found, tell)
    console.print(f"perplexity {value:.4f} on {len(found)} windows of {length} tokens")


@app.command()
def search(
    model: Model,
    ratio: Annotated[list[float], typer.Option(help="Kept share of the weights; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the probes, kept and gone on from.")],
    method: Annotated[ProbeMethod, typer.Option(help="Of the probed layers.")] = "asvd",
    text: Text = None,
    samples: Samples = 32,
    length: Length = 2048,
    isotonic: Annotated[bool, typer.Option("--isotonic", help="Monotone sensitivities.")] = False,
    threads: Threads = 1,
) -> None:
    """The paper's rank search: the ranks of each layer at the ratios, from measured perplexities.

    Every probe is kept in OUT; the same command with other ratios measures none again. OUT gets
    asvd_search.html with the sensitivities and the calibration perplexity at each ratio.
    """
    import torch
    from rich.table import Table

    import asvd
    from asvd import draw

    for share in ratio:
        check_share(share, "ratio")
    torch.set_num_threads(threads)
    words = _read(text)
    network: Any
    network, tokenizer = asvd.load(model)
    ids = _tokens(words, tokenizer)
    calibration = torch.cat(asvd.windows(ids, min(length, len(ids))))[:samples]
    console = _console()
    batches = [row[None] for row in calibration]
    with _progress(console) as tell:
        ranked = asvd.probe(
            network, calibration, method, isotonic=isotonic, run_folder=out, progress=tell
        )
        points = asvd.sweep(
            network, calibration, ratio, lambda model: asvd.perplexity(model, batches), method,
            allocation="strs", isotonic=isotonic, run_folder=out, progress=tell,
        )  # fmt: skip
        dense = asvd.perplexity(network, batches)
    plans = {r: ranked.allocation(ranked.for_ratio(r)) for r in ratio}
    table = Table("layer", "shape", *(f"{r:g}" for r in ratio), box=None)
    for name, shape in ranked.shapes.items():
        ranks = (plans[r].ranks[name] for r in ratio)
        table.add_row(
            name, f"{shape[0]}x{shape[1]}", *("–" if k is None else str(k) for k in ranks)
        )
    table.add_row("realised", "", *(f"{plans[r].ratio:.4f}" for r in ratio))
    table.add_row("perplexity", f"{dense:.4g}", *(f"{point.value:.4g}" for point in points))
    console.print(table)
    curve = [(1.0, dense), *((point.report.ratio, point.value) for point in points)]
    page = draw.write_search(out, ranked, {method: curve})
    console.print(f"report: {page}", soft_wrap=True)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A folder that `compress` wrote.")]) -> None:
    """Prints what each layer of a compressed model got."""
    from rich.table import Table

    from asvd import draw

    data = draw.read(folder)
    table = Table("layer", "shape", "rank", "kept", box=None)
    for layer in data["report"]["layers"]:
        m, n = layer["shape"]
        rank = "dense" if layer["rank"] is None else str(layer["rank"])
        table.add_row(layer["name"], f"{m}x{n}", rank, f"{layer['ratio']:.3f}")
    console = _console()
    console.print(table)
    whole = data["report"]
    console.print(
        f"kept {whole['ratio']:.4f} of the layers, {whole['model_ratio']:.4f} of the model"
    )
    for name, value in data["figures"].items():
        console.print(f"{name} {value:.4f}")


def _told(out: Path, console: Any) -> None:
    from asvd import draw

    found = draw.read(out)["report"]
    console.print(
        f"kept {found['ratio']:.4f} of the layers, {found['model_ratio']:.4f} of the model; "
        f"report: {out / 'asvd_report.html'}",
        soft_wrap=True,
    )


def _read(path: Path | None) -> str:
    """The text; read before the model, which takes longer to say that there is none."""
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    return path.read_text(encoding="utf-8")


def _tokens(text: str, tokenizer: Any) -> "Tensor":
    if tokenizer is None:
        raise ValueError("MODEL must come with a tokenizer (tokenizer.json)")
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids[0]
    if len(ids) < 2:
        raise ValueError(f"--text must hold at least 2 tokens, it has {len(ids)}")
    return ids


def _estimate(
    network: Any, chosen: Any, calibration: "Tensor", ratio: float | None, method: Method,
    allocation: str, console: Any,
) -> None:  # fmt: skip
    from asvd.estimate import estimate

    found = estimate(network, chosen, calibration, ratio or 1.0, method, allocation)
    if ratio is not None:
        console.print(
            f"at ratio {ratio}: at most {found.parameters:,} parameters, "
            f"{found.bytes / 2**20:.0f} MiB"
        )
    console.print(f"{method} takes about {found.seconds:.0f} s on this machine as it is now")


def _tasks(network: Any, tokenizer: Any, tasks: list[str], console: Any) -> None:
    try:
        harness: Any = import_module("lm_eval")
        backend: Any = import_module("lm_eval.models.huggingface")
    except ModuleNotFoundError as error:
        raise ValueError("--lm-eval needs its extra: pip install 'asvd[lm-eval]'") from error
    found = harness.simple_evaluate(
        backend.HFLM(pretrained=network, tokenizer=tokenizer), tasks=tasks
    )
    for task, values in (found or {}).get("results", {}).items():
        for name, value in values.items():
            if isinstance(value, float):
                console.print(f"{task} {name} {value:.4f}")


@contextmanager
def _progress(console: Any) -> Generator[Callable[[float, str], None]]:
    """A bar for each stage of a long call."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    ) as bars:  # fmt: skip
        tasks: dict[str, Any] = {}

        def tell(fraction: float, what: str) -> None:
            name = "windows" if what.startswith("window ") else what
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=fraction)

        yield tell


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


if __name__ == "__main__":
    main()
