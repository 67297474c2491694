"""The built-in backbones' networks: torchvision's ImageNet models, divided into blocks and a head."""

from collections import OrderedDict

from torch import nn

from genre_core.models.blocks import Blocks
from genre_core.models.registry import block_names


def torchvision_model(backbone: str) -> nn.Module:
    """Build the torchvision model of a backbone with random weights, initialized by torchvision."""
    import torchvision  # here, because the import takes seconds and the driver does not need it

    kwargs = {"init_weights": True} if backbone.startswith("vgg") else {}
    model: nn.Module = torchvision.models.get_model(backbone, weights=None, **kwargs)
    return model


def blocks_and_head(backbone: str, model: nn.Module) -> tuple[Blocks, nn.Linear]:
    """Split a torchvision model into its blocks, by name and in order, and its ImageNet head."""
    if backbone.startswith("densenet"):
        blocks, head = _densenet_blocks(model)
    elif backbone.startswith("resnet"):
        blocks, head = _resnet_blocks(model)
    else:
        blocks, head = _plain_blocks(backbone, model)
    assert tuple(blocks) == block_names(backbone)
    assert isinstance(head, nn.Linear)
    return blocks, head


def _plain_blocks(backbone: str, model: nn.Module) -> tuple[Blocks, nn.Module]:
    """AlexNet has a block per convolution, VGG one per pooling stage; both end in two hidden linear layers."""
    features, classifier = (list(model.get_submodule(part).children()) for part in ("features", "classifier"))
    convolutions = (
        _split_before(features, nn.Conv2d) if backbone == "alexnet" else _split_after(features, nn.MaxPool2d)
    )
    convolutions[-1] += [model.get_submodule("avgpool"), nn.Flatten()]
    *hidden, head = classifier
    parts = [nn.Sequential(*part) for part in [*convolutions, hidden[:3], hidden[3:]]]
    return OrderedDict(zip(block_names(backbone), parts, strict=True)), head


def _resnet_blocks(model: nn.Module) -> tuple[Blocks, nn.Module]:
    part = dict(model.named_children())
    blocks: Blocks = OrderedDict(
        stem=nn.Sequential(part["conv1"], part["bn1"], part["relu"], part["maxpool"]),
        layer1=part["layer1"],
        layer2=part["layer2"],
        layer3=part["layer3"],
        layer4=nn.Sequential(part["layer4"], part["avgpool"], nn.Flatten()),
    )
    return blocks, part["fc"]


def _densenet_blocks(model: nn.Module) -> tuple[Blocks, nn.Module]:
    part = dict(model.get_submodule("features").named_children())
    stem = nn.Sequential(part["conv0"], part["norm0"], part["relu0"], part["pool0"])
    dense = {f"block{i}": nn.Sequential(part[f"denseblock{i}"], part[f"transition{i}"]) for i in (1, 2, 3)}
    last = nn.Sequential(part["denseblock4"], part["norm5"], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    blocks: Blocks = OrderedDict(stem=stem, **dense, block4=last)
    return blocks, model.get_submodule("classifier")


def _split_before(layers: list[nn.Module], kind: type[nn.Module]) -> list[list[nn.Module]]:
    parts: list[list[nn.Module]] = []
    for layer in layers:
        if isinstance(layer, kind):
            parts.append([])
        parts[-1].append(layer)
    return parts


def _split_after(layers: list[nn.Module], kind: type[nn.Module]) -> list[list[nn.Module]]:
    parts: list[list[nn.Module]] = [[]]
    for layer in layers:
        parts[-1].append(layer)
        if isinstance(layer, kind):
            parts.append([])
    return parts[:-1]
