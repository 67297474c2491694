"""Backbone, the description of a network that can be fine-tuned: its blocks, features, weights and input."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from genre_core.errors import ErrorCode, InputError

if TYPE_CHECKING:  # choosing a backbone does not need torch
    from torch import nn

    from genre_core.audio.mel import FrontEnd

RESERVED = ("head", "image")
"""Names in a network's state dict that blocks cannot have."""
_HASH = re.compile(r"-([0-9a-f]{8,})\.\w+$")
"""The end of a file name with the first digits of its SHA-256, as torch.hub defines it."""


class Published(Protocol):
    """Published weights: a member of one of torchvision's enums, such as `ResNet50_Weights.IMAGENET1K_V2`."""

    @property
    def url(self) -> Any:
        """The address of the weights file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A network as an ordered list of named blocks, after which a new head is trained.

    Raises:
        InputError: a value cannot be used.
    """

    model: Callable[[], "nn.Module"]
    """Builds the whole network, its own head included, with random weights. Weights files have its tensors' names;
    the tensors of the head, which belong to no block, are ignored."""
    blocks: Mapping[str, Callable[[Any], "nn.Module"]]
    """Name of a block -> function that returns it, given the network. Segments pass them in order: the first one gets
    [segments, channels, mels, frames], the last one returns [segments, features]. Depth d freezes the first d."""
    features: int
    """Number of features after the last block, the inputs of the head."""
    weights: "Published | str | None" = None
    """Pretrained weights, which `weights: pretrained` selects: torchvision's, or the URL of a state dict whose file
    name ends in `-` and the first digits of its SHA-256. None if there are none."""
    channels: int = 3
    """Channels of the input. A spectrogram of one window is repeated in all of them."""
    front_end: "FrontEnd | None" = None
    """The required front end; None for any. Its `level` is ignored, because that is a setting of the search."""
    min_side: int = 32
    """Minimum number of mel bands, and of frames, of a segment."""
    channels_last_on_cpu: bool = False
    """Whether it trains faster on a CPU with the channels_last memory format; on a GPU it always has that."""
    cuda_graphs: bool = True
    """Whether a GPU may replay its training steps as CUDA graphs. False if a layer synchronizes with the device, as
    `.item()` does, or depends on a Python value that changes from step to step."""

    def __post_init__(self) -> None:
        names = self.names
        usable = bool(names) and all("." not in name and name not in ("", *RESERVED) for name in names)
        _require(usable, "blocks", f"one or more names without dots, not {' or '.join(RESERVED)}", [*names])
        for field in ("features", "channels", "min_side"):
            _require(getattr(self, field) >= 1, field, "1 or more", getattr(self, field))
        hashed = self.weights is None or _HASH.search(self.file_name)
        _require(bool(hashed), "weights", "a URL of a file called NAME-HASH.pth, or None", self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the blocks, from the input to the last one before the head."""
        return tuple(self.blocks)

    @property
    def url(self) -> str | None:
        """The address of the pretrained weights."""
        return (
            self.weights if self.weights is None or isinstance(self.weights, str) else str(self.weights.url)
        )

    @property
    def file_name(self) -> str:
        """The name of the pretrained weights' file; empty without such weights."""
        return (self.url or "").rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """The first digits of the SHA-256 of the pretrained weights' file; empty without such weights."""
        return found[1] if (found := _HASH.search(self.file_name)) else ""


def _require(holds: bool, field: str, rule: str, value: object) -> None:
    if not holds:
        raise InputError(
            f"{field} of a Backbone must be {rule}, but got {field}={value!r}",
            code=ErrorCode.BACKBONE_INVALID,
        )
