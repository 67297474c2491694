"""Training as in the tutorials of PyTorch and Ray Tune: a Dataset that decodes audio, a DataLoader, and a loop.

The other systems all use it. It follows good practice: only the needed segment of a file is read, frozen blocks have
no gradient and stay in eval mode, and a trial uses one thread.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile
import torch
import torchvision
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchaudio.functional import resample
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from genre_core.models.torchvision_families import blocks_and_head

Task = dict[str, Any]


class Clips(Dataset[tuple[Tensor, int]]):
    """The first segment of each track of a split, decoded and converted to a mel on access."""

    def __init__(self, task: Task, part: str) -> None:
        self.tracks = pd.read_csv(task["manifest"]).query("split == @part").reset_index(drop=True)
        self.genres = sorted(self.tracks["genre"].unique())
        self.rate, self.seconds = task["sample_rate"], task["segment_seconds"]
        self.frames = task["segment_frames"]
        self.mel = nn.Sequential(
            MelSpectrogram(
                self.rate,
                n_fft=task["n_fft"],
                hop_length=task["hop_length"],
                n_mels=task["n_mels"],
                mel_scale="slaney",
                norm="slaney",
            ),
            AmplitudeToDB(top_db=80.0),
        )

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        track = self.tracks.iloc[index]
        with soundfile.SoundFile(track["path"]) as file:
            rate = file.samplerate
            samples = file.read(int((self.seconds + 0.2) * rate), dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.mean(axis=1))
        if rate != self.rate:
            waveform = resample(waveform, rate, self.rate)
        image = (self.mel(waveform)[:, : self.frames] + 40.0) / 15.0
        return image.expand(3, -1, -1), self.genres.index(track["genre"])


def network(configuration: dict[str, Any], task: Task, n_genres: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The frozen blocks, and the trainable ones with a new head."""
    torch.manual_seed(0)
    backbone = configuration["backbone"]
    model = torchvision.models.get_model(backbone, weights=None)
    if weights := task["weights"].get(backbone):
        model.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    blocks, head = blocks_and_head(backbone, model)
    layers = list(blocks.values())
    depth = configuration["frozen_blocks"]
    frozen, trainable = (
        nn.Sequential(*layers[:depth]),
        nn.Sequential(*layers[depth:], nn.Linear(head.in_features, n_genres)),
    )
    frozen.requires_grad_(False)
    return frozen, trainable


def epochs(configuration: dict[str, Any], task: Task) -> Iterator[tuple[float, float]]:
    """Train, yielding (validation F1, total seconds in forward, backward and optimiser) after each epoch."""
    torch.set_num_threads(1)
    parts = [Clips(task, part) for part in ("train", "validation")]
    train, validation = (
        DataLoader(part, batch_size=task["batch_size"], shuffle=shuffle, num_workers=task["loader_workers"])
        for part, shuffle in zip(parts, (True, False), strict=True)
    )
    frozen, trainable = network(configuration, task, len(parts[0].genres))
    optimizer = torch.optim.SGD(
        trainable.parameters(), lr=configuration["learning_rate"], momentum=configuration["momentum"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task["epochs"])
    arithmetic = 0.0
    for _ in range(task["epochs"]):
        frozen.eval()
        trainable.train()
        for images, genres in train:
            began = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(trainable(frozen(images)), genres).backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            arithmetic += time.perf_counter() - began
        schedule.step()
        trainable.eval()
        truth, predicted = [], []
        with torch.no_grad():
            for images, genres in validation:
                began = time.perf_counter()
                predicted += trainable(frozen(images)).argmax(dim=1).tolist()
                arithmetic += time.perf_counter() - began
                truth += genres.tolist()
        yield float(f1_score(truth, predicted, average="macro")), arithmetic


def trial(configuration: dict[str, Any], task: Task, report: Callable[[int, float], None]) -> None:
    """Run a trial: report each epoch's F1, and log the trial at its end, even if it is pruned."""
    began = time.time()
    done: list[tuple[float, float]] = []
    try:
        for f1, arithmetic in epochs(configuration, task):
            done.append((f1, arithmetic))
            log(task, {"f1": f1, "at": time.time()})
            report(len(done), f1)
    finally:
        line = {"began": began, "ended": time.time(), "seconds": time.time() - began, "epochs": len(done)}
        best = {"best": max(f1 for f1, _ in done), "arithmetic": done[-1][1]} if done else {}
        log(task, configuration | line | best)


def log(task: Task, line: dict[str, Any]) -> None:
    """Append a line to the log that all trials of a run share."""
    with Path(task["log"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
