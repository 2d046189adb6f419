"""The command `chemflow`."""

from chemflow.cli.entry import main

__all__ = ["main"]
