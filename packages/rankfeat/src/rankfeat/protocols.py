"""The paper's architectures: model, preprocessing and layers, for folders and weights of one's own.

All images are resized directly, with mean and standard deviation 0.5, also for weights that were
trained otherwise: the paper's figures are of that. Layers are those of torchvision and timm.
"""

from dataclasses import dataclass

from rankfeat.scores import MSP, Energy, Score


@dataclass(frozen=True)
class Protocol:
    """One row of the paper's table of architectures."""

    model: str | None
    """As `rankfeat.sources.load_model` takes it; None where neither library has the model."""
    size: int
    layers: tuple[str, ...]
    """Of RankFeat, fused."""
    rank_weight: tuple[str, ...]
    with_rank_weight: tuple[str, ...]
    """Layers of RankFeat together with RankWeight."""
    score: Score = Energy()  # noqa: RUF009 - frozen
    effective: bool = False
    """Whether the layers standardise their weights when they run."""


PROTOCOLS: dict[str, Protocol] = {
    "bit": Protocol(
        "timm:resnetv2_101x1_bit.goog_in21k_ft_in1k",
        480,
        ("stages.2", "stages.3"),
        ("stages.3.blocks.2.conv3", "stages.3.blocks.2.conv2"),
        ("stages.3",),
        effective=True,
    ),
    "squeezenet": Protocol(
        "torchvision:squeezenet1_0",
        480,
        ("features.10", "features"),
        ("classifier.1",),
        ("features",),
    ),
    "vit": Protocol(
        "torchvision:vit_b_16",
        224,
        ("encoder.layers.encoder_layer_10",),
        ("encoder.layers.encoder_layer_10.mlp.3",),
        ("encoder.layers.encoder_layer_10",),
    ),
    "swin": Protocol(
        "torchvision:swin_b",
        224,
        ("features.5",),
        ("features.5.17.mlp.3",),
        ("features.5",),
        MSP(),
    ),
    # The model of the T2T-ViT repository, t2t_vit_t_24: name it as MODULE:FUNCTION.
    "t2t": Protocol(None, 384, ("blocks.23",), ("blocks.23.mlp.fc2",), ("blocks.23",)),
}
"""BiT-S ResNetv2-101x1, SqueezeNet 1.0, ViT-B/16, Swin-B and T2T-ViT-24."""
