"""A backbone split at its freeze depth into frozen blocks, whose activations are constants, and a trainable part."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn

from genre_core.models.block_costs import CHUNK
from genre_core.models.blocks import Blocks, StateDict, blocks_without_weights
from genre_core.models.initial_weights import initial_weights
from genre_core.models.pretrained import Weights
from genre_core.models.registry import block_of, find_backbone
from genre_core.system.disk_cache import NodeCache

PADDED_LOOKUPS = ("cpu",)
"""Device types on which lookups of activations that are not stored are padded to `CHUNK` too, so that they have the
bits of stored ones. On a GPU, a batch of 32 would take eight times as long."""


class ToImage(nn.Module):
    """Log-mel segments in dB -> the input of a backbone, whose channels have zero mean and unit variance."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, *, channels: int = 3) -> None:
        """Set up.

        Args:
            mean: of the training segments, dB, [1] or [channels].
            std: the same shape, dB.
            channels: of the backbone's input; a segment's single channel is repeated in all of them.
        """
        super().__init__()
        self.register_buffer("mean", mean.float().reshape(-1, 1, 1))
        self.register_buffer("std", std.float().reshape(-1, 1, 1))
        self.channels = channels

    def forward(self, mels: Tensor) -> Tensor:
        """[segments, 1 or channels, mels, frames] in dB -> float32 [segments, channels, mels, frames]."""
        return ((mels.float() - self.mean) / self.std).expand(-1, self.channels, -1, -1)


