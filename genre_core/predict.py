"""Genre probabilities of audio from a saved model, per track and optionally over time.

Three lines are enough:

    from genre_core import Model
    model = Model.load("exported")
    print(model.predict("song.mp3"))
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from torch import Tensor

from genre_core.audio import decode
from genre_core.audio.mel import FrontEnd, cut_segments, segment_starts, stored_mel
from genre_core.audio.on_disk import on_disk
from genre_core.audio.samples import source_of
from genre_core.audio.source import Samples
from genre_core.errors import ErrorCode, InputError, one_line
from genre_core.models.artifact import CARD, WEIGHTS, read_card, shared_tensors
from genre_core.models.block_costs import CHUNK
from genre_core.models.blocks import StateDict
from genre_core.models.network import Network, allow_tf32, restore

_OF_A_BACKBONE = (
    ErrorCode.BACKBONE_INVALID,
    ErrorCode.BACKBONE_NOT_IMPORTABLE,
    ErrorCode.NOT_A_BACKBONE,
)
"""Errors of the module that defines a model's backbone."""
_REASON_CHARACTERS = 240
"""Maximum length of the reason in a message: torch lists all tensors that do not fit."""

Audio = str | Path | tuple[ArrayLike, int]
"""A track: the path of a file, or samples and their rate in Hz; see `Model.predict`."""
Tracks = list[str] | list[Path] | list[tuple[ArrayLike, int]] | list[Audio]


@dataclass(frozen=True, kw_only=True)
class SegmentPrediction:
    """Genre probabilities of one segment of a track."""

    start: float
    """Seconds from the beginning of the track."""
    probabilities: dict[str, float]
    """Genre -> probability."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Genre probabilities of a track."""

    genre: str
    """The most probable genre."""
    probabilities: dict[str, float]
    """Genre -> probability, from the mean of the segments' logits."""
    seconds: float
    """Duration of the track."""
    padded: bool
    """Whether the track is shorter than a segment and was padded with silence."""
    over_time: tuple[SegmentPrediction, ...] = ()
    """Adjacent segments that cover the whole track; the last one ends with the track and may overlap."""


