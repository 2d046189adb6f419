"""Commands with arguments that are wrong in some way: an exit status and a sentence, no traceback.

Arguments are drawn from what each command declares, among values of other kinds, numbers out of
range, and files that are absent, empty, of another kind or broken.
"""

import importlib
import inspect
import io
import os
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest import mock

import numpy as np
import pytest
import torch
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

APPS = {
    "asvd": ("asvd.cli", "asvd.cli"),
    "chemflow": ("chemflow.cli", "chemflow.cli.app"),
    "eigenworks": ("eigenworks.cli", "eigenworks.cli"),
    "flowfactor": ("flowfactor.cli", "flowfactor.cli.app"),
    "householder-gan": ("householder_gan.cli", "householder_gan.command"),
    "rankfeat": ("rankfeat.cli", "rankfeat.command"),
}
"""Where `main` is, and where the application."""

NUMBERS = ("0", "1", "2", "3", "-1", "0.5", "nan", "inf", "1e400", "9" * 30, "", "x")
FILES = (
    "none", "empty", "text.txt", "a.json", "list.json", "floats.npz", "weights.pt", "broken.pt",
    "G.safetensors", "G.pkl", "m.gguf", "m.smi", "one.png", "folder", "none/inside", "text.txt/x",
)  # fmt: skip
WORDS = ("", "x", "qed", "-", "é", "a,b", "1,2,3", "energy:2", "torchvision:none", "none:none")


def write_files(folder: Path) -> None:
    """What FILES names, but for what is absent."""
    (folder / "empty").touch()
    (folder / "text.txt").write_text("some words\n")
    (folder / "a.json").write_text('{"a": 1, "format": "x"}')
    (folder / "list.json").write_text("[1, 2]")
    np.savez(folder / "floats.npz", images=np.zeros((2, 3)))
    torch.save({"a": torch.zeros(1)}, folder / "weights.pt")
    (folder / "broken.pt").write_bytes((folder / "weights.pt").read_bytes()[:100])
    (folder / "G.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    (folder / "G.pkl").write_bytes(b"\x80\x04N.")
    (folder / "m.gguf").write_bytes(b"GGUF\x03")
    (folder / "m.smi").write_text("CCO\nnonsense\n")
    Image.new("RGB", (4, 4)).save(folder / "one.png")
    (folder / "folder").mkdir()


def commands() -> list[tuple[str, str]]:
    return [(name, command) for name in APPS for command in declared(name)]


def declared(name: str) -> dict[str, Any]:
    app = importlib.import_module(APPS[name][1]).app
    group: Any = typer.main.get_command(app)
    return group.commands


def drawn(kind: Any, rng: random.Random) -> str:
    """A value for a parameter of this type, mostly of its kind."""
    while get_origin(kind) in (Annotated, Union, UnionType, list):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return rng.choice((*get_args(kind), "x"))
    if rng.random() < 0.1:
        return rng.choice((*NUMBERS, *FILES, *WORDS))
    if kind in (int, float):
        return rng.choice(NUMBERS)
    return rng.choice(FILES if kind is Path else (*WORDS, *FILES))


def arguments(name: str, command: str, rng: random.Random) -> list[str]:
    """Of a command, without those that it must have now and then."""
    found = []
    one = declared(name)[command]
    kinds = get_type_hints(inspect.unwrap(one.callback))
    for parameter in one.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        # Without names eigenworks runs everything there is.
        needed = parameter.required or (argument and name == "eigenworks")
        if rng.random() > (0.97 if needed else 0.25) and name != "eigenworks":
            continue
        if argument:
            found.append(drawn(kinds[parameter.name], rng) or "x")
        else:
            flag = getattr(parameter, "is_flag", False)
            found += (
                [parameter.opts[0]]
                if flag
                else [parameter.opts[0], drawn(kinds[parameter.name], rng)]
            )
    return [command, *found]


def run(main: Callable[[], Any], words: list[str]) -> tuple[Any, str]:
    """The exit status and what was printed."""
    told = io.StringIO()
    with mock.patch.object(sys, "argv", words), redirect_stdout(told), redirect_stderr(told):
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code
    return status, told.getvalue()


def fuzz(name: str, command: str, examples: int) -> None:
    main = importlib.import_module(APPS[name][0]).main

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def one(seed: int) -> None:
        words = [name, *arguments(name, command, random.Random(seed))]
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            write_files(Path(folder))
            status, told = run(main, words)
            left = [p.name for p in Path(folder).rglob("*.part")]
        assert status in (0, None, 1, 2), (words, status, told)
        assert "Traceback" not in told, (words, told)
        assert status in (0, None) or told.strip(), words
        assert not left, (words, left)

    threads = torch.get_num_threads()
    known = dict(os.environ)
    try:
        one()
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(known)


@pytest.mark.parametrize(("name", "command"), commands())
def test_few_wrong_arguments(name: str, command: str) -> None:
    fuzz(name, command, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "command"), commands())
def test_many_wrong_arguments(name: str, command: str) -> None:
    fuzz(name, command, 300)
