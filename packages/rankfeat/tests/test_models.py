"""RankFeat on models of torchvision, timm and transformers: both trunks agree, layers are found."""

import importlib
from typing import Any

import pytest
import torch
import torchvision
from rankfeat import RankFeat
from torch import nn


def vision_transformer():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=7,
    )  # fmt: skip


def swin():
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4],
        num_classes=7,
    )  # fmt: skip


def timm_model(name):
    return lambda: importlib.import_module("timm").create_model(name, num_classes=7)


def hugging_face():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=7,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


# Model, layers, layout and the side of an image.
MODELS: dict[str, tuple[Any, Any, Any, int]] = {
    "torchvision ResNet": (
        lambda: torchvision.models.resnet18(num_classes=7), ["layer3", "layer4"], "auto", 64),
    "torchvision ViT": (
        vision_transformer, ["encoder.layers.encoder_layer_0"], "auto", 32),
    "torchvision Swin": (swin, ["features.1", "features.3"], "nhwc", 32),
    "timm ResNetV2": (timm_model("resnetv2_50d_gn"), ["stages.2", "stages.3"], "auto", 64),
    "timm ViT": (timm_model("vit_tiny_patch16_224"), ["blocks.10"], "auto", 224),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_both_trunks_agree(name):
    make, layers, layout, side = MODELS[name]
    torch.manual_seed(0)
    net = make().eval()
    for parameter in net.parameters():
        # torchvision's ViT begins with a head of zeros.
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 3, side, side)
    shared = RankFeat(net, layers, layout=layout)
    repeated = RankFeat(net, layers, layout=layout, trunk="repeated")
    want = repeated(x)
    torch.testing.assert_close(shared(x), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shared.score(x), want.score.detach(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(want.edited_logits, want.logits, rtol=1e-3, atol=1e-3)


def test_transformers_takes_and_gives_objects():
    torch.manual_seed(0)
    net = hugging_face().eval()
    layers = [name for name, module in net.named_modules() if type(module).__name__ == "ViTLayer"]
    x = torch.randn(2, 3, 32, 32)
    shared = RankFeat(net, layers[:1])
    repeated = RankFeat(net, layers[:1], trunk="repeated")
    want = repeated(pixel_values=x)
    assert want.logits.shape == (2, 7)
    torch.testing.assert_close(shared(pixel_values=x), want, rtol=1e-4, atol=1e-4)
