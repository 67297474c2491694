"""Pretrained weights of a backbone: downloaded or read from a file, and checked against its layers and blocks."""

import re
import shlex
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from genre_core.errors import ErrorCode, InputError
from genre_core.models.block_profile import block_profiles
from genre_core.models.blocks import StateDict, blocks_of, model_without_weights
from genre_core.models.registry import BUILTIN, find_backbone, is_own
from genre_core.models.weights_file import WeightsFile, read_weights, source_name

Weights = str | bytes
"""`random`, `imagenet` for the backbone's published weights, the path of a weights file, or a file's content."""


@dataclass(frozen=True, kw_only=True)
class CheckedWeights:
    """How weights that fit a backbone are used."""

    random_blocks: tuple[str, ...] = ()
    """Blocks that are initialized randomly, because the weights contain none of their layers."""
    changes: str = ""
    """How the file's content was converted, in words; empty if it was used as it is."""


def check_weights(backbone: str, weights: str) -> CheckedWeights:
    """Download or read a backbone's weights and check them, before any other work is done.

    Raises:
        InputError: the weights are not available or do not fit, or the backbone itself cannot be used.
    """
    if is_own(backbone):
        block_profiles(backbone)
    if weights == "random":
        return CheckedWeights()
    found = _read(backbone, weights)
    _, random_blocks = _fit(model_without_weights(backbone), backbone, found.state, weights)
    return CheckedWeights(random_blocks=random_blocks, changes=found.changes)


def load_weights(model: nn.Module, backbone: str, weights: Weights) -> None:
    """Copy weights into a backbone's whole network; see `build`.

    Raises:
        InputError: the weights are not available or do not fit.
    """
    if weights != "random":
        name = source_name(weights) if isinstance(weights, bytes) else weights
        given, _ = _fit(model, backbone, _read(backbone, weights).state, name)
        model.load_state_dict(given, strict=False)


def _read(backbone: str, weights: Weights) -> WeightsFile:
    if weights == "imagenet":
        return WeightsFile(state=imagenet_weights(backbone))
    return read_weights(Path(weights) if isinstance(weights, str) else weights)


@dataclass(frozen=True, kw_only=True)
class _Misfit:
    """Why tensors do not fit a backbone."""

    rule: str
    """What the weights must be, and what they are instead."""
    way_out: str
    code: ErrorCode


def _fit(model: nn.Module, backbone: str, given: StateDict, name: str) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict to load into a network, and the blocks that it lacks entirely."""
    modules = {block: set(layers.modules()) for block, layers in blocks_of(backbone, model).items()}
    inside = set[nn.Module]().union(*modules.values())
    expected = _of_blocks(model, inside, model.state_dict())
    given = _of_blocks(model, inside, {_modern_key(key): value for key, value in given.items()})
    absent = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    layers = {block: _layers_of(model, expected, own) for block, own in modules.items()}
    lacking = {block: [key for key in absent if _layer(key) in own] for block, own in layers.items()}
    if misfit := _tensor_misfit(expected, given, absent) or _block_misfit(given, lacking, layers):
        misfit = _other_backbone(misfit, backbone, given, name)
        raise InputError(
            f"weights of {backbone} in {name} must {misfit.rule}; {misfit.way_out}", code=misfit.code
        )
    return given, tuple(block for block, keys in lacking.items() if keys)


def _tensor_misfit(expected: StateDict, given: StateDict, absent: list[str]) -> _Misfit | None:
    """The first tensor that does not fit by itself."""
    if unexpected := sorted(given.keys() - expected.keys()):
        return _Misfit(
            rule=f"have the network's parameter names, but contain {_listed(unexpected)}",
            way_out="rename or remove them",
            code=ErrorCode.WEIGHTS_UNKNOWN_NAMES,
        )
    for key, value in given.items():
        if value.shape != expected[key].shape:
            shapes = f"{key} of shape {list(value.shape)}, not {list(expected[key].shape)}"
            return _Misfit(
                rule=f"have the network's shapes, but contain {shapes}",
                way_out="give weights of this backbone",
                code=ErrorCode.WEIGHTS_WRONG_SHAPE,
            )
        if expected[key].is_floating_point() and not _finite(value):
            return _Misfit(
                rule=f"be finite numbers, but those of {key} are not",
                way_out="save them again",
                code=ErrorCode.WEIGHTS_NOT_FINITE,
            )
    layers_given = {_layer(key) for key in given}
    if partial := [key for key in absent if _layer(key) in layers_given]:
        return _Misfit(
            rule=f"contain all of a layer or nothing of it, but lack {_listed(partial)}",
            way_out="save them again",
            code=ErrorCode.WEIGHTS_PARTIAL_LAYER,
        )
    if not given:
        return _Misfit(
            rule="contain at least one layer, but contain none",
            way_out="give a state dict of this backbone",
            code=ErrorCode.WEIGHTS_EMPTY,
        )
    return None


def _block_misfit(
    given: StateDict, lacking: dict[str, list[str]], layers: dict[str, set[str]]
) -> _Misfit | None:
    """The first block of which only some layers are given."""
    layers_given = {_layer(key) for key in given}
    for block, keys in lacking.items():
        if keys and layers[block] & layers_given:
            return _Misfit(
                rule=f"contain all of a block or nothing of it, but of {block} they lack {_listed(keys)}",
                way_out="add these or leave the block out",
                code=ErrorCode.WEIGHTS_PARTIAL_BLOCK,
            )
    return None


def _other_backbone(misfit: _Misfit, backbone: str, given: StateDict, name: str) -> _Misfit:
    """The misfit, with a better explanation if the tensors fit another backbone better."""
    fits = {other: _similarity(other, given) for other in (backbone, *BUILTIN)}
    best = max(fits, key=lambda other: fits[other])
    if fits[best] <= fits[backbone]:
        return misfit
    setting = shlex.quote(f"weights.{best}={name}")
    way_out = f"they fit {best}: give --set {setting}, and {backbone} a file of its own"
    return replace(misfit, way_out=way_out, code=ErrorCode.WEIGHTS_OF_ANOTHER_BACKBONE)


def _similarity(backbone: str, given: StateDict) -> float:
    """Tensors with the same name and shape, as a fraction of all tensors on either side."""
    outside, expected = _head_and_shapes(backbone)
    shapes = {key: tuple(value.shape) for key, value in given.items() if not key.startswith(outside)}
    return len(expected.items() & shapes.items()) / len(expected.keys() | shapes.keys())


@cache
def _head_and_shapes(backbone: str) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The prefixes of the tensors outside the blocks, and the shapes of all other tensors."""
    model = model_without_weights(backbone)
    inside = {module for block in blocks_of(backbone, model).values() for module in block.modules()}
    expected = _of_blocks(model, inside, model.state_dict())
    return _outside(model, inside), {key: tuple(tensor.shape) for key, tensor in expected.items()}


