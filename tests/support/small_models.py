"""Torchvision's families with fewer and narrower layers: the same blocks and layer types, a hundredth of the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import make_layers

from genre_core.models import block_values, blocks, pretrained
from genre_core.models.registry import BUILTIN

SIZES = ("small", pytest.param("whole", marks=pytest.mark.long))
"""Values of a parameter `size`: small networks by default, torchvision's own in the long form."""
_HIDDEN = 24
"""Units of the hidden linear layers of AlexNet and VGG, instead of 4096."""


class _Narrow(ResNet):  # type: ignore[misc]  # torchvision has no types
    """A ResNet whose four stages have an eighth of the channels."""

    def __init__(self, layers: list[int]) -> None:
        super().__init__(BasicBlock, layers)
        self.fc = nn.Linear(512 // 8, 1000)

    def _make_layer(self, block: Any, planes: int, *shape: Any, **options: Any) -> nn.Sequential:
        layer: nn.Sequential = super()._make_layer(block, planes // 8, *shape, **options)
        return layer


class _Plain(nn.Module):
    """AlexNet or VGG: convolutions, average pooling, two hidden linear layers and the head."""

    def __init__(self, features: nn.Sequential, *, channels: int, pooled: int, dropout_first: bool) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        first, second = nn.Linear(channels * pooled**2, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)
        hidden = [
            [nn.Dropout(), linear, nn.ReLU()] if dropout_first else [linear, nn.ReLU(), nn.Dropout()]
            for linear in (first, second)
        ]
        self.classifier = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(_HIDDEN, 1000))

    def forward(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] -> logits [images, 1000]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


def small_model(backbone: str, *, weights: None = None, **_: bool) -> nn.Module:
    """As torchvision.models.get_model, but small."""
    assert weights is None
    if backbone.startswith("resnet"):
        layers = {"resnet18": [1, 1, 1, 1], "resnet34": [1, 2, 1, 1]}
        model: nn.Module = _Narrow(layers[backbone])
    elif backbone == "densenet121":
        model = DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=8)
    elif backbone == "alexnet":
        model = _Plain(_alexnet_features(), channels=32, pooled=6, dropout_first=True)
    else:
        stages: list[str | int] = [8, "M", 8, "M", 16, "M", 16, 16, "M", 24, 24, "M"]
        features = make_layers(stages, batch_norm=backbone.endswith("_bn"))
        model = _Plain(features, channels=24, pooled=7, dropout_first=False)
    return model


def _alexnet_features() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(16, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(24, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
    )


@contextmanager
def models_of(size: str) -> Iterator[None]:
    """Build `small` networks wherever a torchvision model would be built, or `whole` ones."""
    if size == "whole":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", small_model)
        for name, features in _features().items():
            patch.setitem(BUILTIN, name, replace(BUILTIN[name], features=features))
        _forget_models()
        yield
    _forget_models()


@cache
def _features() -> dict[str, int]:
    """Backbone -> inputs of its small model's head."""
    with torch.device("meta"):
        models = {name: small_model(name) for name in BUILTIN}
    heads = {
        name: [m for m in model.modules() if isinstance(m, nn.Linear)][-1] for name, model in models.items()
    }
    return {name: head.in_features for name, head in heads.items()}


def _forget_models() -> None:
    blocks._pickled_blocks.cache_clear()
    pretrained._head_and_shapes.cache_clear()
    block_values.measured_values.cache_clear()
