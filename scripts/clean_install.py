"""Install each member alone into an empty environment, and try what its user tries first.

    uv run scripts/clean_install.py                 every member
    uv run scripts/clean_install.py liebn --json clean.json

Each environment gets one member's wheel with only its declared dependencies, at the versions of
`uv.lock`. There the package must import (at most 0.3 s beyond torch), the first Python example of
its README must run, its commands must answer `--help` (or say which extra
they need), and no experiment data may have come along.
Then its extras are added, and what it offers through entry points must load.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution as Installed
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.table import Table

from build import Built, build
from environment import (
    THIS_PYTHON,
    Environment,
    assert_came_from,
    constraints,
)
from process import ToolError, fail, run
from readme import first_example
from table import show
from workspace import ROOT, Member, dependencies_of, read_workspace, select

IMPORT_LIMIT = 0.3
"""Seconds that `import NAME` may cost once torch is imported."""

# Each try is a process of its own; the least of them is what the code costs, the rest is the
# machine being busy.
_IMPORT_TRIES = 3
_IMPORT_COST = """
import time, torch
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""
_LOAD_ENTRY_POINTS = """
import importlib.metadata, sys
for entry in importlib.metadata.distribution(sys.argv[1]).entry_points:
    entry.load()
    if entry.group == "eigenworks.experiments":
        print(entry.name)
"""


@dataclass(frozen=True)
class CleanInstall:
    """What one member did in an environment of its own."""

    package: str
    version: str
    wheel: str
    distributions: int
    """Installed along with it, itself included."""
    import_seconds: float
    """Beyond torch, the least of some tries."""
    example: bool
    """Whether its README has a first example, which then ran."""
    commands: tuple[str, ...]
    """Console scripts that answered `--help`."""
    extras: tuple[str, ...]
    """Installed after that, all together."""
    experiments: tuple[str, ...]
    """Experiments that loaded with the extras installed."""


def data_distributions(root: Path = ROOT) -> set[str]:
    """The distributions of the dependency group `data`, which no package may pull."""
    groups = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    # scikit-learn is in the group for its digits, and a library that an extra may ask for.
    return {canonicalize_name(Requirement(text).name) for text in groups["data"]} - {"scikit-learn"}


def clean_install(
    member: Member,
    dist: Mapping[str, Built],
    limits: Path,
    work: Path,
    *,
    python: str = THIS_PYTHON,
    require_native: bool = False,
) -> CleanInstall:
    """Install `member` from the distributions `dist` into an empty environment and try it.

    Args:
        limits: file of constraints, see `environment.constraints`.
        work: folder for the environment, which is removed at the end.
        require_native: fail where linalg-kernels works without its native library.

    Raises:
        CommandError: it did not install, import, run its example or answer `--help`.
        ToolError: another wheel or experiment data was installed, or the import is slow.
    """
    environment = Environment(work / "environment", python=python)
    links = dist[member.name].wheel.parent
    requirement = f"{member.name}=={member.version}"
    environment.install("--find-links", links, "--constraints", limits, requirement)
    installed = environment.installed()
    _check_installed(installed, dist)

    seconds = []
    code = _IMPORT_COST.format(module=member.import_name)
    for attempt in range(_IMPORT_TRIES + 1):
        cost = run(environment.interpreter("-c", code), cwd=work, echo=False).stdout
        if attempt:  # the first one compiles bytecode
            seconds.append(float(cost))
    print(f"import {member.import_name}: {1000 * min(seconds):.0f} ms beyond torch")
    if min(seconds) > IMPORT_LIMIT:
        raise ToolError(
            f"import {member.import_name} costs {min(seconds):.2f} s beyond torch; "
            f"at most {IMPORT_LIMIT} s is allowed: import heavy things where they are used"
        )
    if require_native and "linalg-kernels" in installed:
        run(environment.interpreter(ROOT / "scripts" / "assert_native.py"), cwd=work)
    example = first_example(member.readme.read_text("utf-8"))
    if example is not None:
        script = work / f"{member.import_name}_example.py"
        script.write_text(example, "utf-8")
        run(environment.interpreter(script), cwd=work)
    for command in member.commands:
        # A command may need an extra, and then says which.
        said = run([environment.command(command), "--help"], cwd=work, accept=(0, 1, 2))
        if said.returncode and f"pip install '{member.name}[" not in said.stdout + said.stderr:
            raise ToolError(f"{command} --help: {said.stdout}{said.stderr}".rstrip())
    experiments = []
    if member.extras:
        requirement = f"{member.name}[{','.join(member.extras)}]=={member.version}"
        environment.install("--find-links", links, "--constraints", limits, requirement)
        _check_installed(environment.installed(), dist)
        load = environment.interpreter("-c", _LOAD_ENTRY_POINTS, member.name)
        experiments = run(load, cwd=work, echo=False).stdout.split()
        for command in member.commands:
            run([environment.command(command), "--help"], cwd=work)
    environment.remove()
    return CleanInstall(
        package=member.name,
        version=str(member.version),
        wheel=dist[member.name].wheel.name,
        distributions=len(installed),
        import_seconds=min(seconds),
        example=example is not None,
        commands=member.commands,
        extras=tuple(member.extras),
        experiments=tuple(experiments),
    )


