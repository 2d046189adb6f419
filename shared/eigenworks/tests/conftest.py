"""A package made for one test: a module and the metadata by which it is found."""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoints, distributions
from pathlib import Path
from textwrap import dedent

import pytest

HEAD = """
from pathlib import Path
from eigenworks import *
CLAIM = Claim("It works.", source="a test")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder on the module path whose distributions are the only ones found."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def entry_points(group: str) -> EntryPoints:
        points = (p for d in distributions(path=[str(folder)]) for p in d.entry_points)
        return EntryPoints(p for p in points if p.group == group)

    monkeypatch.setattr("eigenworks.discover.entry_points", entry_points)
    return folder


@pytest.fixture
def offer(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a distribution `demo` whose module holds `source`, offering `names`.

    Calling it again replaces the module and what it offers, as an edited package does.
    """

    def write(source: str, *names: str, version: str = "1.0", **other: str) -> Path:
        for old in site.glob("demo-*"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        info = site / f"demo-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: demo\nVersion: {version}\n")
        points = {name: f"demo_module:{name}" for name in names} | other
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[eigenworks.experiments]", *lines]))
        module = site / "demo_module.py"
        module.write_text(HEAD + dedent(source))
        # Python may take the compiled form of a file rewritten within the same second.
        for compiled in site.glob("__pycache__/demo_module*"):
            compiled.unlink()
        monkeypatch.delitem(sys.modules, "demo_module", raising=False)
        return site

    return write
