"""Forward hooks that one object owns, on layers found by name."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def find_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The submodules of `model` of these names, in the order given.

    Raises:
        ValueError: No name, a name twice, or a name that the model does not have; the error
            says which are near to it.
    """
    if isinstance(names, str):
        raise TypeError(f"layers must be a sequence of names, got the string {names!r}")
    if not names:
        raise ValueError("layers must name at least one layer, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"layers must name each layer once, got {list(names)}")
    present = dict(model.named_modules())
    for name in names:
        if name not in present or name == "":
            near = difflib.get_close_matches(name, [one for one in present if one], n=5)
            told = f"; near to it are {', '.join(map(repr, near))}" if near else ""
            raise ValueError(f"layers: {type(model).__name__} has no layer {name!r}{told}")
    return {name: present[name] for name in names}


def edit_output(output: Any, edit: Callable[[Tensor], Tensor], name: str) -> Any:
    """`output` of a layer with its tensor edited: itself, or the first of a tuple or list."""
    if isinstance(output, Tensor):
        return edit(output)
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return type(output)([edit(output[0]), *output[1:]])
    raise TypeError(
        f"layer {name!r} must return a tensor or a tuple whose first is one,"
        f" got {type(output).__name__}"
    )


class Hooks:
    """Forward hooks of one owner. `close`, or leaving the context, removes these and no others."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def add(self, layer: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> None:
        """Call hook(layer, inputs, output) after the layer; what it returns is the output."""
        self._handles.append(layer.register_forward_hook(hook))

    @property
    def closed(self) -> bool:
        """Whether there is no hook, any more or yet."""
        return not self._handles

    def close(self) -> None:
        """Remove the hooks. Does nothing the second time."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
