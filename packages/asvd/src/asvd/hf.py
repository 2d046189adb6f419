"""Compressed models of transformers: saved and loaded like any other, without remote code.

`import asvd` registers a quantizer of the method "asvd" with transformers. A compressed model then
carries its ranks in `config.quantization_config`; `save_pretrained` writes safetensors, and
`AutoModelForCausalLM.from_pretrained` builds the factored layers before it loads the weights.
"""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from asvd.layers import install, low_rank_layers

METHOD = "asvd"
FORMAT_VERSION = 1


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
        install(model, cast(AsvdConfig, self.quantization_config).ranks)
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **_other: Any) -> nn.Module:
        return model

    def is_serializable(self, *_arguments: Any, **_other: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


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
