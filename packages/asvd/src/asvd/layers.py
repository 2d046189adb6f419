"""The factored layer y = A (B x) + b, and the layers of a model that can become one."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Factor(nn.Linear):
    """A linear layer that starts at zero, so that one that was never filled is seen at once."""

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class LowRankLinear(nn.Module):
    """y = A (B x) + b with A (out_features, rank) and B (rank, in_features).

    The factors are two `nn.Linear`, `BLinear` without bias and then `ALinear`, so that
    whatever works on linear layers (peft, torchao) works on them; the names are those of the
    official checkpoints (ASVD4LLM). Rank 0 is the constant b.

    Raises ValueError for a rank outside [0, min(in_features, out_features)].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        most = min(in_features, out_features)
        if not 0 <= rank <= most:
            raise ValueError(
                f"rank must lie in [0, {most}] for ({out_features}, {in_features}), got {rank}"
            )
        # The names of the official checkpoints.
        self.BLinear = Factor(in_features, rank, bias=False, device=device, dtype=dtype)
        self.ALinear = Factor(rank, out_features, bias=bias, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Both factors zero."""
        self.BLinear.reset_parameters()
        self.ALinear.reset_parameters()

    @classmethod
    def from_factors(
        cls, A: Float[Tensor, "m k"], B: Float[Tensor, "k n"], bias: Float[Tensor, " m"] | None
    ) -> "LowRankLinear":
        """The layer with these factors, in the dtype and on the device of A."""
        (m, k), n = A.shape, B.shape[1]
        layer = cls(n, m, k, bias is not None, A.device, A.dtype)
        with torch.no_grad():
            layer.ALinear.weight.copy_(A)
            layer.BLinear.weight.copy_(B)
            if bias is not None:
                layer.ALinear.bias.copy_(bias)
        return layer

    @property
    def in_features(self) -> int:
        return self.BLinear.in_features

    @property
    def out_features(self) -> int:
        return self.ALinear.out_features

    @property
    def rank(self) -> int:
        return self.BLinear.out_features

    @property
    def bias(self) -> nn.Parameter | None:
        return dict(self.ALinear.named_parameters()).get("bias")

    @property
    def weight(self) -> Tensor:
        """The product A B (out_features, in_features), formed at each access."""
        return self.ALinear.weight @ self.BLinear.weight

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.ALinear(self.BLinear(x))

    def to_linear(self) -> nn.Linear:
        """The dense layer of the same product."""
        weight = self.weight
        dense = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            bias=self.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(weight)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


def is_transposed(module: nn.Module) -> bool:
    """Whether the module is GPT-2's Conv1D: y = x W + b with W (in, out)."""
    library = sys.modules.get("transformers.pytorch_utils")
    return library is not None and isinstance(module, library.Conv1D)


def is_linear(module: nn.Module) -> bool:
    """Whether the module is y = W x + b in one of the forms that this package factors."""
    return type(module) is nn.Linear or is_transposed(module)


def matrix(module: nn.Module) -> Float[Tensor, "m n"]:
    """W (out_features, in_features) of a linear module; a view of its parameter, detached."""
    weight = module.get_parameter("weight").detach()
    return weight.T if is_transposed(module) else weight


@torch.no_grad()
def set_matrix(module: nn.Module, W: Float[Tensor, "m n"]) -> None:
    """Writes W into the parameter of a linear module, in the parameter's dtype."""
    module.get_parameter("weight").copy_(W.T if is_transposed(module) else W)


def bias_of(module: nn.Module) -> Float[Tensor, " m"] | None:
    """The bias of a linear module, detached, or None."""
    bias = dict(module.named_parameters(recurse=False)).get("bias")
    return None if bias is None else bias.detach()


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` where `name` was, in the same training mode."""
    module.train(model.get_submodule(name).training)
    model.set_submodule(name, module)


@torch.no_grad()
def factor(model: nn.Module, name: str, A: Tensor, B: Tensor) -> None:
    """Puts A B in the place of a linear layer, with its bias, dtype and trainability."""
    dense = model.get_submodule(name)
    W = matrix(dense)
    layer = LowRankLinear.from_factors(A.to(W.dtype), B.to(W.dtype), bias_of(dense))
    trainable = any(p.requires_grad for p in dense.parameters())
    replace(model, name, layer.requires_grad_(trainable))


def linear_layers(
    model: nn.Module, layers: str | Sequence[str] | None = None, skip: str | Sequence[str] = ()
) -> dict[str, nn.Module]:
    """The linear layers of a model by name, in the model's order.

    Args:
        layers: Shell patterns of full names (`"*.q_proj"`), all of which must match something.
            By default every linear layer but the output embedding, which is tied to the input
            in many models and then would not become smaller.
        skip: Patterns of names to leave out.

    Raises ValueError where nothing is left, or a pattern matches no linear layer.
    """
    found = {name: module for name, module in model.named_modules() if is_linear(module)}
    head = _output_embedding(model)
    if layers is None:
        chosen = {name: module for name, module in found.items() if module is not head}
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in found):
                raise ValueError(
                    f"layers: no linear layer matches {pattern!r}; there is {_some(found)}"
                )
        chosen = {
            name: module
            for name, module in found.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
    without = [skip] if isinstance(skip, str) else list(skip)
    chosen = {
        name: module
        for name, module in chosen.items()
        if not any(fnmatchcase(name, pattern) for pattern in without)
    }
    if not chosen:
        raise ValueError(f"the model must have a linear layer to compress; there is {_some(found)}")
    return chosen


def low_rank_layers(model: nn.Module) -> dict[str, LowRankLinear]:
    """The factored layers of a model by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, LowRankLinear)}


def install(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Puts an empty `LowRankLinear` of the given rank in the place of each named layer.

    Raises ValueError for a name that is no linear layer of the model.
    """
    for name, rank in ranks.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            module = None
        if module is None or not is_linear(module):
            raise ValueError(f"ranks: the model has no linear layer {name!r}")
        W = matrix(module)
        m, n = W.shape
        bias = bias_of(module) is not None
        replace(model, name, LowRankLinear(n, m, rank, bias, W.device, W.dtype))


def merge_to_dense(model: nn.Module) -> nn.Module:
    """Replaces every factored layer by the dense layer of its product, in place.

    The way to programs that know nothing of factors (vLLM, GGUF): same function, same shapes.
    """
    for name, layer in low_rank_layers(model).items():
        replace(model, name, layer.to_linear())
    return model


def _output_embedding(model: nn.Module) -> nn.Module | None:
    getter = getattr(model, "get_output_embeddings", None)
    return getter() if callable(getter) else None


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:4]) + (" …" if len(shown) > 4 else "") if shown else "none"
