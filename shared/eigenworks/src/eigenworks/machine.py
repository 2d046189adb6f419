"""A description of the machine and the software, as plain JSON values.

Members are described by their metadata and by what they say of themselves through entry
points of the group `eigenworks.machine` (functions whose result is shown as text); none is
imported by name.
"""

import os
import platform
import sys
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distributions,
    entry_points,
    version,
)
from pathlib import Path
from typing import Any

from eigenworks.discover import GROUP

AUTHORS = "The eigenworks authors"
SELF_DESCRIPTIONS = "eigenworks.machine"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def members() -> dict[str, Distribution]:
    """Installed distributions of this workspace, and others that offer experiments, by name."""
    offering = {point.dist.name for point in entry_points(group=GROUP) if point.dist}
    found = {}
    for distribution in distributions():
        name = distribution.name
        authors = distribution.metadata.get_all("Author") or []
        if name and (name in offering or AUTHORS in authors):
            found.setdefault(name, distribution)
    return dict(sorted(found.items()))


def describe(threads: int) -> dict[str, Any]:
    """CPU, cores, memory, system, Python, libraries, members and what members report."""
    described: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "threads": threads,
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {
            name: found for name in ("torch", "numpy", "scipy") if (found := _version(name))
        },
        "packages": {name: member.version for name, member in members().items()},
    }
    if (gpu := _gpu()) is not None:
        described["gpu"] = gpu
    for point in entry_points(group=SELF_DESCRIPTIONS):
        try:
            described[point.name] = str(point.load()())
        # A member that cannot describe itself must not stop the run of the others.
        except Exception as error:
            described[point.name] = f"{type(error).__name__}: {error}"
    return described


def _cpu_model() -> str:
    """The model as the system names it, else what Python knows of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores that this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return round(pages * size / 2**30, 1)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """The first CUDA device, asked only where an experiment has imported torch already."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(0)
