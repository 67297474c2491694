"""A finished model on new audio: how likely each genre is, for a whole track and over its time.

Three lines do it:

    from genre_core.predict import Model
    model = Model.load("exported")
    print(model.predict("song.mp3"))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from genre_core.audio import decode
from genre_core.audio.mel import FrontEnd, cut_segments, segment_starts, stored_mel
from genre_core.errors import InputError
from genre_core.models.artifact import CARD, WEIGHTS, read_card
from genre_core.models.network import CHUNK, Network, allow_tf32, restore


@dataclass(frozen=True, kw_only=True)
class SegmentPrediction:
    """What a model says of one segment of a track."""

    start: float
    """Seconds from the track's beginning."""
    probabilities: dict[str, float]
    """Genre -> probability."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of a track."""

    genre: str
    """The likeliest."""
    probabilities: dict[str, float]
    """Genre -> probability, from the mean of the segments' logits."""
    seconds: float
    """The track's length."""
    padded: bool
    """Whether it was shorter than a segment, and silence was put after it."""
    over_time: tuple[SegmentPrediction, ...] = ()
    """The whole track, a segment beside the other; the last one ends with the track."""


class Model:
    """A finished model, ready to listen."""

    def __init__(
        self,
        network: Network,
        *,
        genres: Sequence[str],
        front_end: FrontEnd,
        segment_frames: int,
        segments_per_track: int,
    ) -> None:
        """Args: see `FrontEnd` and `SpectrogramStore.segments`; the genres in the order of the network's outputs."""
        self.network = network
        self.genres = tuple(genres)
        self.front_end = front_end
        self.segment_frames = segment_frames
        self._segments_per_track = segments_per_track

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> Self:
        """A model that a search kept, or that was exported.

        As in training, a GPU rounds float32 to TF32 or not by the model's precision, in all of the process.

        Args:
            folder: with model.safetensors and model.json.
            device: `cpu` or `cuda`; without one a GPU, where there is one.

        Raises:
            InputError: the folder holds no model, or a damaged one.
        """
        folder = Path(folder)
        card = read_card(folder)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            front_end = card["front_end"] | {"windows": tuple(card["front_end"]["windows"])}
            precision = card["recipe"]["precision"]
            network = restore(
                card["recipe"]["backbone"],
                safetensors.torch.load_file(folder / WEIGHTS),
                precision=precision,
                device=place,
            )
            if (outputs := network.trainable.get_submodule("head").out_features) != len(card["genres"]):
                raise ValueError(f"{outputs} outputs for {len(card['genres'])} genres")
            model = cls(
                network,
                front_end=FrontEnd(**front_end),
                **{name: card[name] for name in ("genres", "segment_frames", "segments_per_track")},
            )
        except (
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            safetensors.SafetensorError,
            InputError,
        ) as error:
            why = str(error).splitlines()[0]
            raise InputError(
                f"{WEIGHTS} and {CARD} must belong together and be whole, but in {folder} something is amiss: "
                f"{type(error).__name__} {why}; export the model anew"
            ) from error
        allow_tf32(precision != "float32")
        return model

    @property
    def segment_seconds(self) -> float:
        """Length of what the network sees at a time."""
        return self.segment_frames / self.front_end.frames_per_second

    def predict(self, path: str | Path, *, over_time: bool = False) -> Prediction:
        """What the model says of an audio file, the same as in its trial; of any length, in bounded batches.

        Raises:
            BadAudio: the file cannot be read, or there is nothing to hear in it.
        """
        waveform = decode.read(Path(path), self.front_end.sample_rate, refuse_silence=True)
        missing = (self.segment_frames - 1) * self.front_end.hop_length - len(waveform)
        whole = np.pad(waveform, (0, missing)) if missing > 0 else waveform
        mel = stored_mel(whole, self.front_end)
        starts = segment_starts(len(mel), self.segment_frames, self._segments_per_track)
        probabilities = self._named(self._logits(mel, starts).mean(dim=0))
        return Prediction(
            genre=max(probabilities, key=probabilities.__getitem__),
            probabilities=probabilities,
            seconds=len(waveform) / self.front_end.sample_rate,
            padded=missing > 0,
            over_time=self._stretches(mel) if over_time else (),
        )

    def _stretches(self, mel: NDArray[np.float16]) -> tuple[SegmentPrediction, ...]:
        """Segments side by side over a whole track, [frames, channels, mels]."""
        last = len(mel) - self.segment_frames
        starts = [*range(0, last, self.segment_frames), last]
        return tuple(
            SegmentPrediction(
                start=start / self.front_end.frames_per_second, probabilities=self._named(logits)
            )
            for start, logits in zip(starts, self._logits(mel, starts), strict=True)
        )

    @torch.inference_mode()
    def _logits(self, mel: NDArray[np.float16], starts: Sequence[int]) -> Tensor:
        """Logits of a track's segments by their first frames, [segments, genres], on the CPU."""
        size = CHUNK[self.network.device.type]
        batches = (starts[first : first + size] for first in range(0, len(starts), size))
        segments = (np.stack(cut_segments(mel, batch, self.segment_frames)) for batch in batches)
        return torch.cat([self.network(torch.from_numpy(s).to(self.network.device)).cpu() for s in segments])

    def _named(self, logits: Tensor) -> dict[str, float]:
        """Genre -> probability, of logits [genres]."""
        return dict(zip(self.genres, softmax(logits.numpy()).tolist(), strict=True))
