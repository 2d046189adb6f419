"""Running other programs: echoed as they would be typed, loud when they fail."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What a developer's shell may carry and a user's empty environment does not. Settings of uv
# (cache, index, certificates) stay: they say how this machine reaches packages, not what it has.
_LEAKS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "CONDA_PREFIX")


class ToolError(Exception):
    """A tool of this folder cannot go on; the text tells a person what is wrong and where."""


class CommandError(ToolError):
    """A program ended with an error; the text has the command and what it printed."""


def empty_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of this process without those by which an environment leaks into another.

    pip reads neither its variables nor its configuration files, so that it sees no index but the
    one on its command line.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in _LEAKS and not key.startswith("PIP_")
    }
    return {**kept, "PIP_CONFIG_FILE": os.devnull, **(extra or {})}


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    echo: bool = True,
    accept: Sequence[int] = (0,),
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end, with its output captured.

    Raises:
        CommandError: the exit status is not among those in `accept`.
    """
    words = [str(word) for word in command]
    if echo:
        print(f"$ {shlex.join(words)}", flush=True)
    result = subprocess.run(
        words,
        cwd=cwd,
        env=dict(env) if env is not None else empty_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode not in accept:
        raise CommandError(
            f"{shlex.join(words)}\nended with status {result.returncode}\n"
            f"{result.stdout}{result.stderr}".rstrip()
        )
    return result


def fail(error: ToolError) -> int:
    """Print `error` for a person and give the exit status of a command that could not finish."""
    print(f"error: {error}", file=sys.stderr)
    return 1
