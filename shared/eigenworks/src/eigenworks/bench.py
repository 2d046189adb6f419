"""Benchmarks: scripts beside a package's source, each run in a process of its own.

A script `benchmarks/NAME.py` answers one question. It is called as `NAME.py --out PATH`, with
--quick where few sizes and calls will do, prints a table for a person and writes to PATH

    {"question": "How fast is logm with its gradient beside torch?",
     "rows": [{"label": "float32, n=20, batch 1000", "metric": "speed over torch",
               "value": 3.1, "low": 2.9, "high": 3.3, "unit": "x", "better": "higher"}]}

where (`label`, `metric`) identifies a row, a `value` of null says that what was measured is
no finite number (a rival that returns NaN), and `low`, `high` (its interval), `unit` and
`better` ("higher" or "lower") may be left out. Other fields of a row are kept as they are.
Where it cannot measure anything (no GPU), it writes {"question": …, "skipped": "why"}.
`timing.py` has what scripts share.
"""

import ast
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

from rich.console import Console
from rich.markup import escape

from eigenworks.bench_tables import benches_table, lines, tables
from eigenworks.formatting import duration
from eigenworks.machine import THREAD_VARIABLES, describe, members
from eigenworks.pages import fill
from eigenworks.report import BENCH, INDEX
from eigenworks.store import write_atomically

