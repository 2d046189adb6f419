"""Pass the default tests in a fresh clone on a machine that has no compiler.

    uv run scripts/without_compiler.py            all default tests
    uv run scripts/without_compiler.py -- -k eigh  what follows `--` goes to pytest

linalg-kernels must then install without its native library, say so, and compute by plain torch.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from process import ToolError, empty_environment, fail, run
from repository import clone
from workspace import ROOT

# Compilers and the build tools that find them, bare, with a target triple before them or a
# version behind: g++, x86_64-linux-gnu-g++-12, clang-cl.
_BUILD_TOOL = re.compile(
    r"^(.*-)?(cc|c\+\+|c89|c99|gcc|g\+\+|cpp|clang|clang\+\+|clang-cl|icx|icpx|tcc|nvcc|zig|"
    r"cmake|ninja|make|gmake)(-[\d.]+)?(\.exe)?$"
)
_PROBE = """
import linalg_kernels
print(linalg_kernels.backend_info())
assert linalg_kernels.backend_info().native is None, "a native library without a compiler"
"""


def path_without_compilers(folder: Path, path: str) -> str:
    """A PATH with every program of `path` but compilers, as links in `folder`."""
    folder.mkdir()
    for directory in map(Path, path.split(os.pathsep)):
        for program in directory.iterdir() if directory.is_dir() else ():
            link = folder / program.name
            if not _BUILD_TOOL.match(program.name) and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def without_compiler(arguments: list[str], root: Path = ROOT) -> str:
    """Clone `root`, install the clone without a compiler, run pytest there with `arguments`.

    Returns:
        The closing line of pytest.

    Raises:
        ToolError: the workspace does not install, carries a native library all the same, or a
            test fails.
    """
    with tempfile.TemporaryDirectory(prefix="without-compiler-") as name:
        work = Path(name)
        fresh = clone(root, work / "clone")
        path = path_without_compilers(work / "bin", os.environ["PATH"])
        # The interpreter is named: a launcher that looks itself up on PATH may not survive a link.
        kept = {"PATH": path, "UV_PYTHON": os.path.realpath(sys.executable)}
        environment = empty_environment(kept)
        for variable in ("CC", "CXX", "CMAKE_GENERATOR"):
            environment.pop(variable, None)
        for tool in ("c++", "g++", "clang++", "cl"):
            if found := shutil.which(tool, path=path):
                raise ToolError(f"a compiler is still on the PATH: {found}")
        run(["uv", "sync", "--locked", "--quiet"], cwd=fresh, env=environment)
        probe = run(["uv", "run", "--no-sync", "python", "-c", _PROBE], cwd=fresh, env=environment)
        print(probe.stdout.strip())
        pytest = ["uv", "run", "--no-sync", "pytest", "--quiet", *arguments]
        result = run(pytest, cwd=fresh, env=environment)
        return result.stdout.strip().splitlines()[-1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The default tests on a machine without compiler.")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="for pytest, after --")
    try:
        print(without_compiler(parser.parse_args(argv).arguments))
    except ToolError as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
