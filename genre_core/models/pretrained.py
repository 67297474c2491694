"""A backbone's published weights: fetched, and checked against its layers and blocks."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from genre_core.errors import InputError
from genre_core.models.backbones import StateDict, blocks_and_head, torchvision_model
from genre_core.models.registry import BLOCKS
from genre_core.models.weights_file import WeightsFile, read_weights

Weights = str | bytes
"""`random`, `imagenet`, the path of a file, or a file's content."""


@dataclass(frozen=True, kw_only=True)
class CheckedWeights:
    """What weights that fit a backbone come to."""

    random_blocks: tuple[str, ...] = ()
    """Blocks that stay random, because the weights lack all of their layers."""
    changes: str = ""
    """What was done to the file's content to read it, in words; empty where nothing was."""


def check_weights(backbone: str, weights: str) -> CheckedWeights:
    """Fetch and check a backbone's weights before anything is spent on them.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if weights == "random":
        return CheckedWeights()
    found = _read(backbone, weights)
    with torch.device("meta"):
        model = torchvision_model(backbone)
    _, random_blocks = _fit(model, backbone, found.state, weights)
    return CheckedWeights(random_blocks=random_blocks, changes=found.changes)


def load_weights(model: nn.Module, backbone: str, weights: Weights) -> None:
    """Copy weights into a torchvision model; see `build`."""
    if weights != "random":
        name = "the file that was sent to this node" if isinstance(weights, bytes) else weights
        given, _ = _fit(model, backbone, _read(backbone, weights).state, name)
        model.load_state_dict(given, strict=False)


def _read(backbone: str, weights: Weights) -> WeightsFile:
    if weights == "imagenet":
        return WeightsFile(state=imagenet_weights(backbone))
    return read_weights(Path(weights) if isinstance(weights, str) else weights)


def _fit(model: nn.Module, backbone: str, given: StateDict, name: str) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict to load into a torchvision model, and the blocks that it lacks as a whole."""
    expected = _without_head(backbone, model, model.state_dict())
    given = _without_head(backbone, model, {_modern_key(key): value for key, value in given.items()})
    blocks, _ = blocks_and_head(backbone, model)
    modules = {name: set(block.modules()) for name, block in blocks.items()}
    absent = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    layers = {block: _layers_of(model, expected, inside) for block, inside in modules.items()}
    lacking = {block: [key for key in absent if _layer(key) in own] for block, own in layers.items()}
    problem, way_out = _misfit(expected, given, absent) or _half_block(given, lacking, layers) or ("", "")
    if problem:
        raise InputError(
            f"weights of {backbone} in {name} must {problem}; {_better(backbone, given, name) or way_out}"
        )
    return given, tuple(block for block, keys in lacking.items() if keys)


def _misfit(expected: StateDict, given: StateDict, absent: list[str]) -> tuple[str, str] | None:
    """What is wrong with some tensors, and the way out."""
    if unexpected := sorted(given.keys() - expected.keys()):
        return f"have torchvision's names, but hold {_some(unexpected)}", "rename them"
    for key, value in given.items():
        if value.shape != expected[key].shape:
            shapes = f"{key} of shape {list(value.shape)}, not {list(expected[key].shape)}"
            return f"have torchvision's shapes, but hold {shapes}", "give those of this backbone"
        if expected[key].is_floating_point() and not _finite(value):
            return f"be finite numbers, but those of {key} are not", "save them anew"
    layers_given = {_layer(key) for key in given}
    if half := [key for key in absent if _layer(key) in layers_given]:
        return f"hold a layer whole or not at all, but lack {_some(half)}", "save them anew"
    if not given:
        return "hold at least one layer, but hold none", "give a state dict of this backbone"
    return None


def _half_block(
    given: StateDict, lacking: dict[str, list[str]], layers: dict[str, set[str]]
) -> tuple[str, str] | None:
    """The first block that is only partly there, and the way out."""
    layers_given = {_layer(key) for key in given}
    for block, keys in lacking.items():
        if keys and layers[block] & layers_given:
            problem = f"hold a block whole or not at all, but of {block} they lack {_some(keys)}"
            return problem, "add these, or leave the block out"
    return None


def _better(backbone: str, given: StateDict, name: str) -> str | None:
    """The way out where the tensors fit another backbone better."""
    fits = {other: _likeness(other, given) for other in BLOCKS}
    best = max(fits, key=lambda other: fits[other])
    if fits[best] <= fits[backbone]:
        return None
    setting = shlex.quote(f"weights.{best}={name}")
    return f"they fit {best}: give --set {setting}, and to {backbone} a file of its own"


def _likeness(backbone: str, given: StateDict) -> float:
    """Tensors of the same name and shape, as a share of all that either side has."""
    head, expected = _head_and_shapes(backbone)
    held = {key: tuple(value.shape) for key, value in given.items() if not key.startswith(head)}
    return len(expected.items() & held.items()) / len(expected.keys() | held.keys())


@cache
def _head_and_shapes(backbone: str) -> tuple[str, dict[str, tuple[int, ...]]]:
    """How names of the head begin, and the shapes of all other tensors."""
    with torch.device("meta"):
        model = torchvision_model(backbone)
    head = _head_prefix(backbone, model)
    return head, {key: tuple(t.shape) for key, t in model.state_dict().items() if not key.startswith(head)}


def _without_head(backbone: str, model: nn.Module, state: StateDict) -> StateDict:
    head = _head_prefix(backbone, model)
    return {key: value for key, value in state.items() if not key.startswith(head)}


def _head_prefix(backbone: str, model: nn.Module) -> str:
    _, head = blocks_and_head(backbone, model)
    name: str = next(name for name, module in model.named_modules() if module is head)
    return f"{name}."


def _layers_of(model: nn.Module, expected: StateDict, inside: set[nn.Module]) -> set[str]:
    """Names of the layers with tensors that are among these modules."""
    return {layer for layer in map(_layer, expected) if model.get_submodule(layer) in inside}


def weights_path(backbone: str, weights: str) -> Path | None:
    """Where a backbone's weights are on this machine, if they are; None where they are random."""
    if weights == "random":
        return None
    return imagenet_file(backbone) if weights == "imagenet" else Path(weights)


def imagenet_file(backbone: str) -> Path:
    """Where torchvision keeps a backbone's ImageNet weights on this machine, if it has them."""
    import torchvision  # see torchvision_model

    url: str = torchvision.models.get_model_weights(backbone).DEFAULT.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def imagenet_weights(backbone: str) -> StateDict:
    """Torchvision's ImageNet weights, from its cache or downloaded into it with a progress bar.

    Raises:
        InputError: they are not in the cache and cannot be downloaded.
    """
    import torchvision  # see torchvision_model

    if (file := imagenet_file(backbone)).is_file():
        return read_weights(file).state
    enum = torchvision.models.get_model_weights(backbone).DEFAULT
    try:
        state: StateDict = enum.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"ImageNet weights of {backbone} could not be downloaded ({error}); put {file.name} into "
            f"{file.parent}, or give --set weights.{backbone}=PATH or --set weights=random"
        ) from error
    return state


def _finite(value: Tensor) -> bool:
    """Whether these are numbers, all there and finite."""
    dense = value.layout == torch.strided and not value.is_meta and value.is_floating_point()
    return dense and bool(value.float().isfinite().all())


def _modern_key(key: str) -> str:
    """DenseNet's published files still say `norm.1.weight` where the module is called `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
