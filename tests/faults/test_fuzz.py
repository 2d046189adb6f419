"""Files that are wrong in some way: every reader says so in a sentence that names the file.

A whole file is changed, byte by byte or (JSON, also inside of other files) value by value. Then a
reader returns, or raises an error of its documented kinds: it does not crash, hang, or ask for more
memory than the file can be worth.
"""

import io
import json
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from eigenworks.compare import IncomparableError
from eigenworks.data import DataError
from eigenworks.store import UnreadableError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readers import READERS

REFUSALS = (ValueError, OSError, DataError, UnreadableError, IncomparableError)
"""What readers document; ValueError has the errors of pickles and of checkpoints under it."""

ARCHIVES = (".pt", ".pth", ".bin", ".state", ".tar")
"""Files that torch.save has written."""

MEMORY = 1 << 30
"""More than what the process has already, which no file here is worth."""


@contextmanager
def limited(extra: int) -> Generator[None]:
    """Lets the process ask for so much more memory and no more, where there are such limits."""
    try:
        import resource
    except ImportError:
        yield
        return
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Cut, with bytes set, taken out, put in or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        # Heads are where files say how large they are.
        at = min(at, rng.choice((16, 64, len(found), len(found))))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                del found[at:]
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = rng.randbytes(length)
            case 3:
                found[at : at + length] = found[at : at + length] * 3
            case 4:
                found[at : at + length] = bytes([rng.choice((0, 127, 128, 255))]) * length
            case _:
                found[at : at + 1] = rng.randbytes(1)
    return bytes(found)


ODD = (None, True, -1, 0, 3, 10**30, -1.5, 1e308, "", "x", "1", [], [1], [[]], {}, {"a": 1}, [None])


def changed_json(value: Any, rng: random.Random) -> Any:
    """One value somewhere inside replaced, taken out or doubled; also in JSON inside of strings."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], changed_json(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value.startswith(('{"', '["')) and rng.random() < 0.9:
        return json.dumps(changed_json(json.loads(value), rng))
    return rng.choice(ODD)


def changed(data: bytes, path: Path, rng: random.Random) -> bytes:
    """The bytes of a file with something wrong."""
    if path.suffix == ".json" and rng.random() < 0.8:
        return json.dumps(changed_json(json.loads(data), rng)).encode()
    if path.suffix == ".safetensors" and rng.random() < 0.7:
        (length,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + length])
        part = "__metadata__" if rng.random() < 0.7 and "__metadata__" in head else None
        head = {**head, part: changed_json(head[part], rng)} if part else changed_json(head, rng)
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + data[8 + length :]
    if zipfile.is_zipfile(io.BytesIO(data)) and rng.random() < 0.7:
        return changed_member(data, rng)
    return changed_bytes(data, rng)


def changed_member(data: bytes, rng: random.Random) -> bytes:
    """A whole archive, so that what is wrong in one of its files is read."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(held, "w") as new:
        names = old.namelist()
        # Of PyTorch's archives the pickle, which says what the others are.
        chosen = next((one for one in names if one.endswith("data.pkl")), rng.choice(names))
        for one in names:
            member = old.read(one)
            new.writestr(one, changed_bytes(member, rng) if one == chosen else member)
    return held.getvalue()


def check(name: str, path: Path, data: bytes) -> None:
    """Reads the bytes as that file, and holds the reader to its word."""
    path.write_bytes(data)
    said = ""
    with warnings.catch_warnings(), limited(MEMORY):
        warnings.simplefilter("ignore")
        try:
            READERS[name].read(path)
            return
        except REFUSALS as error:
            said = str(error)
    assert str(path) in said or str(path.parent) in said, said
    assert "allocate" not in said, said


def whole(name: str, folder: Path) -> tuple[Path, bytes]:
    reader = READERS[name]
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        torch.manual_seed(0)
        reader.write(path)
    return path, path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def fuzz(name: str, folder: Path, examples: int) -> None:
    path, data = whole(name, folder / name.replace(" ", "-"))

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def one(seed: int) -> None:
        check(name, path, changed(data, path, random.Random(seed)))

    try:
        one()
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("name", READERS)
def test_few_wrong_files(name: str, place: Path) -> None:
    path, _ = whole(name, place / name.replace(" ", "-"))
    if name not in ("asvd GGUF", "eigenworks compare", "householder_gan.read_pickle"):
        READERS[name].read(path)
    fuzz(name, place, 10)


def oversized(data: bytes, packed: bool) -> bytes:
    """An archive of torch.save with a file that unpacks to 64 MB, or one that says 4 GB."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(held, "w") as new:
        last = max(old.namelist(), key=lambda one: "/data/" in one)
        for one in old.namelist():
            if packed and one == last:
                new.writestr(one, bytes(1 << 26), zipfile.ZIP_DEFLATED)
            else:
                new.writestr(one, old.read(one))
    found = bytearray(held.getvalue())
    if not packed:
        # In the list at the end: signature, then 20 bytes, then the size.
        place = found.rindex(last.encode()) - 46
        assert found[place : place + 4] == b"PK\x01\x02"
        found[place + 24 : place + 28] = (2**32 - 2).to_bytes(4, "little")
    return bytes(found)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [n for n, one in READERS.items() if one.file.endswith(ARCHIVES)])
def test_archives_that_unpack_to_more(name: str, packed: bool, place: Path) -> None:
    path, data = whole(name, place / name.replace(" ", "-"))
    path.write_bytes(oversized(data, packed))
    try:
        with limited(MEMORY), pytest.raises(REFUSALS, match="unpacks to more than it takes"):
            READERS[name].read(path)
    finally:
        path.write_bytes(data)


def test_a_head_without_the_size_of_its_model(place: Path) -> None:
    """transformers takes the sizes of a model of seven billion numbers instead."""
    path, data = whole("asvd GGUF", place / "asvd-GGUF")
    assert b"block_count" in data
    try:
        broken = data.replace(b"block_count", b"block_kount").replace(b"weight", b"weighu")
        check("asvd GGUF", path, broken)
    finally:
        path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_many_wrong_files(name: str, place: Path) -> None:
    fuzz(name, place, 200 if "GGUF" in name else 3000)
