"""Plain PyTorch loops over the same network and recipe: with the data on the device, and as in Ray's tutorial."""

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from genre_core.models.torchvision_families import blocks_and_head
from genre_core.training.segments import Segments

LEARNING_RATE, MOMENTUM = 2e-5, 0.9
"""The rate is so low that no network with random weights diverges; it affects no speed."""
MEAN, STD = -50.0, 15.0
"""Of the mels, dB."""


def network(
    backbone: str, depth: int, n_genres: int, device: torch.device
) -> tuple[nn.Sequential, nn.Sequential]:
    """The frozen blocks, and the trainable ones with a new head, initialised on the device."""
    with torch.device("meta"):
        blocks, head = blocks_and_head(backbone, torchvision.models.get_model(backbone, weights=None))
    layers = [*blocks.values(), nn.Linear(head.in_features, n_genres)]
    for layer in layers:
        layer.to_empty(device=device)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.02)
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                nn.init.ones_(module.weight)
    frozen, trainable = nn.Sequential(*layers[:depth]), nn.Sequential(*layers[depth:])
    return frozen.requires_grad_(False).eval(), trainable.train()


def resident(
    backbone: str, depth: int, train: Segments, *, batch_size: int, precision: str
) -> Callable[[], None]:
    """An epoch with the data on the device: no metrics, no validation and one synchronisation at its end.

    Args:
        backbone: a name in `registry.BLOCKS`.
        depth: number of frozen blocks.
        train: segments on the device.
        batch_size: segments per step.
        precision: `float32`, `tf32` or `bfloat16` (autocast, in which TF32 is allowed for what stays in float32).
    """
    device = train.genre.device
    memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    frozen, trainable = (
        part.to(memory_format=memory_format) for part in network(backbone, depth, train.n_genres, device)
    )
    optimizer = torch.optim.SGD(trainable.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    genre = train.genre[train.track]

    def epoch() -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
        order = torch.randperm(len(train), device=device)
        total = torch.zeros((), device=device)
        for batch in torch.split(order, batch_size):
            images = ((train.mels_of(batch).float() - MEAN) / STD).expand(-1, 3, -1, -1)
            images = images.contiguous(memory_format=memory_format)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                with torch.no_grad():
                    features = frozen(images)
                logits = trainable(features)
            loss = F.cross_entropy(logits.float(), genre[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            total += loss.detach()
        float(total)

    return epoch


def tutorial(backbone: str, depth: int, train: Segments, *, batch_size: int) -> Callable[[], None]:
    """An epoch as in Ray Tune's PyTorch tutorial, from decoded images in host memory; for arguments, see `resident`.

    A DataLoader without workers, a copy of each batch to the device, and `.item()` after each step.
    """
    device = train.genre.device
    frozen, trainable = network(backbone, depth, train.n_genres, device)
    optimizer = torch.optim.SGD(trainable.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    mels = torch.cat(list(train.in_order(256))).cpu().float()
    images: Tensor = ((mels - MEAN) / STD).expand(-1, 3, -1, -1).contiguous()
    dataset = TensorDataset(images, train.genre[train.track].cpu())
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)

    def epoch() -> None:
        torch.backends.cudnn.allow_tf32 = True  # as by PyTorch's defaults
        torch.backends.cuda.matmul.allow_tf32 = False
        running = 0.0
        for batch, genres in loader:
            inputs, labels = batch.to(device), genres.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(trainable(frozen(inputs)), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            running += loss.item()

    return epoch
