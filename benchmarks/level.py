"""Measure whether predictions depend on loudness, and what preventing that costs in F1.

    OMP_NUM_THREADS=1 python benchmarks/level.py --data MANIFEST --weights alexnet=FILE vgg16=FILE --results FILE

trains each backbone in each variant with several seeds, and classifies 60 clips, including training clips, with the
best epoch's model: unchanged, louder and quieter. Runs that are already in the results file are skipped.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from compare import machine
from numpy.typing import NDArray
from torch import Tensor

from genre_core.audio import decode
from genre_core.audio.mel import cut_segments, front_end, log_mel, segment_starts
from genre_core.corpus.audit import audit
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import read_corpus
from genre_core.models.network import Network, ToImage, build, restore
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import FineTune
from genre_core.training.segments import SegmentArrays, Segments, level_statistics

FRONT_END = front_end("mel64", level="absolute")
SEGMENT_SECONDS = 3.0
SEGMENT_FRAMES = FRONT_END.frames(SEGMENT_SECONDS)
CLIPS = 60
"""Number of classified clips, evenly spaced over all splits."""
GAINS: dict[str, tuple[float, bool]] = {
    "-20": (-20.0, False),
    "-10": (-10.0, False),
    "-6": (-6.0, False),
    "+6": (6.0, False),
    "+6 clipped": (6.0, True),
}
"""Name -> gain in dB, and whether samples are clipped at full scale, as in a file of 16-bit integers."""
RANDOM_GAIN_DB = (-20.0, 6.0)
"""Range of the uniform distribution of a training segment's gain, drawn again in each epoch."""
ABSOLUTE_FLOOR_DB = -100.0

BACKBONES: dict[str, dict[str, Any]] = {
    "alexnet": {"frozen_blocks": 3, "learning_rate": 0.006, "momentum": 0.8, "epochs": 8},
    "vgg16": {"frozen_blocks": 7, "learning_rate": 0.02, "momentum": 0.9, "epochs": 15},
    "resnet18": {"frozen_blocks": 0, "learning_rate": 0.02, "momentum": 0.9, "epochs": 10},
    "densenet121": {"frozen_blocks": 0, "learning_rate": 0.02, "momentum": 0.9, "epochs": 10},
}
REFERENCES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "absolute": None,
    "peak": lambda levels: levels.max(),
    "mean": lambda levels: 10 * (10 ** (levels / 10)).mean().log10(),
}
"""Name -> reference of a track's levels in dB: full scale, its peak, or its mean power."""
RANDOM_GAIN = "+gain"
VARIANTS = tuple(f"{name}{gain}" for gain in ("", RANDOM_GAIN) for name in REFERENCES)


@dataclass(frozen=True, kw_only=True)
class GainedSegments(Segments):
    """Segments with a new random gain at each access."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Mels of each batch of segments, each with its own gain."""
        for mels in super().batches(batches):
            gains = torch.from_numpy(self.random.uniform(*RANDOM_GAIN_DB, (len(mels), 1, 1, 1))).float()
            yield (mels.float() + gains).clamp_min(ABSOLUTE_FLOOR_DB)


