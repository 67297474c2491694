"""A file of weights, read as tensors and never as code: taken out of checkpoints, without their prefixes."""

import argparse
import pickle
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeGuard

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genre_core.errors import InputError
from genre_core.formats.file_kind import PLACEHOLDER_BYTES, describe_placeholder, describe_placeholder_at
from genre_core.models.backbones import StateDict

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network")
"""Keys under which training scripts, Lightning among them, keep a state dict in a checkpoint."""
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.")
"""Of names: what DataParallel, torch.compile, Lightning and modules around a backbone put before them."""
MAX_WRAPPERS = 3
"""State dicts that are unwrapped from one another; a damaged file may hold itself."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What a file of weights holds."""

    state: StateDict
    unwrapped: tuple[str, ...] = ()
    """Keys that led to the state dict, outermost first."""
    stripped: tuple[str, ...] = ()
    """Prefixes that all names had, outermost first."""

    @property
    def changes(self) -> str:
        """What was done to the file's content, in words; empty where nothing was."""
        keys = [f"found under {' and '.join(map(repr, self.unwrapped))}"] if self.unwrapped else []
        prefix = "".join(self.stripped)
        names = [f"read without the prefix {prefix!r}"] if prefix else []
        return " and ".join(keys + names)


def read_weights(source: Path | bytes) -> WeightsFile:
    """Read a PyTorch state dict or checkpoint, or a safetensors file.

    Args:
        source: the file, or its content.

    Raises:
        InputError: it cannot be read as tensors.
    """
    name = str(source) if isinstance(source, Path) else "the file that was sent to this node"
    try:
        loaded = _load_path(source) if isinstance(source, Path) else _load_content(source)
    except Exception as error:  # the unpickler raises whatever damaged bytes lead it to
        raise InputError(
            f"weights must be a state dict of tensors, but {name} cannot be read: {_why(error)}"
        ) from error
    found, unwrapped = _unwrap(loaded)
    if not _is_state_dict(found):
        raise InputError(
            f"weights must be a state dict of tensors, but {name} holds something else; "
            "save model.state_dict() in it"
        )
    state, stripped = _strip(found)
    return WeightsFile(state=state, unwrapped=unwrapped, stripped=stripped)


def _load_path(path: Path) -> object:
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")  # a pipe would be waited for
    if path.is_file() and (instead := describe_placeholder_at(path)):
        raise OSError(instead)
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_content(content: bytes) -> object:
    if instead := describe_placeholder(content[:PLACEHOLDER_BYTES]):
        raise OSError(instead)
    if content[8:9] == b"{":  # after the header's length comes the header, in JSON
        return safetensors.torch.load(content)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _unwrap(loaded: object) -> tuple[object, tuple[str, ...]]:
    """The state dict in a checkpoint, and the keys that led to it."""
    keys: list[str] = []
    while isinstance(loaded, dict) and not _is_state_dict(loaded) and len(keys) < MAX_WRAPPERS:
        held = [key for key in WRAPPERS if isinstance(loaded.get(key), dict)]
        if not held:
            break
        keys.append(held[0])
        loaded = loaded[held[0]]
    return loaded, tuple(keys)


def _is_state_dict(loaded: object) -> TypeGuard[StateDict]:
    return isinstance(loaded, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    )


def _strip(state: StateDict) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict without the prefixes that all of its names have, and these."""
    stripped: list[str] = []
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        stripped.append(prefix)
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, tuple(stripped)


def _why(error: Exception) -> str:
    """In one line; torch's own advice is to run the code that it has refused to run."""
    if isinstance(error, pickle.UnpicklingError):
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        kind = f" ({refused[1]})" if refused else ""
        return f"it holds more than tensors{kind}, which may be code, or is damaged; save model.state_dict() alone"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
