"""What benchmark scripts share: their arguments, calls in turns, and the file they write.

A script measures ours and its rivals in one process by `in_turns`, so that whatever else the
machine does befalls all of them alike, and gives ratios of `medians`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eigenworks.statistics import Real


def arguments(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options that `eigenworks bench` passes: --out PATH and --quick."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument(
        "--quick", action="store_true", help="few sizes and few calls: shows that everything runs"
    )
    return parser


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    seconds: Real = 0.0,
    *,
    least: int = 5,
    warm: bool = False,
    floor: Real = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call of each, taken in turns: `least` rounds, or as many as `seconds` allow.

    Args:
        calls: What is to be timed, by name.
        seconds: About how long all of it may go on.
        least: Rounds that are made in any case.
        warm: Call each once more, untimed, right before it is timed, so that it finds caches and
            allocator as it leaves them itself.
        floor: Seconds that one measurement takes at least; shorter calls are repeated within it.
        clock: `time.process_time` counts this process alone.
    """
    repeats = dict.fromkeys(calls, 1)
    if floor:
        for name, call in calls.items():
            call()
            repeats[name] = max(1, int(floor / max(seconds_per_call(call, 1, clock), 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    rounds = 0
    while rounds < least or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            if warm:
                call()
            taken[name].append(seconds_per_call(call, repeats[name], clock))
        rounds += 1
    return taken


def seconds_per_call(
    call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Mean seconds of so many calls."""
    begin = clock()
    for _ in range(repeats):
        call()
    return (clock() - begin) / repeats


def ratios(taken: Mapping[str, Sequence[float]], peer: str, ours: str = "ours") -> list[float]:
    """The peer's seconds over ours, round by round."""
    return [theirs / mine for mine, theirs in zip(taken[ours], taken[peer], strict=True)]


def medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(times) for name, times in taken.items()}


def write_rows(path: Path | None, question: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """What `eigenworks bench` reads (see the head of `bench.py`); nothing without a path."""
    if path is not None:
        path.write_text(
            json.dumps({"question": question, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


def write_skipped(path: Path | None, question: str, reason: str) -> None:
    """That a script cannot measure here, and why; printed too."""
    print(f"skipped: {reason}")
    if path is not None:
        path.write_text(
            json.dumps({"question": question, "skipped": reason}) + "\n", encoding="utf-8"
        )