def main() -> None:
    """Run what is missing in the results file, and print the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = (
        json.loads(arguments.results.read_text())["runs"] if arguments.results.exists() else []
    )
    with tempfile.TemporaryDirectory(prefix="gsb") as folder:
        music = Music(arguments.data, Path(folder))
        weights = dict(pair.split("=", 1) for pair in arguments.weights)
        for asked in _missing(arguments, runs):
            runs.append(asked | _run(music, weights, **asked, cache=Path(folder)))
            print(json.dumps(runs[-1]), flush=True)
            settings = {"clips": CLIPS, "random_gain_db": RANDOM_GAIN_DB, "recipes": BACKBONES}
            arguments.results.write_text(
                json.dumps({"machine": machine(), "settings": settings, "runs": runs}, indent=1) + "\n"
            )
    print(table(runs))


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: F1 over seeds and numbers of changed and correct clips, for each backbone and variant."""
    titles = [
        "backbone",
        "level",
        "seeds",
        "validation F1",
        "±",
        *GAINS,
        "any to +6",
        "correct",
        "correct at -10",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    frame = pd.DataFrame(runs)
    for (backbone, variant), own in frame.groupby(["backbone", "variant"], sort=False):
        changed = pd.DataFrame(list(own["changed"])).mean()
        cells = [f"{own['val_f1'].mean():.3f}", f"{own['val_f1'].std():.3f}"]
        cells += [f"{changed[name]:.1f}" for name in GAINS]
        cells += [f"{own[name].mean():.1f}" for name in ("changed_at_any", "right", "right_at_-10")]
        lines.append(f"| {backbone} | {variant} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a manifest, or a folder with one subfolder per genre"
    )
    parser.add_argument("--weights", nargs="*", default=[], help="BACKBONE=PATH; others are random")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def _missing(arguments: argparse.Namespace, runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    done = {(run["backbone"], run["variant"], run["seed"]) for run in runs}
    for backbone in arguments.backbones:
        for seed in range(arguments.seeds):
            for variant in arguments.variants:
                if (backbone, variant, seed) not in done:
                    yield {"backbone": backbone, "variant": variant, "seed": seed}


class Music:
    """The corpus with the split that a search would draw, its waveforms, and segments of them."""

    def __init__(self, data: Path, cache: Path) -> None:
        """Args: a manifest or a folder, and where the audit is cached."""
        found = audit(read_corpus(data), minimum_seconds=SEGMENT_SECONDS, cache=cache, workers=1)
        self.corpus = split_corpus(found, validation=0.2, test=0.2, seed=0)
        self.genres = self.corpus.genres
        tracks = sorted(self.corpus.usable, key=lambda track: track.track_id)
        self._tracks = {
            "train": self.corpus.part("train"),
            "validation": self.corpus.part("validation"),
            "clips": [tracks[round(i)] for i in np.linspace(0, len(tracks) - 1, CLIPS)],
        }
        self._waveforms = {track.track_id: decode.read(track.path, FRONT_END.sample_rate) for track in tracks}
        self._by_settings: dict[tuple[str, str, float, bool], Segments] = {}

    def segments(self, part: str, reference: str, gain: float = 0.0, clipped: bool = False) -> Segments:
        """One segment of each track, chosen as in a search, with a gain in dB."""
        key = (part, reference, gain, clipped)
        if key not in self._by_settings:
            self._by_settings[key] = self._segments(*key)
        return self._by_settings[key]

    def _segments(self, part: str, reference: str, gain: float, clipped: bool) -> Segments:
        mels, factor = [], np.float32(10 ** (gain / 20))
        for track in self._tracks[part]:
            waveform = self._waveforms[track.track_id] * factor
            levels = _levels(waveform.clip(-1, 1) if clipped else waveform, reference)
            mel = levels.permute(2, 0, 1).numpy()
            mels += cut_segments(mel, segment_starts(len(mel), SEGMENT_FRAMES, 1), SEGMENT_FRAMES)
        return SegmentArrays.of(
            np.stack(mels),
            track=np.arange(len(mels)),
            genre=np.array([self.genres.index(track.genre) for track in self._tracks[part]]),
            n_genres=len(self.genres),
        ).to(torch.device("cpu"))


def _levels(waveform: NDArray[np.float32], reference: str) -> Tensor:
    """Log-mel, float16 [1, mels, frames], in dB relative to the reference."""
    of_track = REFERENCES[reference]
    if of_track is None:
        return log_mel(waveform, FRONT_END).half()
    levels = log_mel(waveform / np.abs(waveform).max(), FRONT_END)  # far above the absolute floor
    return (levels - of_track(levels)).half()


def _run(
    music: Music, weights: dict[str, str], *, backbone: str, variant: str, seed: int, cache: Path
) -> dict[str, Any]:
    """Train one variant and classify the clips with its best model."""
    reference, gained = variant.removesuffix(RANDOM_GAIN), variant.endswith(RANDOM_GAIN)
    train = music.segments("train", reference)
    image = ToImage(*level_statistics(train))
    if gained:
        train = GainedSegments(**vars(train), random=np.random.default_rng(seed))
    recipe = Recipe(
        backbone=backbone,
        weights=weights.get(backbone, "random"),
        seed=seed,
        batch_size=16,
        patience=BACKBONES[backbone]["epochs"],
        **BACKBONES[backbone],
    )
    # with random gain, activations differ in each epoch and cannot be cached
    node_cache = NodeCache(cache / "shared", budget_bytes=0 if gained else 2**32)
    network = build(
        backbone,
        weights=recipe.weights,
        n_genres=len(music.genres),
        frozen_blocks=recipe.frozen_blocks,
        image=image,
        seed=seed,
        node_cache=node_cache,
    )
    validation = music.segments("validation", reference)
    fine_tune = FineTune(network, recipe, train=train, validation=validation, node_cache=node_cache)
    best = _best(fine_tune, backbone)
    found = {"val_f1": fine_tune.best_f1, "best_epoch": fine_tune.best_epoch}
    return found | _gained(best, music, reference)


def _best(fine_tune: FineTune, backbone: str) -> Network:
    """Train to the end; returns the network of the epoch with the best validation F1."""
    state: dict[str, Tensor] = {}
    while not fine_tune.finished:
        if fine_tune.epoch().epoch == fine_tune.best_epoch:
            state = {name: tensor.clone() for name, tensor in fine_tune.network.flat_state().items()}
    return restore(backbone, state, precision="float32", device=torch.device("cpu"))


def _gained(network: Network, music: Music, reference: str) -> dict[str, Any]:
    """Number of clips whose predicted genre changes at each gain, and number of correct ones."""

    def predicted(gain: float, clipped: bool) -> NDArray[np.int64]:
        segments = music.segments("clips", reference, gain, clipped)
        with torch.inference_mode():
            logits = [network(chunk) for chunk in segments.in_order(16)]
        genres: NDArray[np.int64] = torch.cat(logits).argmax(dim=1).numpy()
        return genres

    truth, as_is = music.segments("clips", reference).genre.numpy(), predicted(0.0, False)
    gained = {name: predicted(*gain) for name, gain in GAINS.items()}
    unclipped = np.stack([gained[name] for name, (_, clipped) in GAINS.items() if not clipped])
    return {
        "changed": {name: int((genres != as_is).sum()) for name, genres in gained.items()},
        "changed_at_any": int((unclipped != as_is).any(axis=0).sum()),
        "right": int((as_is == truth).sum()),
        "right_at_-10": int((gained["-10"] == truth).sum()),
    }


if __name__ == "__main__":
    main()
