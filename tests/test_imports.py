"""Which way imports point, and what they cost and need."""

import ast
import json
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from workspace import ROOT, read_workspace

MEMBERS = read_workspace()
# Slow to import, so imported where they are used, or asked for by an extra.
HEAVY = (
    "matplotlib",
    "pandas",
    "rdkit.Chem.Draw",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "transformers",
    "triton",
)
PROBE = """
import importlib, json, sys
import torch
heavy = sys.argv[1].split(",")
present = {name for name in heavy if name in sys.modules}
found = {}
for name in sys.argv[2].split(","):
    importlib.import_module(name)
    new = {one for one in heavy if one in sys.modules} - present
    found[name], present = sorted(new), present | new
print(json.dumps(found))
"""


def test_imports_point_down():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    result = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_no_member_imports_heavy_things_at_once():
    modules = ",".join(member.import_name for member in MEMBERS.values())
    command = [sys.executable, "-c", PROBE, ",".join(HEAVY), modules]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert found == {member.import_name: [] for member in MEMBERS.values()}


def imported(source):
    """The top-level names that the files under `source` import, and where."""
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0], file.relative_to(ROOT)


@pytest.mark.parametrize("name", MEMBERS)
def test_every_import_is_declared(name):
    member = MEMBERS[name]
    declared = {
        canonicalize_name(requirement.name)
        for group in (member.dependencies, *member.extras.values())
        for requirement in group
    }
    providers = packages_distributions()
    undeclared = {
        f"{module} in {file}"
        for module, file in imported(member.folder / "src")
        if module not in sys.stdlib_module_names and module != member.import_name
        if not {canonicalize_name(one) for one in providers.get(module, [module])} & declared
    }
    assert not undeclared, "imported, and neither a dependency nor of an extra"
