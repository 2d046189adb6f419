"""The code blocks of a README, so that what it shows can be run."""

import re

_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of `text` in one of `languages`, in order."""
    return [match["code"] for match in _FENCE.finditer(text) if match["language"] in languages]


def first_example(text: str) -> str | None:
    """The first Python block of `text`; None where there is none yet."""
    return next(iter(blocks(text, "python", "py")), None)


def commands(text: str) -> list[str]:
    """The lines of the shell blocks of `text`, without prompts, comments and empty lines."""
    lines = [line.strip() for block in blocks(text, "sh", "bash") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line and not line.startswith("#")]
