"""Reading NVlabs pickles of networks without running anything that is in them.

Such a file pickles objects whose classes travel as source text and are executed by
`torch_utils.persistence` on loading. Here every such object becomes a `Persistent`, a record of
its class name, state and arguments; tensors and NumPy arrays are rebuilt by a short list of known
functions; any other global is refused before it is called.
"""

import argparse
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor


class RefusedPickleError(ValueError):
    """A pickle that asks for something else than tensors, arrays and known containers."""


@dataclass
class Persistent:
    """A network object as data: nothing of its class is known but the name."""

    class_name: str
    state: Mapping[str, Any]

    def _parts(self, kind: str) -> Mapping[str, Any]:
        found = self.state.get(kind) or {}
        if not isinstance(found, Mapping):
            raise RefusedPickleError(f"{kind} of {self.class_name} must be a mapping")
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that the object was made with."""
        return dict(self.state.get("_init_kwargs") or {})

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by name, as in a state dictionary."""
        for kind in ("_parameters", "_buffers"):
            for name, value in self._parts(kind).items():
                if value is not None and not isinstance(value, Tensor):
                    raise RefusedPickleError(f"{prefix}{name} must be a tensor, got {type(value)}")
                if value is not None:
                    yield prefix + name, value.detach()
        for name, child in self._parts("_modules").items():
            if isinstance(child, Persistent):
                yield from child.tensors(f"{prefix}{name}.")
            elif child is not None:
                raise RefusedPickleError(f"{prefix}{name} must be a network, got {type(child)}")


class _Attributes(dict):
    """`dnnlib.EasyDict`: a dictionary whose entries were attributes."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state)


def _persistent(meta: Any) -> Persistent:
    if not isinstance(meta, Mapping) or meta.get("type") != "class":
        raise RefusedPickleError("a persistent object must be described as a class")
    state, name = meta.get("state"), meta.get("class_name")
    if not isinstance(state, Mapping) or not isinstance(name, str):
        raise RefusedPickleError("a persistent object must have a class_name and a state")
    return Persistent(name, state)


def _storage(data: Any) -> Any:
    # torch's own function loads these bytes as a pickle of any content.
    if not isinstance(data, bytes):
        raise RefusedPickleError(f"a storage must be bytes, got {type(data).__name__}")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: Any, _requires_grad: Any, _hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedPickleError(f"a parameter must be a tensor, got {type(data).__name__}")
    return data


def _known() -> dict[tuple[str, str], Callable[..., Any]]:
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("dnnlib.util", "EasyDict"): _Attributes,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("torch", "device"): torch.device,
        ("torch", "Size"): torch.Size,
        ("argparse", "Namespace"): argparse.Namespace,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        known[module, "_reconstruct"] = multiarray._reconstruct
        known[module, "scalar"] = multiarray.scalar
    return known


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._known = _known()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        raise RefusedPickleError(f"asks for {module}.{name}, which is not read")

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickleError(f"refers to {pid!r} outside the file")


def read_pickle(path: str | Path) -> dict[str, Persistent]:
    """The networks of an NVlabs pickle ("G", "D", "G_ema") as records, without executing it.

    Raises RefusedPickleError for a file that asks for other classes or functions, such as the
    TensorFlow pickles (convert those with NVlabs' `legacy.py` first), or that holds no networks.
    """
    with Path(path).open("rb") as file:
        try:
            held = _Unpickler(file).load()
        except RefusedPickleError as error:
            hint = ""
            if "dnnlib.tflib" in str(error):
                hint = "; this is a TensorFlow pickle, convert it with NVlabs' legacy.py first"
            raise RefusedPickleError(f"{path}: {error}{hint}") from None
        except (
            pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError, IndexError,
            RuntimeError, ValueError,
        ) as error:  # fmt: skip
            raise RefusedPickleError(f"{path}: not a pickle of networks: {error}") from error
    if not isinstance(held, Mapping):
        raise RefusedPickleError(
            f"{path}: must hold a dictionary of networks, got {type(held).__name__}"
        )
    found = {k: v for k, v in held.items() if isinstance(v, Persistent)}
    if not found:
        raise RefusedPickleError(f"{path}: holds no network, only {sorted(map(str, held))}")
    return found