def _check_installed(installed: Mapping[str, Installed], dist: Mapping[str, Built]) -> None:
    """Members come from `dist` and from nowhere else, and no data comes with them."""
    for name in installed.keys() & dist.keys():
        assert_came_from(installed[name], [dist[name].wheel])
    if unwanted := installed.keys() & data_distributions():
        raise ToolError(f"experiment data came along: {sorted(unwanted)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Install each member alone and try it.")
    parser.add_argument("members", nargs="*", metavar="NAME", help="members (default: all)")
    parser.add_argument("--python", default=THIS_PYTHON, help=f"version (default: {THIS_PYTHON})")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument(
        "--require-native",
        action="store_true",
        help="fail where linalg-kernels works without its native library",
    )
    arguments = parser.parse_args(argv)
    members = read_workspace()
    results: list[CleanInstall] = []
    errors: list[tuple[str, Exception]] = []
    with tempfile.TemporaryDirectory(prefix="clean-install-") as name:
        work = Path(name)
        try:
            chosen = select(members, arguments.members)
            needed = {member.name: member for member in chosen}
            for member in chosen:
                needed |= dependencies_of(members, member.name, extras=True)
            dist = {key: build(member, work / "dist") for key, member in needed.items()}
            limits = constraints(work / "constraints.txt")
        except ToolError as error:
            return fail(error)
        for member in chosen:
            try:
                results.append(
                    clean_install(
                        member,
                        dist,
                        limits,
                        work,
                        python=arguments.python,
                        require_native=arguments.require_native,
                    )
                )
            except ToolError as error:
                errors.append((member.name, error))
    show(_table(results, errors))
    for package, error in errors:
        print(f"\n{package}: {error}", file=sys.stderr)
    if arguments.json is not None:
        report = {
            "python": arguments.python,
            "platform": sys.platform,
            "installed": [asdict(result) for result in results],
            "failed": {package: str(error) for package, error in errors},
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 1 if errors else 0


def _table(results: list[CleanInstall], errors: list[tuple[str, Exception]]) -> Table:
    table = Table(title="Each member alone in an empty environment")
    for column in ("package", "wheel", "installed", "import", "README", "commands", "extras"):
        table.add_column(column)
    for result in results:
        table.add_row(
            f"{result.package} {result.version}",
            result.wheel.removesuffix(".whl").split("-", 2)[2],
            str(result.distributions),
            f"torch + {1000 * result.import_seconds:.0f} ms",
            "example ran" if result.example else "no example yet",
            ", ".join(f"{command} --help" for command in result.commands) or "none",
            ", ".join(result.extras) or "none",
        )
    for package, _ in errors:
        table.add_row(package, "failed")
    return table


if __name__ == "__main__":
    sys.exit(main())