class Model:
    """A trained model that classifies audio files."""

    def __init__(
        self,
        network: Network,
        *,
        genres: Sequence[str],
        front_end: FrontEnd,
        segment_frames: int,
        segments_per_track: int,
    ) -> None:
        """Args: see `FrontEnd` and `SpectrogramStore.segments`; genres are in the order of the network's outputs."""
        self.network = network
        self.genres = tuple(genres)
        self.front_end = front_end
        self.segment_frames = segment_frames
        self._segments_per_track = segments_per_track

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> Self:
        """Load a model saved by a search or by genre-search export.

        A backbone that is not built in is imported from the module that the model names.

        As in training, the model's precision decides whether a GPU may use TF32, in the whole process.

        Args:
            folder: contains model.safetensors and model.json; for a model in a run's folder, the shared blocks next to
                it are needed, too.
            device: `cpu` or `cuda` [default: a GPU if there is one].

        Raises:
            InputError: the folder contains no model, or a damaged model, or its backbone cannot be imported.
        """
        folder = Path(folder)
        card = read_card(folder)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            shared = {name: torch.from_numpy(value) for name, value in shared_tensors(folder, card).items()}
            model = cls._from_card(card, safetensors.torch.load_file(folder / WEIGHTS) | shared, place)
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            safetensors.SafetensorError,
            InputError,
        ) as error:
            if isinstance(error, InputError) and error.code in (
                *_OF_A_BACKBONE,
                ErrorCode.MODEL_INCONSISTENT,
            ):
                raise  # the model may be intact, or the message names the file that is not
            why = textwrap.shorten(one_line(str(error)), _REASON_CHARACTERS, placeholder=" …")
            raise InputError(
                f"{WEIGHTS} and {CARD} must be intact and belong to the same model; loading them from {folder} "
                f"failed: {type(error).__name__}: {why}; export the model again",
                code=ErrorCode.MODEL_INCONSISTENT,
            ) from error
        allow_tf32(model.network.precision != "float32")
        return model

    @classmethod
    def _from_card(cls, card: dict[str, Any], state: StateDict, device: torch.device) -> Self:
        front_end = card["front_end"] | {"windows": tuple(card["front_end"]["windows"])}
        recipe = card["recipe"]
        network = restore(recipe["backbone"], state, precision=recipe["precision"], device=device)
        if (outputs := network.trainable.get_submodule("head").out_features) != len(card["genres"]):
            raise ValueError(f"{outputs} outputs for {len(card['genres'])} genres")
        return cls(
            network,
            front_end=FrontEnd(**front_end),
            **{name: card[name] for name in ("genres", "segment_frames", "segments_per_track")},
        )

    @property
    def segment_seconds(self) -> float:
        """Duration of a segment."""
        return self.segment_frames / self.front_end.frames_per_second

    @overload
    def predict(self, audio: Audio, *, over_time: bool = False) -> Prediction: ...

    @overload
    def predict(self, audio: Tracks, *, over_time: bool = False) -> list[Prediction]: ...

    def predict(self, audio: Audio | Tracks, *, over_time: bool = False) -> Prediction | list[Prediction]:
        """Classify a track of any length, or each one of a list, in the same way as validation tracks.

        Args:
            audio: the path or address of an audio file, or (samples, sample_rate): an array of shape [samples],
                [channels, samples] or [samples, channels], of floats with full scale 1 or integers with the full scale
                of their type, and its rate in Hz. The model mixes it to mono and resamples it. Or a list of these.
            over_time: also classify adjacent segments, which cover the whole track.

        Returns:
            The prediction for a track, or those for a list in its order.

        Raises:
            BadAudio: a file cannot be read, or nothing in a track is audible.
            InputError: samples have another shape or type, or their rate is impossible; or the storage of an address
                cannot be reached.
        """
        if isinstance(audio, list):
            return [self._predict(track, over_time=over_time) for track in audio]
        return self._predict(audio, over_time=over_time)

    def _predict(self, audio: Audio, *, over_time: bool) -> Prediction:
        waveform = self._waveform(audio)
        missing = (self.segment_frames - 1) * self.front_end.hop_length - len(waveform)
        padded = np.pad(waveform, (0, missing)) if missing > 0 else waveform
        mel = stored_mel(padded, self.front_end)
        starts = segment_starts(len(mel), self.segment_frames, self._segments_per_track)
        probabilities = self._named(self._logits(mel, starts).mean(dim=0))
        return Prediction(
            genre=max(probabilities, key=probabilities.__getitem__),
            probabilities=probabilities,
            seconds=len(waveform) / self.front_end.sample_rate,
            padded=missing > 0,
            over_time=self._over_time(mel) if over_time else (),
        )

    def _waveform(self, audio: Audio) -> Samples:
        """The mono mix of a track, [samples] at the rate of the front end."""
        rate = self.front_end.sample_rate
        if isinstance(audio, tuple):
            return decode.waveform_of(source_of(*audio), rate)
        try:
            with on_disk(str(audio)) as path:
                return decode.read(path, rate, refuse_silence=True)
        except decode.BadAudio as error:
            error.add_note(f"file: {audio}")
            raise

    def _over_time(self, mel: NDArray[np.float16]) -> tuple[SegmentPrediction, ...]:
        """Predictions for adjacent segments of a whole track, [frames, channels, mels]."""
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
        """Logits of the segments that start at these frames, [segments, genres], on the CPU."""
        size = CHUNK[self.network.device.type]
        batches = (starts[first : first + size] for first in range(0, len(starts), size))
        segments = (np.stack(cut_segments(mel, batch, self.segment_frames)) for batch in batches)
        return torch.cat([self.network(torch.from_numpy(s).to(self.network.device)).cpu() for s in segments])

    def _named(self, logits: Tensor) -> dict[str, float]:
        """Genre -> probability, from logits [genres]."""
        return dict(zip(self.genres, softmax(logits.numpy()).tolist(), strict=True))
