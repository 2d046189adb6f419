"""Compressed models of transformers: saved and loaded like any other, without remote code.

`import asvd` registers a quantizer of the method "asvd" with transformers. A compressed model then
carries its ranks in `config.quantization_config`; `save_pretrained` writes safetensors, and
`AutoModelForCausalLM.from_pretrained` builds the factored layers before it loads the weights.

Without the import transformers would warn of an unknown method, build dense layers, and leave them
random where it finds no weight. Two empty tensors in the checkpoint make it raise instead: one has
the name of a dense weight and not its shape, the other's name, which the report before the error
lists, says what to do.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from asvd.layers import install, low_rank_layers

METHOD = "asvd"
FORMAT_VERSION = 1
ADVICE = "import_asvd_before_from_pretrained"


@register_quantization_config(METHOD)
class AsvdConfig(QuantizationConfigMixin):
    """The ranks of the factored layers by name, as they stand in config.json."""

    ranks: dict[str, int]
    version: int

    def __init__(
        self, ranks: Mapping[str, int] | None = None, version: int = FORMAT_VERSION, **_other: Any
    ) -> None:
        # transformers compares the method's name; its own names are an enumeration of strings.
        self.quant_method: Any = METHOD
        self.ranks = {str(name): rank for name, rank in (ranks or {}).items()}
        self.version = version
        self.post_init()

    def post_init(self) -> None:
        """Raises ValueError for ranks that are not numbers, or a later version of the format."""
        if self.version != FORMAT_VERSION:
            raise ValueError(
                f"version of the asvd checkpoint must be {FORMAT_VERSION}, got {self.version}"
            )
        for name, rank in self.ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
                raise ValueError(f"rank of {name!r} must be an integer >= 0, got {rank!r}")


@register_quantizer(METHOD)
class AsvdQuantizer(HfQuantizer):
    """Builds the factored layers of a checkpoint; the compressing itself is `asvd.compress`."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: nn.Module, **_other: Any) -> nn.Module:
        ranks = cast(AsvdConfig, self.quantization_config).ranks
        install(model, ranks)
        known = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
        ours = {f"^{ADVICE}$", *(f"^{re.escape(name)}$" for name in _guards(ranks))}
        setattr(model, "_keys_to_ignore_on_load_unexpected", known | ours)  # noqa: B010
        return model

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[dict[str, Tensor], dict]:
        """The state and the two empty tensors that stop a process without this package."""
        state = dict(model.state_dict())
        names = [ADVICE, *_guards(low_rank_layers(model))]
        return state | {name: torch.empty(0) for name in names}, {}

    def _process_model_after_weight_loading(self, model: nn.Module, **_other: Any) -> nn.Module:
        return model

    def is_serializable(self, *_arguments: Any, **_other: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def _guards(layers: Iterable[str]) -> list[str]:
    """The name of the dense weight of the first factored layer."""
    return [f"{name}.weight" for name in sorted(layers)[:1]]


def annotate(model: nn.Module) -> None:
    """Writes the ranks into the model's configuration, or takes them out where none is left."""
    # At the head of the file it would be asked for while transformers is half imported.
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return
    ranks = {name: layer.rank for name, layer in low_rank_layers(model).items()}
    if not ranks:
        if getattr(model.config, "quantization_config", None) is not None and is_ours(model):
            delattr(model.config, "quantization_config")
            if hasattr(model, "hf_quantizer"):
                delattr(model, "hf_quantizer")
        return
    configuration = AsvdConfig(ranks)
    setattr(model.config, "quantization_config", configuration)  # noqa: B010 - not declared
    # save_pretrained asks the quantizer of a model that has one whether it can be saved.
    setattr(model, "hf_quantizer", AsvdQuantizer(configuration, pre_quantized=True))  # noqa: B010


def is_ours(model: Any) -> bool:
    """Whether the configuration says that this package compressed the model."""
    found = model.config.quantization_config
    method = (
        found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", "")
    )
    return str(method) == METHOD