FORMAT = "eigenworks bench 1"
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that force OpenBLAS onto kernels for another CPU and would flatter its rivals."""


class BenchError(Exception):
    """A script that failed, or wrote something else than the format above."""


@dataclass(frozen=True)
class Script:
    """A benchmark script; its name is package/stem."""

    package: str
    path: Path

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"{self.package}/{self.path.stem}"

    @property
    def about(self) -> str:
        """What its docstring says after the first line."""
        text = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or ""
        return text.partition("\n")[2].strip()


@dataclass(frozen=True)
class Bench:
    """What came of one script; `error` is also why it was skipped."""

    name: str
    package: str
    status: Literal["done", "failed", "skipped"]
    seconds: float
    question: str
    rows: tuple[Mapping[str, Any], ...]
    error: str
    about: str = ""


def scripts() -> tuple[list[Script], dict[str, str]]:
    """The scripts of members that are installed from a checkout, and why others have none."""
    found, without = [], {}
    for name, member in members().items():
        source = source_folder(member.read_text("direct_url.json"))
        if source is None:
            without[name] = "installed without its source; benchmarks are in a checkout only"
            continue
        here = sorted((source / "benchmarks").glob("*.py"))
        if not here:
            without[name] = "has no benchmarks"
        found.extend(Script(name, path) for path in here)
    return found, without


def source_folder(direct_url: str | None) -> Path | None:
    """The folder of an editable install, from its direct_url.json; None for any other."""
    if direct_url is None:
        return None
    data = json.loads(direct_url)
    url = urlparse(data.get("url", ""))
    if not data.get("dir_info", {}).get("editable") or url.scheme != "file":
        return None
    return Path(url2pathname(url.path))


def run_benches(
    selected: Sequence[Script], out: Path, *, threads: int, quick: bool, console: Console
) -> int:
    """Runs the scripts one after another; bench.json and bench.html in OUT; the exit status.

    Both are written after each script, so that a run that is killed keeps what had ended.
    """
    done: list[Bench] = []
    status = 0
    machine = describe(threads)
    try:
        for number, script in enumerate(selected, 1):
            console.rule(f"{escape(script.name)} ({number} of {len(selected)})", align="left")
            bench = run_script(script, threads=threads, quick=quick)
            done.append(bench)
            write_bench(done, out, machine=machine, quick=quick)
            took = f"[dim]{duration(bench.seconds)}[/dim]"
            if bench.status == "failed":
                status = 1
                console.print(f"[red]✕ failed[/red] {escape(bench.error)}", soft_wrap=True)
            elif bench.status == "done":
                console.print(f"[green]✓[/green] {took}")
    except KeyboardInterrupt:
        status = 130
        console.print("[yellow]interrupted; what had ended is kept[/yellow]")
    page = write_bench(done, out, machine=machine, quick=quick)
    console.print(benches_table(done))
    if quick:
        console.print("[dim]quick: not a claim[/dim]")
    console.print(f"report: {escape(str(page))}", soft_wrap=True)
    return status


def write_bench(
    benches: Sequence[Bench], out: Path, *, machine: Mapping[str, Any], quick: bool
) -> Path:
    """Writes bench.json and the page, and returns the path of the page."""
    finished = datetime.now(UTC)
    data = {
        "format": FORMAT,
        "finished": finished.isoformat(timespec="seconds"),
        "quick": quick,
        "machines": [machine],
        "benches": [asdict(bench) for bench in benches],
    }
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "bench.json", text + "\n")
    page = fill(
        "bench.html.j2",
        finished=finished,
        filters={"lines": lines, "tables": tables},
        benches=benches,
        quick=quick,
        index=(out / INDEX).exists(),
        machines=[machine],
    )
    write_atomically(out / BENCH, page)
    return out / BENCH


def run_script(script: Script, *, threads: int, quick: bool = False) -> Bench:
    """Runs one script in a process of its own; failures come back in the result.

    Its table goes straight to the terminal. What it writes to standard error is kept for
    the error message.
    """
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    start = time.perf_counter()
    question, rows, error, skipped = "", (), "", ""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "bench.json")
        ended = subprocess.run(
            [sys.executable, str(script.path), "--out", str(path), *(["--quick"] * quick)],
            cwd=script.path.parent,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        try:
            if ended.returncode:
                lines = ended.stderr.strip().splitlines() or ["it said nothing"]
                raise BenchError(f"exit status {ended.returncode}: {lines[-1]}")
            question, rows, skipped = read_script_output(path)
        except BenchError as caught:
            error = str(caught)
    return Bench(
        name=script.name,
        package=script.package,
        status="failed" if error else "skipped" if skipped else "done",
        seconds=round(time.perf_counter() - start, 3),
        question=question,
        rows=rows,
        error=error or skipped,
        about=script.about,
    )


def read_script_output(path: Path) -> tuple[str, tuple[Mapping[str, Any], ...], str]:
    """Question, rows, and why there are none. Raises BenchError for another format."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError("it wrote nothing to the path after --out") from None
    except ValueError as error:
        raise BenchError(f"what it wrote is not JSON: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("skipped"), str) and data["skipped"]:
        return str(data.get("question", "")), (), data["skipped"]
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list) or not data["rows"]:
        raise BenchError("what it wrote has no list of rows under 'rows'")
    seen = set()
    for number, row in enumerate(data["rows"]):
        _check_row(number, row)
        key = (row["label"], row["metric"])
        if key in seen:
            raise BenchError(f"row {number} repeats {key}")
        seen.add(key)
    return str(data.get("question", "")), tuple(data["rows"]), ""


def _check_row(number: int, row: object) -> None:
    if not isinstance(row, dict):
        raise BenchError(f"row {number} must be an object, got {type(row).__name__}")
    for field in ("label", "metric"):
        if not isinstance(row.get(field), str):
            raise BenchError(f"row {number} must have a text under {field!r}")
    for field in ("value", "low", "high"):
        if field == "value" and field not in row:
            raise BenchError(f"row {number} must have a number or null under 'value'")
        value = row.get(field)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise BenchError(
                f"row {number} must have a finite number under {field!r}, got {value!r}"
            )
    if ("low" in row) != ("high" in row) or row.get("low", 0) > row.get("high", 0):
        raise BenchError(f"row {number} must have low <= high, both or neither")
    if row.get("better") not in (None, "higher", "lower"):
        raise BenchError(f"row {number} must have 'higher' or 'lower' under 'better'")
