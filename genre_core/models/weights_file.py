"""Weights files, read as tensors and never executed; checkpoints are unwrapped and name prefixes removed."""

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

from genre_core.errors import ErrorCode, InputError
from genre_core.formats.file_kind import PLACEHOLDER_BYTES, describe_placeholder, describe_placeholder_at
from genre_core.models.blocks import StateDict

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network")
"""Keys under which training scripts and Lightning store the state dict in a checkpoint."""
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.")
"""Name prefixes added by DataParallel, torch.compile, Lightning and modules that wrap a backbone."""
MAX_WRAPPERS = 3
"""Levels of nesting to unwrap; a damaged file may contain itself."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The content of a weights file."""

    state: StateDict
    unwrapped: tuple[str, ...] = ()
    """Keys of the checkpoint that led to the state dict, outermost first."""
    stripped: tuple[str, ...] = ()
    """Prefixes removed from all names, outermost first."""

    @property
    def changes(self) -> str:
        """How the content was converted, in words; empty if it was used as it is."""
        keys = [f"found under {' and '.join(map(repr, self.unwrapped))}"] if self.unwrapped else []
        prefix = "".join(self.stripped)
        names = [f"read without the prefix {prefix!r}"] if prefix else []
        return " and ".join(keys + names)


def read_weights(source: Path | bytes) -> WeightsFile:
    """Read a PyTorch state dict or checkpoint, or a safetensors file.

    Args:
        source: the file, or its content.

    Raises:
        InputError: it cannot be read, or holds anything but tensors.
    """
    name = source_name(source)
    try:
        loaded = _load_path(source, name) if isinstance(source, Path) else _load_content(source, name)
    except InputError:
        raise
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        raise _unreadable(name, *_reason(error)) from error
    found, unwrapped = _unwrap(loaded)
    if not _is_state_dict(found):
        raise InputError(
            f"weights must be a state dict of tensors, but {name} contains something else; "
            "save model.state_dict() to it",
            code=ErrorCode.WEIGHTS_NOT_A_STATE_DICT,
        )
    state, stripped = _strip(found)
    return WeightsFile(state=state, unwrapped=unwrapped, stripped=stripped)


def source_name(source: Path | bytes) -> str:
    """The name of a weights file in messages, given its path or its content."""
    return str(source) if isinstance(source, Path) else "the file sent to this node"


def _load_path(path: Path, name: str) -> object:
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise _unreadable(name, "it is not a regular file", ErrorCode.WEIGHTS_NOT_A_FILE)
    if path.is_file() and (instead := describe_placeholder_at(path)):
        raise _unreadable(name, instead, ErrorCode.WEIGHTS_PLACEHOLDER)
    return safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _torch_load(path)


def _load_content(content: bytes, name: str) -> object:
    if instead := describe_placeholder(content[:PLACEHOLDER_BYTES]):
        raise _unreadable(name, instead, ErrorCode.WEIGHTS_PLACEHOLDER)
    is_safetensors = content[8:9] == b"{"  # its JSON header follows the header's length, 8 bytes
    return safetensors.torch.load(content) if is_safetensors else _torch_load(BytesIO(content))


def _torch_load(file: Path | BytesIO) -> object:
    with torch.serialization.safe_globals([argparse.Namespace]):  # torchvision's checkpoints have `args`
        return torch.load(file, map_location="cpu", weights_only=True)


def _unwrap(loaded: object) -> tuple[object, tuple[str, ...]]:
    """The state dict in a checkpoint, and the keys that led to it."""
    keys: list[str] = []
    while isinstance(loaded, dict) and not _is_state_dict(loaded) and len(keys) < MAX_WRAPPERS:
        present = [key for key in WRAPPERS if isinstance(loaded.get(key), dict)]
        if not present:
            break
        keys.append(present[0])
        loaded = loaded[present[0]]
    return loaded, tuple(keys)


def _is_state_dict(loaded: object) -> TypeGuard[StateDict]:
    return isinstance(loaded, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    )


def _strip(state: StateDict) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict without the prefixes that all names share, and these prefixes."""
    stripped: list[str] = []
    while prefix := next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None):
        stripped.append(prefix)
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, tuple(stripped)


def _unreadable(name: str, reason: str, code: ErrorCode) -> InputError:
    return InputError(
        f"weights must be a state dict of tensors, but {name} cannot be read: {reason}", code=code
    )


def _reason(error: Exception) -> tuple[str, ErrorCode]:
    """Why a file could not be read, in one line; torch's own message advises running the code it refused."""
    if isinstance(error, pickle.UnpicklingError):
        refused = refused_global(error)
        kind = f" ({refused})" if refused else ""
        return (
            f"it contains more than tensors{kind}, possibly code, or is damaged; "
            "save only model.state_dict()",
            ErrorCode.WEIGHTS_NOT_ONLY_TENSORS,
        )
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{line}; check the path, or save the file again", ErrorCode.WEIGHTS_UNREADABLE


def refused_global(error: pickle.UnpicklingError) -> str | None:
    """The object that torch refused to unpickle, which only its error text names; None if it names none."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else None
