"""A model walked block by block, with the hidden states between blocks kept on disk.

What is in memory beside the model is one block's activations of one batch. The hidden states of
the calibration tokens, masks and positions wait in files, so that a deeper model or more tokens
need more disk and not more memory.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asvd.layers import is_linear
from asvd.spill import Folder

Batch = Tensor | Mapping[str, Tensor]
Loss = Callable[[Any, Batch], Tensor]


def causal_loss(output: Any, batch: Batch) -> Tensor:
    """Sum over tokens of the cross entropy of the next one, padding left out.

    `output.logits` (batch, T, vocabulary) against `input_ids` (batch, T).
    """
    ids = input_ids(batch)
    logits = output.logits[:, :-1]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none")
    mask = token_mask(batch)
    return losses.sum() if mask is None else (losses * mask[:, 1:]).sum()


def input_ids(batch: Batch) -> Tensor:
    """The token ids of a batch."""
    return batch if isinstance(batch, Tensor) else batch["input_ids"]


def token_mask(batch: Batch) -> Tensor | None:
    """True where a token counts; None where all do."""
    mask = None if isinstance(batch, Tensor) else batch.get("attention_mask")
    return None if mask is None else mask.bool()


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's output; a language model is asked to keep no cache."""
    config = getattr(model, "config", None)
    extra = {"use_cache": False} if hasattr(config, "use_cache") else {}
    if isinstance(batch, Tensor):
        return model(batch, **extra)
    return model(**batch, **extra)


