"""Five ImageNet families as an ordered list of blocks: their weights, a new head, the cut at a frozen depth."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from genre_core.errors import InputError
from genre_core.families import block_names

CHUNK = {"cpu": 16, "cuda": 256}
"""Segments that go through the frozen blocks at a time, by device: as few as keep it busy."""

StateDict = Mapping[str, Tensor]


class ToImage(nn.Module):
    """Log-mel segments in dB -> what an ImageNet net expects: three channels of zero mean and unit variance."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """Args: mean and std of the training segments, dB, [channels] with one or three channels."""
        super().__init__()
        self.register_buffer("mean", mean.float().reshape(-1, 1, 1))
        self.register_buffer("std", std.float().reshape(-1, 1, 1))

    def forward(self, mels: Tensor) -> Tensor:
        """[segments, channels, mels, frames] in dB -> float32 [segments, 3, mels, frames]."""
        return ((mels.float() - self.mean) / self.std).expand(-1, 3, -1, -1)


class Frozen(nn.Sequential):
    """Blocks that never change: no gradient, and always in eval mode, whatever `train()` is called."""

    def __init__(self, blocks: "OrderedDict[str, nn.Module]") -> None:
        super().__init__(blocks)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode: running statistics do not move, dropout stays off."""
        return super().train(False)


