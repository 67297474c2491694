"""A backbone cut in two: frozen blocks, whose activations are constants, and the trained rest with a new head."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from genre_core.models.backbones import Blocks, StateDict
from genre_core.models.initial_weights import blocks_without_weights, initial_weights
from genre_core.models.pretrained import Weights
from genre_core.system.disk_cache import NodeCache

CHUNK = {"cpu": 16, "cuda": 256}
"""Segments that go through the frozen blocks at a time, by device: as few as keep it busy."""


CHANNELS_LAST_ON_CPU = ("densenet", "vgg")
"""Families that a CPU trains faster with channels last, as measured; a GPU does so with all."""


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


class FrozenBlocks(nn.Sequential):
    """Blocks that never change: no gradient, and always in eval mode, whatever `train()` is called."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "FrozenBlocks":
        """Stay in eval mode: running statistics do not move, dropout stays off."""
        return super().train(False)


class Network(nn.Module):
    """A backbone cut in two: `image` and `frozen` are constants, `trainable` ends in the head."""

    def __init__(
        self,
        *,
        image: ToImage,
        blocks: Blocks,
        head: nn.Linear,
        digests: tuple[str, ...],
        precision: str,
        channels_last: bool,
    ) -> None:
        """Cut the blocks.

        Args:
            image: what comes before them.
            blocks: in order.
            head: what comes after them.
            digests: a hash for each block that is frozen.
            precision: see `Recipe.precision`.
            channels_last: the order of maps in memory.
        """
        super().__init__()
        named, cut = list(blocks.items()), len(digests)
        self.image = image
        self.frozen = FrozenBlocks(OrderedDict(named[:cut]))
        self.trainable = nn.Sequential(OrderedDict([*named[cut:], ("head", head)]))
        self.digests = digests
        self.precision = precision
        self.channels_last = channels_last
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self._format)

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.image.mean.device

    @torch.no_grad()
    def forward_by_block(self, rows: Tensor, *, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """One chunk of segments through the frozen blocks.

        A segment's activations are the same to the bit whichever others it comes with: the blocks see one
        fixed number of segments at a time, for kernels differ by the size of their batch.

        Args:
            rows: at most `CHUNK` segments: log-mels in dB, [segments, channels, mels, frames], where `start`
                is 0, else what this yielded after `start` blocks.
            start: blocks that the rows have passed already.

        Yields:
            (blocks passed, rows) after each block, contiguous; with channels last the rows of maps are
            [segments, height, width, channels].
        """
        padding = CHUNK[rows.device.type] - len(rows)
        padded = torch.cat([rows, rows[:1].expand(padding, *rows.shape[1:])])
        activations = self.from_contiguous(padded) if start else self._images(padded)
        for passed, block in enumerate(self.frozen[start:], start=start + 1):
            with self._autocast():
                activations = block(activations)
            yield passed, self._to_contiguous(activations)[: len(rows)]

    @torch.no_grad()
    def frozen_forward(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> activations at the cut."""
        if not len(self.frozen):
            return self._images(mels)
        chunks = torch.split(mels, CHUNK[mels.device.type])
        return self.from_contiguous(
            torch.cat([rows for chunk in chunks for _, rows in [*self.forward_by_block(chunk)][-1:]])
        )

    def trainable_forward(self, activations: Tensor) -> Tensor:
        """Activations at the cut -> float32 logits [segments, genres]."""
        with self._autocast():
            logits: Tensor = self.trainable(activations)
        return logits.float()

    def forward(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> float32 logits [segments, genres]."""
        return self.trainable_forward(self.frozen_forward(mels))

    def flat_state(self) -> StateDict:
        """All tensors by `block.layer...` name: the same names wherever the network was cut."""
        parts = self.frozen.state_dict() | self.trainable.state_dict()
        return {"image.mean": self.image.mean, "image.std": self.image.std, **parts}

    @property
    def trainable_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.trainable.parameters())

    def from_contiguous(self, rows: Tensor) -> Tensor:
        """Rows of `forward_by_block` as activations, without a copy."""
        return rows.permute(0, 3, 1, 2) if self.channels_last and rows.dim() == 4 else rows

    def _to_contiguous(self, activations: Tensor) -> Tensor:
        maps = self.channels_last and activations.dim() == 4
        return (activations.permute(0, 2, 3, 1) if maps else activations).contiguous()

    def _images(self, mels: Tensor) -> Tensor:
        images: Tensor = self.image(mels)
        return images.contiguous(memory_format=self._format)

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def build(
    backbone: str,
    *,
    weights: Weights,
    n_genres: int,
    frozen_blocks: int,
    image: ToImage,
    seed: int,
    node_cache: NodeCache,
    precision: str = "float32",
    device: torch.device | None = None,
) -> Network:
    """A network ready to be fine-tuned.

    Args:
        backbone: a name in `families.BLOCKS`.
        weights: `imagenet`, `random`, the path of a file, or a file's content.
        n_genres: outputs of the new head.
        frozen_blocks: leading blocks to freeze.
        image: the front of the network, with the training segments' statistics.
        seed: of the head and of every other layer that no weights are loaded into.
        node_cache: where starting points are kept.
        precision: see `Recipe.precision`.
        device: where to put it; the CPU if not given.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    device = device or torch.device("cpu")
    blocks, features = blocks_without_weights(backbone)
    start = initial_weights(backbone, weights=weights, seed=seed, node_cache=node_cache)
    frozen = tuple(blocks)[:frozen_blocks]
    # what is frozen stays mapped on the CPU; what is trained becomes the network's own
    state = {
        key: tensor.to(device, copy=key.partition(".")[0] not in frozen)
        for key, tensor in start.state.items()
    }
    nn.Sequential(blocks).load_state_dict(state, assign=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(features, n_genres)
    digests = tuple(start.digests[name] for name in frozen)
    return Network(
        image=image,
        blocks=blocks,
        head=head,
        digests=digests,
        precision=precision,
        channels_last=_channels_last(backbone, device),
    ).to(device)


def restore(backbone: str, state: StateDict, *, precision: str, device: torch.device) -> Network:
    """A finished network for use alone, from its `flat_state`: in eval mode, with no gradients and no cut.

    Args:
        backbone: a name in `families.BLOCKS`.
        state: all tensors, which become the network's own.
        precision: see `Recipe.precision`.
        device: where to put it.

    Raises:
        KeyError, RuntimeError: these are not the tensors of such a network.
    """
    blocks, features = blocks_without_weights(backbone)
    with torch.device("meta"):
        head = nn.Linear(features, len(state["head.bias"]))
    layers = {name: tensor for name, tensor in state.items() if not name.startswith("image.")}
    nn.Sequential(OrderedDict([*blocks.items(), ("head", head)])).load_state_dict(layers, assign=True)
    network = Network(
        image=ToImage(state["image.mean"], state["image.std"]),
        blocks=blocks,
        head=head,
        digests=(),
        precision=precision,
        channels_last=_channels_last(backbone, device),
    )
    return network.requires_grad_(False).eval().to(device)


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round float32 to TF32 in what autocast leaves in float32; `float32` means float32."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def _channels_last(backbone: str, device: torch.device) -> bool:
    return device.type == "cuda" or backbone.startswith(CHANNELS_LAST_ON_CPU)
