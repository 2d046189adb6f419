"""The command `chemflow data`."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from chemflow.cli.common import bar, console, cores, source
from chemflow.molecules import encode
from chemflow.standardise import Standardiser
from chemflow.vocabulary import Vocabulary

commands = typer.Typer()


@commands.command()
def data(
    molecules: Annotated[
        str, typer.Argument(help="A file of SMILES (.smi, .csv, .tsv, .gz, .xz) or moses:train.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the encoded molecules.")],
    column: Annotated[str | None, typer.Option(help="Of a .csv or .tsv.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only so many.")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="vocabulary.json of a model; else all tokens that occur.")
    ] = None,
    min_tokens: Annotated[int, typer.Option(min=1)] = 1,
    max_tokens: Annotated[int, typer.Option(min=1)] = 72,
    fragments: Annotated[
        Literal["reject", "largest"], typer.Option(help="Of salts and mixtures.")
    ] = "reject",
    neutralise: Annotated[bool, typer.Option("--neutralise", help="Take charges away.")] = False,
    stereo: Annotated[bool, typer.Option(help="Keep stereochemistry.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Decode all and reject what does not come back.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; all CPUs if none.")
    ] = None,
) -> None:
    """Standardise and encode molecules, with an account of all that fall away."""
    known = None if vocabulary is None else Vocabulary.load(vocabulary)
    standardiser = Standardiser(fragments=fragments, neutralise=neutralise, stereo=stereo)
    with bar("molecules") as report:
        found = encode(
            islice(source(molecules, column), limit), known, min_tokens=min_tokens,
            max_tokens=max_tokens, standardiser=standardiser, verify=verify,
            workers=workers or cores(), folder=out / "pieces",
            progress=lambda done: report(done, limit),
        )  # fmt: skip
    found.save(out)
    shutil.rmtree(out / "pieces", ignore_errors=True)
    console.print(str(found.report), markup=False)
    tokens, length = len(found.vocabulary), found.ids.shape[1]
    console.print(f"{tokens} tokens, at most {length} a molecule: {out}", markup=False)
