"""Empty virtual environments, and what lies in them once something has been installed."""

import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from process import ToolError, run
from workspace import ROOT

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Environment:
    """A virtual environment in `folder`, made anew and empty but for what is installed with it."""

    def __init__(self, folder: Path, *, python: str = THIS_PYTHON, seed: bool = False) -> None:
        """With `seed`, the environment has pip of its own."""
        shutil.rmtree(folder, ignore_errors=True)
        run(["uv", "venv", "--quiet", "--python", python, *(["--seed"] if seed else []), folder])
        self.folder = folder
        self._scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
        self.bytecode = folder.parent / "bytecode"

    @property
    def python(self) -> Path:
        return self._scripts / ("python.exe" if sys.platform == "win32" else "python")

    def command(self, name: str) -> Path:
        """The path of the console script `name`."""
        return self._scripts / (f"{name}.exe" if sys.platform == "win32" else name)

    def interpreter(self, *arguments: str | Path) -> list[str | Path]:
        """The command line that runs this environment's Python, shut off from the user's.

        The bytecode goes to a folder beside the environment, where the next environment of the
        same path finds it: else every one of them would compile all of torch again.
        """
        return [self.python, "-X", f"pycache_prefix={self.bytecode}", "-I", *arguments]

    def install(self, *arguments: str | Path) -> None:
        """`uv pip install` into this environment."""
        run(["uv", "pip", "install", "--quiet", "--python", self.python, *arguments])

    def pip_install(self, index: str, *arguments: str | Path) -> None:
        """`pip install` as a user runs it, with `index` as the only place to find packages."""
        pip = self.interpreter("-m", "pip", "install", "--quiet", "--no-cache-dir")
        run([*pip, "--index-url", index, *arguments])

    def installed(self) -> Mapping[str, Distribution]:
        """The distributions in this environment, by name."""
        site = next(self.folder.glob("[Ll]ib/**/site-packages"))
        return {
            canonicalize_name(found.metadata["Name"]): found
            for found in distributions(path=[str(site)])
        }

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def constraints(out: Path, *, root: Path = ROOT) -> Path:
    """Write the versions of `uv.lock` to `out` as constraints for pip.

    So what is installed today is what was tested, whatever was released since.
    """
    exported = run(
        [
            *("uv", "export", "--frozen", "--all-packages", "--all-extras", "--all-groups"),
            *("--no-emit-workspace", "--no-hashes", "--no-annotate", "--no-header"),
        ],
        cwd=root,
        echo=False,
    )
    out.write_text(exported.stdout, "utf-8")
    return out


def assert_came_from(installed: Distribution, wheels: Sequence[Path]) -> Path:
    """Find the wheel among `wheels` that `installed` was unpacked from, by the hashes of its files.

    A package of the same name and version on a public index would pass any weaker check.

    Raises:
        ToolError: none of them.
    """
    record = installed.read_text("RECORD") or ""
    rows = set(record.splitlines())
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (entry for entry in archive.namelist() if entry.endswith(".dist-info/RECORD"))
            built = {row for row in archive.read(name).decode().splitlines() if "sha256=" in row}
        if built <= rows:
            return wheel
    raise ToolError(
        f"{installed.metadata['Name']} {installed.version}: the files installed are not those of "
        f"{[wheel.name for wheel in wheels]}"
    )
