"""A backbone's published weights: fetched, read as tensors and never as code, and checked against its layers."""

import pickle
import re
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genre_core.backbones import StateDict, blocks_and_head, torchvision_model
from genre_core.errors import InputError


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
        model = torchvision_model(backbone)
    missing = {model.get_submodule(layer) for layer in _fit(model, backbone, weights)[1]}
    blocks, _ = blocks_and_head(backbone, model)
    return tuple(name for name, block in blocks.items() if missing & set(block.modules()))


def load_weights(model: nn.Module, backbone: str, weights: str) -> None:
    """Copy weights into a torchvision model; see `build`."""
    if weights != "random":
        model.load_state_dict(_fit(model, backbone, weights)[0], strict=False)


def _fit(model: nn.Module, backbone: str, weights: str) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict to load into a torchvision model, and the layers that it lacks as a whole."""
    given = imagenet_weights(backbone) if weights == "imagenet" else _read(Path(weights))
    _, head = blocks_and_head(backbone, model)
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
        if expected[key].is_floating_point() and not _finite(value):
            raise InputError(f"{what} must be finite numbers, but those of {key} are not; save them anew")
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
    import torchvision  # see torchvision_model

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
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # a pipe would be waited for
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        raise InputError(
            f"weights must be a state dict of tensors, but {path} cannot be read: {_why(error)}"
        ) from error
    tensors = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    if not (tensors and all(isinstance(key, str) for key in state)):
        raise InputError(f"weights must be a state dict of tensors, but {path} holds something else")
    return state


def _why(error: Exception) -> str:
    """In one line; torch's own advice is to run the code that it has refused to run."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, which may be code, or is damaged"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


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