def repeated_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks that the model is a sequence of, by name: its largest list of equal modules.

    Empty for a model without one, which is then treated as a single block.
    """
    best: dict[str, nn.Module] = {}
    size = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) < 2:
            continue
        if len({type(child) for child in module}) > 1:
            continue
        parameters = sum(layer.weight.numel() for layer in module.modules() if is_linear(layer))
        if parameters > size:
            size = parameters
            best = {f"{name}.{i}": child for i, child in enumerate(module)}
    return best


@dataclass(frozen=True)
class _Filed:
    """Stands in the arguments of a block for a tensor that is in the folder."""

    number: int


class BlockWalk:
    """Runs the blocks of a model one at a time over all calibration batches.

    Args:
        names: The layers that are asked for. Where one lies outside the blocks (an output
            embedding, a second stack) the model is walked as a single block.

    Attributes:
        blocks: The blocks by name, in order; the whole model under "" if it is a single one.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Batch], folder: Folder, names: Sequence[str]
    ) -> None:
        self.model = model
        self.batches = batches
        self.folder = folder
        blocks = repeated_blocks(model)
        prefixes = tuple(f"{block}." for block in blocks)
        inside = bool(blocks) and all(name.startswith(prefixes) for name in names)
        self.blocks = blocks if inside else {"": model}
        self._names = list(self.blocks)
        self._index = {name: i for i, block in enumerate(self.blocks) for name in names
                       if inside and name.startswith(f"{block}.")}  # fmt: skip
        self._calls: list[list[tuple[tuple, dict]]] = []
        self._extra: list[int | None] = [None] * len(self._names)

    @property
    def whole(self) -> bool:
        """Whether the model is its own only block."""
        return self._names == [""]

    def __len__(self) -> int:
        return len(self._names)

    def block(self, i: int) -> nn.Module:
        """The block as it is now (a pass may have replaced its layers)."""
        return self.blocks[self._names[i]]

    def layers(self, i: int, names: Sequence[str]) -> list[str]:
        """Those of the model's layers `names` that lie in block i."""
        prefix = self._names[i] + "."
        return list(names) if self.whole else [n for n in names if n.startswith(prefix)]

    def index(self, name: str) -> int:
        """The number of the block that a layer lies in."""
        return self._index.get(name, 0)

    def device(self, i: int) -> torch.device:
        """Where block i computes."""
        return next(iter(self.block(i).parameters())).device

    @torch.no_grad()
    def capture(self) -> None:
        """One pass of the dense model: files what each block is called with, and gives."""
        if self.whole:
            return
        for j, batch in enumerate(self.batches):
            calls: list[tuple[tuple, dict]] = []
            with ExitStack() as stack:
                for i in range(len(self)):
                    stack.enter_context(self._recording(i, j, calls))
                call(self.model, batch)
            if len(calls) != len(self):
                raise ValueError(
                    f"each of the {len(self)} blocks must be called once in a pass, "
                    f"got {len(calls)} calls"
                )
            self._calls.append(self._filed(j, calls))

    def hidden(self, i: int, j: int) -> Tensor | None:
        """Hidden states of the dense model before block i (after the last: i = len), batch j."""
        if self.whole:
            return None
        return self.folder.load(f"hidden/{i}-{j}", self.device(min(i, len(self) - 1)))["h"]

    def run(self, i: int, j: int, h: Tensor | None, block: nn.Module | None = None) -> Any:
        """Block i on hidden states `h` of batch j; the model's own output for a single block."""
        block = self.block(i) if block is None else block
        if self.whole:
            return call(block, self.batches[j])
        tensors = self.folder.load(f"call/{j}", self.device(i))
        args, kwargs = _replaced(
            self._calls[j][i], _Filed, lambda filed: tensors[str(filed.number)]
        )
        return _first(block(h, *args, **kwargs))

    def output_from(self, i: int, j: int) -> Any:
        """The model's output for batch j, blocks before i taken as they were in `capture`."""
        h = self.hidden(i, j)
        if h is None:
            return call(self.model, self.batches[j])
        for k in range(i, len(self)):
            h = self.run(k, j, h)
        return self._after(h, j)

    def loss_gradient(self, loss: Loss, j: int) -> Tensor:
        """Gradient of the loss of batch j by the hidden states after the last block."""
        h = self.hidden(len(self), j)
        assert h is not None
        h.requires_grad_()
        return torch.autograd.grad(loss(self._after(h, j), self.batches[j]), h)[0]

    def _after(self, h: Tensor, j: int) -> Any:
        """The model's output for batch j where the last block gives h."""
        with ExitStack() as stack:
            for i in range(len(self)):
                stack.enter_context(self._passing(i, h if i == 0 else None))
            return call(self.model, self.batches[j])

    def _filed(self, j: int, calls: list[tuple[tuple, dict]]) -> list[tuple[tuple, dict]]:
        """The calls of a batch with their tensors moved to the folder, each once."""
        numbers: dict[int, int] = {}
        tensors: dict[str, Tensor] = {}

        def file(tensor: Tensor) -> _Filed:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = len(numbers)
                # safetensors refuses views of one storage.
                tensors[str(numbers[id(tensor)])] = tensor.clone()
            return _Filed(numbers[id(tensor)])

        filed = [_replaced(one, Tensor, file) for one in calls]
        self.folder.save(f"call/{j}", tensors)
        return filed

    @contextmanager
    def _recording(self, i: int, j: int, calls: list[tuple[tuple, dict]]) -> Generator[None]:
        def before(_block: nn.Module, args: tuple, kwargs: dict) -> None:
            if args:
                h, rest, named = args[0], args[1:], dict(kwargs)
            else:
                named = dict(kwargs)
                h, rest = named.pop("hidden_states"), ()
            calls.append((rest, named))
            self.folder.save(f"hidden/{i}-{j}", {"h": h})

        def after(_block: nn.Module, _args: tuple, output: Any) -> None:
            self._extra[i] = len(output) - 1 if isinstance(output, tuple) else None
            if i == len(self) - 1:
                self.folder.save(f"hidden/{i + 1}-{j}", {"h": _first(output)})

        handles = [
            self.block(i).register_forward_pre_hook(before, with_kwargs=True),
            self.block(i).register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _passing(self, i: int, value: Tensor | None) -> Generator[None]:
        """While it lasts block i gives `value`, or what comes in."""
        block, extra = self.block(i), self._extra[i]

        def forward(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            out = hidden_states if value is None else value
            return out if extra is None else (out, *(None,) * extra)

        # On the instance, and put back as it was: accelerate keeps its own forward there.
        before = block.__dict__.get("forward")
        block.forward = forward
        try:
            yield
        finally:
            if before is None:
                del block.forward
            else:
                block.forward = before


def _replaced(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dictionaries with every entry of a kind replaced."""
    if isinstance(value, kind):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_replaced(entry, kind, change) for entry in value)
    if type(value) is dict:
        return {name: _replaced(entry, kind, change) for name, entry in value.items()}
    return value


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
