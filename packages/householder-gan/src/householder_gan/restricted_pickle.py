"""Reading NVlabs pickles of networks without running anything that is in them.

Such a file pickles objects whose classes travel as source text and are executed by
`torch_utils.persistence` on loading. Here every such object becomes a `Persistent`, a record of
its class name, state and arguments; tensors and NumPy arrays are rebuilt by a short list of known
functions; any other global is refused before it is called.
"""

import argparse
import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from householder_gan.files import check_archive


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

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state)


class _Dtype:
    """A type of numbers. A pickled `numpy.dtype` may claim that bytes are addresses."""

    def __init__(self, code: Any, _align: Any = None, _copy: Any = None) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[biufc]\d{1,2}", code)):
            raise RefusedPickleError(f"a dtype must be of numbers, got {_short(code)}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or any(part is not None for part in state[2:5]):
            raise RefusedPickleError("a dtype must be without fields")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose bytes are as many as its shape says."""

    def __new__(cls, *_: Any) -> "_Array":
        return super().__new__(cls, 0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, data = state
        if not isinstance(kind, _Dtype) or not isinstance(data, bytes):
            raise RefusedPickleError("an array must be bytes of numbers")
        if math.prod(shape) * kind.dtype.itemsize != len(data) or min(shape, default=0) < 0:
            raise RefusedPickleError(f"an array of {_short(shape)} has {len(data)} bytes")
        checked: Any = (1, shape, kind.dtype, bool(fortran), data)
        super().__setstate__(checked)


def _array(_kind: Any, _shape: Any, _code: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _Dtype) or not isinstance(data, bytes):
        raise RefusedPickleError("a number must be bytes with a dtype")
    if len(data) != kind.dtype.itemsize:
        raise RefusedPickleError(f"a {kind.dtype} has {len(data)} bytes")
    return np.frombuffer(data, kind.dtype)[0]


def _ordered(pairs: Any = ()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in pairs)


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
    file = io.BytesIO(data)
    check_archive(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedPickleError(f"a tensor must be of a storage, got {type(storage).__name__}")
    # A stride of 0 makes any size of a few bytes, which fills the memory when it is copied.
    if math.prod(size) > storage._size():
        raise RefusedPickleError(f"a tensor of {_short(size)} has {storage._size()} numbers")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())


def _parameter(data: Any, _requires_grad: Any, _hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedPickleError(f"a parameter must be a tensor, got {type(data).__name__}")
    return data


def _short(value: Any) -> str:
    """For messages; a value out of a file may be of any length, and repeat itself endlessly."""
    plain = isinstance(value, (str, int)) or (
        isinstance(value, tuple) and all(isinstance(one, int) for one in value)
    )
    return repr(value)[:80] if plain else type(value).__name__


def _key(key: Any) -> Any:
    """Hashing a tuple of tuples of tuples … ends the process where they are deep enough."""
    if not (key is None or isinstance(key, (str, int, bytes))):
        raise RefusedPickleError(f"a key must be a name or a number, got {type(key).__name__}")
    return key


def _known() -> dict[tuple[str, str], Callable[..., Any]]:
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("collections", "OrderedDict"): _ordered,
        ("dnnlib.util", "EasyDict"): _Attributes,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("torch", "device"): torch.device,
        ("torch", "Size"): torch.Size,
        ("argparse", "Namespace"): argparse.Namespace,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        known[module, "_reconstruct"] = _array
        known[module, "scalar"] = _scalar
    return known


_STATEFUL = (_Array, _Dtype, _Attributes, OrderedDict, argparse.Namespace, Tensor)


# In Python: the one in C makes room for any number that it reads.
_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):
    """Refuses names that are not known, keys that are not plain, and states of what has none."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_InPython.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._known = _known()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        raise RefusedPickleError(f"asks for {module}.{name}, which is not read")

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickleError(f"refers to {_short(pid)} outside the file")

    def _checked_item(self) -> None:
        _key(self.stack[-2])
        self.load_setitem()

    def _checked_items(self) -> None:
        for key in self.stack[::2]:
            _key(key)
        self.load_setitems()

    def _checked_dict(self) -> None:
        for key in self.stack[::2]:
            _key(key)
        self.load_dict()

    def _checked_build(self) -> None:
        # Of a class or function it would change what later files are read with.
        if not isinstance(self.stack[-2], _STATEFUL):
            raise RefusedPickleError(f"gives a state to {type(self.stack[-2]).__name__}")
        self.load_build()

    def _refuse_set(self) -> None:
        raise RefusedPickleError("holds a set, which no network needs")

    dispatch[pickle.SETITEM[0]] = _checked_item
    dispatch[pickle.SETITEMS[0]] = _checked_items
    dispatch[pickle.DICT[0]] = _checked_dict
    dispatch[pickle.BUILD[0]] = _checked_build
    for _opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):
        dispatch[_opcode[0]] = _refuse_set


def read_pickle(path: str | Path) -> dict[str, Persistent]:
    """The networks of an NVlabs pickle ("G", "D", "G_ema") as records, without executing it.

    Raises RefusedPickleError for a file that asks for other classes or functions, such as the
    TensorFlow pickles (convert those with NVlabs' `legacy.py` first), or that holds no networks.
    """
    with Path(path).open("rb") as file:
        try:
            held = _Unpickler(io.BytesIO(file.read())).load()
        except RefusedPickleError as error:
            hint = ""
            if "dnnlib.tflib" in str(error):
                hint = "; this is a TensorFlow pickle, convert it with NVlabs' legacy.py first"
            raise RefusedPickleError(f"{path}: {error}{hint}") from None
        except (
            pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError, IndexError,
            RuntimeError, ValueError, OverflowError, MemoryError, struct.error,
        ) as error:  # fmt: skip
            raise RefusedPickleError(f"{path}: not a pickle of networks: {error}") from error
    if not isinstance(held, Mapping):
        raise RefusedPickleError(
            f"{path}: must hold a dictionary of networks, got {type(held).__name__}"
        )
    found = {k: v for k, v in held.items() if isinstance(v, Persistent)}
    if not found:
        names = ", ".join(sorted(_short(key) for key in held)[:8])
        raise RefusedPickleError(f"{path}: holds no network, only {names}")
    return found