class Network(nn.Module):
    """A backbone cut in two: `image` and `frozen` are constants, `trained` ends in the head."""

    def __init__(
        self, *, image: ToImage, blocks: "OrderedDict[str, nn.Module]", head: nn.Linear, cut: int
    ) -> None:
        """Args: the blocks in order, the head, and how many leading blocks are frozen."""
        super().__init__()
        named = list(blocks.items())
        self.image = image
        self.frozen = Frozen(OrderedDict(named[:cut]))
        self.trained = nn.Sequential(OrderedDict([*named[cut:], ("head", head)]))

    @torch.no_grad()
    def to_cut(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> activations at the cut.

        A segment's activations are the same to the bit whichever others it comes with: the frozen blocks
        see one fixed number of segments at a time, for kernels differ by the size of their batch.
        """
        if not len(self.frozen):
            return self.image(mels)  # type: ignore[no-any-return]
        size = CHUNK[mels.device.type]
        activations: Tensor | None = None
        for first in range(0, len(mels), size):
            chunk = mels[first : first + size]
            padded = torch.cat([chunk, chunk[:1].expand(size - len(chunk), *chunk.shape[1:])])
            through = self.frozen(self.image(padded))[: len(chunk)]
            if activations is None:
                activations = through.new_empty(len(mels), *through.shape[1:])
            activations[first : first + size] = through
        assert activations is not None, "there is at least one segment"
        return activations

    @torch.no_grad()
    def bytes_at_cut(self, one: Tensor) -> int:
        """Size of a segment's activations at the cut, from one segment [1, channels, mels, frames]."""
        activations: Tensor = self.frozen(self.image(one))
        return activations.numel() * activations.element_size()

    def forward(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> logits [segments, genres]."""
        logits: Tensor = self.trained(self.to_cut(mels))
        return logits

    def flat_state(self) -> StateDict:
        """All tensors by `block.layer...` name: the same names wherever the network was cut."""
        parts = self.frozen.state_dict() | self.trained.state_dict()
        return {"image.mean": self.image.mean, "image.std": self.image.std, **parts}

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.trained.parameters())


def build(
    backbone: str, *, weights: str, n_genres: int, frozen_blocks: int, image: ToImage, seed: int
) -> Network:
    """A network ready to be fine-tuned.

    Args:
        backbone: a name in `families.BLOCKS`.
        weights: `imagenet`, `random`, or the path of a state dict.
        n_genres: outputs of the new head.
        frozen_blocks: leading blocks to freeze.
        image: the front of the network, with the training segments' statistics.
        seed: of the head and of every other layer that no weights are loaded into.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _torchvision_model(backbone)
        blocks, old_head = _blocks(backbone, model)
        head = nn.Linear(old_head.in_features, n_genres)
    load_weights(model, backbone, weights)
    return Network(image=image, blocks=blocks, head=head, cut=frozen_blocks)


def check_weights(backbone: str, weights: str) -> tuple[str, ...]:
    """Fetch and check a backbone's weights before anything is spent on them.

    Returns:
        The blocks that stay random, wholly or in part, because the weights lack their layers.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if weights == "random":
        return ()
    with torch.device("meta"):
        model = _torchvision_model(backbone)
    missing = {model.get_submodule(layer) for layer in _fit(model, backbone, weights)[1]}
    blocks, _ = _blocks(backbone, model)
    return tuple(name for name, block in blocks.items() if missing & set(block.modules()))


def load_weights(model: nn.Module, backbone: str, weights: str) -> None:
    """Copy weights into a torchvision model; see `build`."""
    if weights != "random":
        model.load_state_dict(_fit(model, backbone, weights)[0], strict=False)


def _torchvision_model(backbone: str) -> nn.Module:
    kwargs = {"init_weights": True} if backbone.startswith("vgg") else {}
    model: nn.Module = torchvision.models.get_model(backbone, weights=None, **kwargs)
    return model


def _blocks(backbone: str, model: nn.Module) -> tuple["OrderedDict[str, nn.Module]", nn.Linear]:
    """The blocks of a torchvision model by name, in order, and its ImageNet head."""
    if backbone.startswith("densenet"):
        blocks, head = _densenet_blocks(model)
    elif backbone.startswith("resnet"):
        blocks, head = _resnet_blocks(model)
    else:
        blocks, head = _plain_blocks(backbone, model)
    assert tuple(blocks) == block_names(backbone)
    assert isinstance(head, nn.Linear)
    return blocks, head


def _plain_blocks(backbone: str, model: nn.Module) -> tuple["OrderedDict[str, nn.Module]", nn.Module]:
    """AlexNet is cut after each convolution, VGG after each pooling; both have two hidden linear layers."""
    features, classifier = (list(model.get_submodule(part).children()) for part in ("features", "classifier"))
    convolutions = (
        _split_before(features, nn.Conv2d) if backbone == "alexnet" else _split_after(features, nn.MaxPool2d)
    )
    convolutions[-1] += [model.get_submodule("avgpool"), nn.Flatten()]
    *hidden, head = classifier
    parts = [nn.Sequential(*part) for part in [*convolutions, hidden[:3], hidden[3:]]]
    return OrderedDict(zip(block_names(backbone), parts, strict=True)), head


def _resnet_blocks(model: nn.Module) -> tuple["OrderedDict[str, nn.Module]", nn.Module]:
    part = dict(model.named_children())
    blocks: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(part["conv1"], part["bn1"], part["relu"], part["maxpool"]),
        layer1=part["layer1"],
        layer2=part["layer2"],
        layer3=part["layer3"],
        layer4=nn.Sequential(part["layer4"], part["avgpool"], nn.Flatten()),
    )
    return blocks, part["fc"]


def _densenet_blocks(model: nn.Module) -> tuple["OrderedDict[str, nn.Module]", nn.Module]:
    part = dict(model.get_submodule("features").named_children())
    stem = nn.Sequential(part["conv0"], part["norm0"], part["relu0"], part["pool0"])
    dense = {f"block{i}": nn.Sequential(part[f"denseblock{i}"], part[f"transition{i}"]) for i in (1, 2, 3)}
    last = nn.Sequential(part["denseblock4"], part["norm5"], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    blocks: OrderedDict[str, nn.Module] = OrderedDict(stem=stem, **dense, block4=last)
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


def _fit(model: nn.Module, backbone: str, weights: str) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict to load into a torchvision model, and the layers that it lacks as a whole."""
    given = imagenet_weights(backbone) if weights == "imagenet" else _read(Path(weights))
    _, head = _blocks(backbone, model)
    head_name = next(name for name, module in model.named_modules() if module is head)
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith(f"{head_name}.")}
    given = {_modern_key(k): v for k, v in given.items() if not k.startswith(f"{head_name}.")}
    return given, _missing_layers(expected, given, f"weights of {backbone} in {weights}")


def _missing_layers(expected: StateDict, given: StateDict, what: str) -> tuple[str, ...]:
    if unexpected := sorted(given.keys() - expected.keys()):
        raise InputError(f"{what} must have torchvision's names, but hold {_some(unexpected)}; rename them")
    for key, value in given.items():
        if value.shape != expected[key].shape:
            shapes = f"{key} of shape {list(value.shape)}, not {list(expected[key].shape)}"
            raise InputError(f"{what} must have torchvision's shapes, but hold {shapes}")
    absent = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
    layers_given = {_layer(k) for k in given}
    if half := [k for k in absent if _layer(k) in layers_given]:
        raise InputError(f"{what} must hold a layer whole or not at all, but lack {_some(half)}")
    if not given:
        raise InputError(f"{what} must hold at least one layer, but hold none")
    return tuple(dict.fromkeys(_layer(k) for k in absent))


def imagenet_weights(backbone: str) -> StateDict:
    """Torchvision's ImageNet weights, from its cache or downloaded into it with a progress bar.

    Raises:
        InputError: they are not in the cache and cannot be downloaded.
    """
    enum = torchvision.models.get_model_weights(backbone).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = enum.url.rsplit("/", 1)[-1]
    try:
        state: StateDict = enum.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"ImageNet weights of {backbone} could not be downloaded ({error}); put {file} into {folder}, "
            f"or give --set weights.{backbone}=PATH or --set weights=random"
        ) from error
    return state


def _read(path: Path) -> StateDict:
    """Tensors by name from a safetensors file or a PyTorch state dict; never runs code from the file."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights must be a state dict of tensors, but {path} cannot be read: {reason}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"weights must be a state dict of tensors, but {path} holds something else")
    return state


def _modern_key(key: str) -> str:
    """DenseNet's published files still say `norm.1.weight` where the module is called `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
