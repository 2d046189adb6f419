"""Tables for people, in a terminal and in the log of a workflow."""

import sys

from rich.console import Console
from rich.table import Table

_LOG_WIDTH = 140
"""Columns where the output is no terminal, which has a width of its own."""


def show(table: Table) -> None:
    """Print `table` to the standard output."""
    Console(width=None if sys.stdout.isatty() else _LOG_WIDTH).print(table)
