"""What several papers need beside mathematics stands in each of them, the same to the letter.

No paper imports another, and the floors below hold mathematics alone. A fault that is mended in
one copy is mended in all.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "packages"
LOADERS = (
    "asvd/files", "flowfactor/files", "gcp-riemann/files", "householder-gan/files",
    "rankfeat/files",
)  # fmt: skip
GUARDS = ("asvd/files", "chemflow/checkpoint", "flowfactor/files", "householder-gan/files")
WHOLE_FILES = {"roll_call.py": ("asvd", "liebn", "rankfeat")}
DEFINITIONS = {
    "reason": ("chemflow/files", "flowfactor/files", "householder-gan/files", "rankfeat/files"),
    "whole": ("flowfactor/files", "householder-gan/files", "rankfeat/files"),
    "no_more_than": ("chemflow/checkpoint", "flowfactor/files", "householder-gan/files"),
    "_NoMoreThan": GUARDS,
    "_MAKERS": GUARDS,
    "load_tensors": LOADERS,
    "check_archive": (*LOADERS, "eigenworks/data/weights"),
}


def source(place: str) -> str:
    package, _, module = place.partition("/")
    floor = next(f for f in (PACKAGES, ROOT / "shared") if (f / package).is_dir())
    folder = floor / package / "src" / package.replace("-", "_")
    return (folder / module).with_suffix(".py").read_text(encoding="utf-8")


def definition(place: str, name: str) -> str:
    text = source(place)
    for node in ast.parse(text).body:
        names = [getattr(node, "name", None), *(getattr(t, "id", None) for t in _targets(node))]
        if name in names:
            return ast.get_source_segment(text, node) or ""
    raise AssertionError(f"{place} does not define {name}")


def _targets(node: ast.stmt) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else []


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_files_are_copies(name):
    first, *others = (source(f"{package}/{name}") for package in WHOLE_FILES[name])
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_are_copies(name):
    first, *others = (definition(place, name) for place in DEFINITIONS[name])
    assert first
    assert all(other == first for other in others)


def test_there_are_no_other_copies():
    folders = sorted(PACKAGES.glob("*/src/*"))
    having = {f.parents[0].name for f in PACKAGES.glob("*/src/*/roll_call.py")}
    assert having == {package.replace("-", "_") for package in WHOLE_FILES["roll_call.py"]}
    guards = {
        path.parents[2].name + "/" + path.stem
        for folder in folders
        for path in folder.rglob("*.py")
        if "class _NoMoreThan(" in path.read_text(encoding="utf-8")
    }
    assert guards == set(GUARDS)
