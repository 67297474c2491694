"""The segments of a set of tracks, resident on one device, each knowing its track and each track its genre."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Equal cuts of tracks' mels, in track order."""

    mels: Tensor
    """float16 [segments, channels, mels, frames], dB."""
    track: Tensor
    """int64 [segments]: which track a segment belongs to."""
    genre: Tensor
    """int64 [tracks]: index of the track's genre."""
    n_genres: int

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def n_tracks(self) -> int:
        """How many tracks the segments come from."""
        return len(self.genre)


def level_statistics(segments: Segments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the segments' levels in dB, each [channels]; of training segments only."""
    by_channel = segments.mels.transpose(0, 1).flatten(1).double()
    return by_channel.mean(dim=1), by_channel.std(dim=1).clamp_min(1.0)
