"""The commands of each group in one application."""

import typer

from chemflow.cli import data, draw, evaluate, tasks, train

app = typer.Typer(
    help="Walks through the latent space of molecule generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Each has `commands`, whose commands are those of `chemflow` itself.
for _group in (data, train, tasks, evaluate, draw):
    app.add_typer(_group.commands)
