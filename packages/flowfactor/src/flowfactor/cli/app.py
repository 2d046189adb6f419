"""The commands of `flowfactor` in one application."""

import typer

from flowfactor.cli import evaluate, train, traverse

app = typer.Typer(
    help="Representations in which each kind of transformation is a flow of the latent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Each has `commands`, whose commands are those of `flowfactor` itself.
for _group in (train, evaluate, traverse):
    app.add_typer(_group.commands)
