"""Results that cannot be written: one sentence, and what was there before is there still."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

QUICK = "eigenworks run"
OTHERS = ("asvd compress", "flowfactor train", "householder-gan finetune", "chemflow optimize")
COMMANDS = [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no fork"),
    pytest.mark.timeout(900),
]


@contextmanager
def mounted(folder: Path, *options: str) -> Generator[None]:
    """A small or read-only file system in place of the folder; skips where none may be mounted."""
    found = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"mount: {found.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def assert_said(ended: Any, name: str) -> None:
    """One sentence and a status, no traceback."""
    assert ended.status in (1, 2), ended.printed
    assert "Traceback" not in ended.printed
    assert f"{name.split()[0]}: " in ended.printed.strip().splitlines()[-1], ended.printed


@pytest.mark.parametrize("kind", ["limit", pytest.param("tmpfs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(name: str, kind: str, start: Any, tmp_path: Path) -> None:
    """A run that was half done goes on, finds no room, and ends well where there is room again."""
    server = start(name)
    server.clear()
    whole = server.run()
    expected = server.snapshot()
    sizes = [path.stat().st_size for path in server.out.rglob("*") if path.is_file()]
    server.clear()
    with ExitStack() as stack:
        if kind == "tmpfs":
            room = f"-osize={max(sum(sizes) // 2048, 4)}k"
            stack.enter_context(mounted(server.out, "-ttmpfs", room, "tmpfs"))
        server.run(change=max(1, whole.changes // 2))
        before = server.snapshot(unfinished=True)
        assert_said(server.run(limit=max(sizes) // 2 if kind == "limit" else 0), name)
        results = {file for file in before if not file.startswith("unfinished")}
        assert results <= server.snapshot(unfinished=True).keys()
        if kind == "tmpfs":
            shutil.copytree(server.out, tmp_path / "kept")
    if kind == "tmpfs":
        server.out.rmdir()
        (tmp_path / "kept").rename(server.out)
    again = server.run()
    assert again.status == 0, again.printed
    assert server.snapshot() == expected
    assert server.is_tidy()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_place_of_the_folder(name: str, start: Any) -> None:
    server = start(name)
    server.out.write_text("a file")
    assert_said(server.run(), name)
    assert server.out.read_text() == "a file"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_folder(name: str, start: Any) -> None:
    server = start(name)
    server.clear()
    whole = server.run()
    server.clear()
    server.run(change=max(1, whole.changes // 2))
    before = server.snapshot(unfinished=True)
    if os.geteuid() == 0:
        # To the superuser modes are nothing.
        with mounted(server.out, "--bind", "-oro", str(server.out)):
            assert_said(server.run(), name)
    else:
        server.out.chmod(0o555)
        assert_said(server.run(), name)
        server.out.chmod(0o755)
    assert server.snapshot(unfinished=True) == before