class FrozenBlocks(nn.Sequential):
    """Blocks without gradients that stay in eval mode, whatever mode `train()` is called with."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "FrozenBlocks":
        """Stay in eval mode: running statistics do not change and dropout is off."""
        return super().train(False)


class Network(nn.Module):
    """A backbone split at its freeze depth: `image` and `frozen` never change, `trainable` ends with the head."""

    def __init__(
        self,
        *,
        image: ToImage,
        blocks: Blocks,
        head: nn.Linear,
        digests: tuple[str, ...],
        precision: str,
        channels_last: bool,
        trainable_digests: tuple[str, ...] = (),
        frozen_contents: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Freeze the first `len(digests)` blocks.

        Args:
            image: converts segments to the input of the first block.
            blocks: all blocks, in order.
            head: the layer after the last block.
            digests: a hash of each frozen block's tensors and code.
            precision: see `Recipe.precision`.
            channels_last: whether feature maps have the channels_last memory format.
            trainable_digests: a hash of each other block's initial tensors; empty for a network that is not trained.
            frozen_contents: frozen block -> digest of its tensors, for each that has any, see `artifact.block_digest`.
        """
        super().__init__()
        named, depth = list(blocks.items()), len(digests)
        self.image = image
        self.frozen = FrozenBlocks(OrderedDict(named[:depth]))
        self.trainable = nn.Sequential(OrderedDict([*named[depth:], ("head", head)]))
        self.digests = digests
        self._trainable_digests = trainable_digests
        self.frozen_contents = frozen_contents
        self.precision = precision
        self.channels_last = channels_last
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self._format)

    @property
    def device(self) -> torch.device:
        """The device of all parameters and buffers."""
        return self.image.mean.device

    @torch.no_grad()
    def forward_by_block(self, chunk: Tensor, *, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Pass one chunk of segments through the frozen blocks.

        The chunk is padded to a fixed number of segments, because kernels depend on the batch size. A segment's
        activations are therefore bit-identical, whatever the other segments in its chunk.

        Args:
            chunk: at most `CHUNK` segments: log-mels in dB, [segments, channels, mels, frames], if `start` is 0,
                otherwise what this method yielded after `start` blocks.
            start: number of blocks that the chunk has already passed.

        Yields:
            (blocks passed, activations) after each block, contiguous; with channels_last, feature maps are
            [segments, height, width, channels].
        """
        padding = CHUNK[chunk.device.type] - len(chunk)
        padded = torch.cat([chunk, chunk[:1].expand(padding, *chunk.shape[1:])])
        activations = self.from_contiguous(padded) if start else self._images(padded)
        for passed, block in enumerate(list(self.frozen)[start:], start=start + 1):
            with self._autocast():
                activations = block(activations)
            yield passed, self._to_contiguous(activations)[: len(chunk)]

    @torch.no_grad()
    def frozen_forward(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> activations at the freeze depth."""
        if not len(self.frozen):
            return self._images(mels)
        if mels.device.type not in PADDED_LOOKUPS:
            with self._autocast():
                activations: Tensor = self.frozen(self._images(mels))
            return activations
        chunks = torch.split(mels, CHUNK[mels.device.type])
        return self.from_contiguous(torch.cat([self._last_block(chunk) for chunk in chunks]))

    def trainable_forward(self, activations: Tensor) -> Tensor:
        """Activations at the freeze depth -> float32 logits [segments, genres]."""
        with self._autocast():
            logits: Tensor = self.trainable(activations)
        return logits.float()

    def forward(self, mels: Tensor) -> Tensor:
        """Log-mel segments in dB, [segments, channels, mels, frames] -> float32 logits [segments, genres]."""
        return self.trainable_forward(self.frozen_forward(mels))

    def flat_state(self) -> StateDict:
        """All tensors by `block.layer...` name; the names do not depend on the freeze depth."""
        parts = self.frozen.state_dict() | self.trainable.state_dict()
        return {"image.mean": self.image.mean, "image.std": self.image.std, **parts}

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        head = self.trainable.get_submodule("head")
        assert isinstance(head, nn.Linear)
        return head

    @contextmanager
    def frozen_whole(self) -> Iterator["Network"]:
        """Yield a view of this network with all blocks frozen, which shares its tensors; use it before any training."""
        *blocks, (_, head) = self.trainable.named_children()
        assert len(blocks) == len(self._trainable_digests), "the network is built to be trained"
        assert isinstance(head, nn.Linear)
        try:
            yield Network(
                image=self.image,
                blocks=OrderedDict([*self.frozen.named_children(), *blocks]),
                head=head,
                digests=self.digests + self._trainable_digests,
                precision=self.precision,
                channels_last=self.channels_last,
            )
        finally:
            self.trainable.requires_grad_(True).train()

    @property
    def trainable_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.trainable.parameters())

    def from_contiguous(self, stored: Tensor) -> Tensor:
        """View the output of `forward_by_block` as the input of the next block, without a copy."""
        return stored.permute(0, 3, 1, 2) if self.channels_last and stored.dim() == 4 else stored

    def _to_contiguous(self, activations: Tensor) -> Tensor:
        maps = self.channels_last and activations.dim() == 4
        return (activations.permute(0, 2, 3, 1) if maps else activations).contiguous()

    def _last_block(self, chunk: Tensor) -> Tensor:
        """The output of the last frozen block, contiguous."""
        *_, (_, activations) = self.forward_by_block(chunk)
        return activations

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
    """Build a network ready to be fine-tuned.

    Args:
        backbone: its name, see `registry.find_backbone`.
        weights: `imagenet`, `random`, the path of a weights file, or its content.
        n_genres: number of outputs of the new head.
        frozen_blocks: the freeze depth: number of leading blocks to freeze.
        image: converts segments to the network's input, with the training segments' statistics; its number of
            channels is replaced by the backbone's.
        seed: for the head and every other layer without given weights.
        node_cache: where initial weights are cached.
        precision: see `Recipe.precision`.
        device: the network's device [default: CPU].

    Raises:
        InputError: the weights are not available or do not fit.
    """
    device = device or torch.device("cpu")
    own, blocks = find_backbone(backbone), blocks_without_weights(backbone)
    initial = initial_weights(backbone, weights=weights, seed=seed, node_cache=node_cache)
    frozen = tuple(blocks)[:frozen_blocks]
    # on the CPU, frozen blocks stay memory-mapped; trainable ones are copied, as they change
    state = {
        key: tensor.to(device, copy=block_of(key) not in frozen) for key, tensor in initial.state.items()
    }
    nn.Sequential(blocks).load_state_dict(state, assign=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(own.features, n_genres)
    digests = tuple(initial.digests[name] for name in blocks)
    return Network(
        image=ToImage(image.mean, image.std, channels=own.channels),
        blocks=blocks,
        head=head,
        digests=digests[:frozen_blocks],
        trainable_digests=digests[frozen_blocks:],
        frozen_contents={name: initial.contents[name] for name in frozen if blocks[name].state_dict()},
        precision=precision,
        channels_last=uses_channels_last(backbone, device),
    ).to(device)


def restore(backbone: str, state: StateDict, *, precision: str, device: torch.device) -> Network:
    """Restore a trained network from its `flat_state` for inference: in eval mode, without gradients.

    Args:
        backbone: its name, see `registry.find_backbone`.
        state: all tensors; they are used, not copied.
        precision: see `Recipe.precision`.
        device: the network's device.

    Raises:
        KeyError, RuntimeError: the tensors are not those of such a network.
    """
    own, blocks = find_backbone(backbone), blocks_without_weights(backbone)
    with torch.device("meta"):
        head = nn.Linear(own.features, len(state["head.bias"]))
    layers = {name: tensor for name, tensor in state.items() if not name.startswith("image.")}
    nn.Sequential(OrderedDict([*blocks.items(), ("head", head)])).load_state_dict(layers, assign=True)
    network = Network(
        image=ToImage(state["image.mean"], state["image.std"], channels=own.channels),
        blocks=blocks,
        head=head,
        digests=(),
        precision=precision,
        channels_last=uses_channels_last(backbone, device),
    )
    return network.requires_grad_(False).eval().to(device)


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in what autocast leaves in float32, process-wide; the precision `float32` forbids it."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def uses_channels_last(backbone: str, device: torch.device) -> bool:
    """Whether feature maps of this backbone have the channels_last memory format on this device."""
    return device.type == "cuda" or find_backbone(backbone).channels_last_on_cpu
