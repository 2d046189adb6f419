"""The commands of each group in one application."""

from importlib import import_module
from importlib.util import find_spec

import typer

app = typer.Typer(
    help="Walks through the latent space of molecule generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Walks through the latent space of molecule generators."""


# Each file of a group has `commands`, a Typer whose commands are those of `chemflow` itself.
for _group in ("train",):
    if find_spec(f"chemflow.cli.{_group}") is not None:
        app.add_typer(import_module(f"chemflow.cli.{_group}").commands)
