"""Runs the tutorials of the documentation and keeps the outputs that they show.

A tutorial is a Markdown page. Its Python blocks run in order in one namespace; a block in `text`
that follows a Python block is what that block prints.

    python scripts/tutorial.py                       # check every page
    python scripts/tutorial.py docs/tutorials/x.md --write
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from workspace import ROOT

FOLDER = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Step:
    """One Python block: its code, the line it starts in, what the page shows and what it prints."""

    code: str
    line: int
    shown: str
    printed: str


def run(page: Path) -> list[Step]:
    """Runs the blocks of `page`, in a folder that goes with what they write.

    An error in one names its line in the page.
    """
    text = page.read_text("utf-8")
    # Classes of a block look their module up to resolve annotations.
    namespace: dict[str, object] = {"__name__": "__main__"}
    steps = []
    # On Windows a file that is still mapped stays.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        contextlib.chdir(folder),
    ):
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start("code")) + 1
            # Empty lines in front, so that a traceback has the page's line numbers.
            code = compile("\n" * (line - 1) + block["code"], str(page), "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            steps.append(Step(block["code"], line, block["shown"] or "", printed.getvalue()))
    return steps


def agree(shown: str, printed: str, tolerance: float = 0.1) -> bool:
    """Whether two outputs have the same words, and numbers within `tolerance`.

    Another processor rounds differently, and training carries that on: numbers may differ by
    `tolerance`, relatively or in units of one where they are smaller.
    """
    words = [_NUMBER.sub("#", text).split() for text in (shown, printed)]
    if words[0] != words[1]:
        return False
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (shown, printed)]
    return all(abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(*numbers, strict=True))


def rewrite(page: Path, steps: list[Step]) -> None:
    """Puts what the blocks print behind them."""
    printed = iter(steps)

    def with_output(_block: re.Match[str]) -> str:
        step = next(printed)
        code = f"```python\n{step.code}```\n"
        return f"{code}\n```text\n{step.printed}```\n" if step.printed else code

    page.write_text(_BLOCK.sub(with_output, page.read_text("utf-8")), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, default=sorted(FOLDER.glob("*.md")))
    parser.add_argument("--write", action="store_true", help="put the outputs into the pages")
    arguments = parser.parse_args()
    wrong = 0
    for page in arguments.pages:
        steps = run(page)
        if arguments.write:
            rewrite(page, steps)
            continue
        for step in steps:
            if not agree(step.shown, step.printed):
                wrong += 1
                print(f"{page}:{step.line} shows\n{step.shown}and prints\n{step.printed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