def _of_blocks(model: nn.Module, inside: set[nn.Module], state: StateDict) -> StateDict:
    """The state dict without the tensors that belong to no block: those of the network's own head.

    Args:
        model: the whole network.
        inside: all modules of its blocks.
        state: with the network's names.
    """
    outside = _outside(model, inside)
    own = {key for key in model.state_dict() if model.get_submodule(_layer(key)) not in inside}
    return {key: value for key, value in state.items() if key not in own and not key.startswith(outside)}


def _outside(model: nn.Module, inside: set[nn.Module]) -> tuple[str, ...]:
    """Prefixes of the tensors' names in all modules outside the blocks."""
    modules = (name for name, module in model.named_modules() if name and inside.isdisjoint(module.modules()))
    return tuple(f"{name}." for name in modules)


def _layers_of(model: nn.Module, expected: StateDict, inside: set[nn.Module]) -> set[str]:
    """Names of the layers with tensors that are among these modules."""
    return {layer for layer in map(_layer, expected) if model.get_submodule(layer) in inside}


def weights_path(backbone: str, weights: str) -> Path | None:
    """The path of a backbone's weights on this machine, whether or not it exists; None for random ones."""
    if weights == "random":
        return None
    return imagenet_file(backbone) if weights == "imagenet" else Path(weights)


def imagenet_file(backbone: str) -> Path:
    """The path of a backbone's published weights in torch.hub's cache, whether or not it exists.

    Raises:
        InputError: the backbone has no published weights.
    """
    if not (name := find_backbone(backbone).file_name):
        raise InputError(
            f"weights of {backbone} must be a file or random, since it has no published ones, but got "
            f"weights=pretrained; give --set weights.{backbone}=PATH or --set weights=random",
            code=ErrorCode.WEIGHTS_NOT_PUBLISHED,
        )
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def imagenet_weights(backbone: str) -> StateDict:
    """A backbone's published weights, from torch.hub's cache or downloaded to it with a progress bar.

    Raises:
        InputError: they are not cached and cannot be downloaded, or the backbone has none.
    """
    own, file = find_backbone(backbone), imagenet_file(backbone)
    if not file.is_file():
        assert own.url, "imagenet_file has checked it"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(own.url, str(file), own.hash_prefix, progress=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{'' if is_own(backbone) else 'ImageNet '}weights of {backbone} could not be downloaded ({error}); "
                f"put {file.name} into {file.parent}, or give --set weights.{backbone}=PATH or --set weights=random",
                code=ErrorCode.WEIGHTS_NOT_DOWNLOADED,
            ) from error
    return read_weights(file).state


def _finite(value: Tensor) -> bool:
    """Whether a tensor is dense, of a floating-point type and finite."""
    dense = value.layout == torch.strided and not value.is_meta and value.is_floating_point()
    return dense and bool(value.float().isfinite().all())


def _modern_key(key: str) -> str:
    """DenseNet's published files have `norm.1.weight` where the module is now called `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
