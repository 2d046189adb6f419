"""The Triton kernels: whether they are there, and which tensors they take.

Triton comes with PyTorch's builds for Linux with CUDA, and is imported when a tensor of a GPU
first asks for it. With TRITON_INTERPRET=1 it runs kernels in Python on tensors of the CPU, far
too slow for anything but tests: then `backend("triton")` takes those too.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from types import ModuleType

import torch

# Orders that the kernels take, and of the smaller side for rank one.
LIMIT = 32
RANK_ONE_LIMIT = 64
# What they are compiled for and tested.
DTYPES = (torch.float32, torch.float64)
_CAPABILITY = (8, 0)


class TritonUnavailableError(RuntimeError):
    """Triton is missing, or neither a GPU nor its interpreter is there to run it."""


@dataclass(frozen=True)
class TritonInfo:
    """Version of Triton and where it runs: names of the GPUs, or "interpreter"."""

    version: str
    devices: tuple[str, ...]


def interpreted() -> bool:
    """Whether Triton is asked to interpret."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


@functools.cache
def _capable(index: int) -> bool:
    return torch.version.cuda is not None and (
        torch.cuda.get_device_capability(index) >= _CAPABILITY
    )


def _devices() -> tuple[str, ...]:
    if interpreted():
        return ("interpreter",)
    if not torch.cuda.is_available():
        return ()
    found = range(torch.cuda.device_count())
    return tuple(torch.cuda.get_device_name(i) for i in found if _capable(i))


def why_unavailable() -> str:
    """One sentence saying why the kernels cannot be used; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (it comes with PyTorch's builds for Linux with CUDA)"
    if _devices():
        return ""
    return "there is no NVIDIA GPU of compute capability 8.0 or newer"


def info() -> TritonInfo | None:
    """Version and devices, or None where the kernels cannot be used."""
    if why_unavailable():
        return None
    return TritonInfo(importlib.metadata.version("triton"), _devices())


def require() -> None:
    """Raises TritonUnavailableError saying why the kernels cannot be used, if they cannot."""
    reason = why_unavailable()
    if reason:
        raise TritonUnavailableError(f"the Triton kernels cannot be used: {reason}")


@functools.cache
def operators() -> ModuleType:
    """The module of the kernels, loaded the first time."""
    return importlib.import_module("linalg_kernels.backends.triton.operators")


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def runs_on(kind: str, index: int) -> bool:
    """Whether the kernels run on this device, "cuda" or, interpreted, "cpu"; loads them if so."""
    if not _installed():
        return False
    if kind == "cpu":
        return interpreted() and operators() is not None
    # A stand-in for a tensor of a GPU that is not there is traced for the usual ones.
    capable = _capable(index) if torch.cuda.is_available() else True
    return capable and operators() is not None
