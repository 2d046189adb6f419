"""Registers the quantizer with transformers, whenever that is imported.

`import asvd` must not import transformers, which takes seconds, and must come to stand in its list
of quantizers, so that `from_pretrained` finds the method "asvd" of a checkpoint.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LIST = "transformers.quantizers.auto"
"""The module that holds transformers' list of quantizers."""


class _ThenRegister(Loader):
    """Runs a module as its own loader does, and then registers the quantizer."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        import_module("asvd.hf")


class _Waiting(MetaPathFinder):
    """Waits for the import of the list, and takes itself away with it."""

    def find_spec(self, fullname: str, *_where: Any) -> ModuleSpec | None:
        if fullname != LIST:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


def register_with_transformers() -> None:
    """Registers now if the list is there, else when it is imported. Once is enough."""
    if LIST in sys.modules:
        import_module("asvd.hf")
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())
