"""The tracks that a model gets most wrong: what it took them for, what they look like, and what they sound like."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio, Samples
from genre_core.corpus.tracks import Corpus, Track

SHOWN = 8
"""Tracks."""
EXCERPT_SECONDS = 10.0
"""Of a track, from its middle, that are shown and played."""
SAMPLE_RATE = 22_050
"""Hz of the excerpt that is played."""

# Cividis (Nuñez, Anderton and Renslow 2018), which looks alike to all eyes, at nine even steps
_CIVIDIS = (0x00224E, 0x123570, 0x3B496C, 0x575D6D, 0x707173, 0x8A8678, 0xA59C74, 0xC3B369, 0xFEE838)


@dataclass(frozen=True, kw_only=True)
class WrongTrack:
    """A track of the validation part whose genre the model missed."""

    track_id: str
    genre: str
    predicted: str
    probability: float
    """Of the predicted genre."""
    probability_of_genre: float
    picture: str | None
    """The excerpt's log-mel as a PNG in a data URI, low notes below; None where neither store nor audio is there."""
    sound: str | None
    """The excerpt as an MP3 in a data URI; None where the audio is not there."""


def worst_tracks(card: Mapping[str, Any], corpus: Corpus, *, spectrograms: Path) -> tuple[WrongTrack, ...]:
    """The wrong ones, the surest mistake first: SHOWN at most.

    Args:
        card: of a model.
        corpus: what it was scored on.
        spectrograms: the folder of the search's store, which may be gone.
    """
    genres = list(card["genres"])
    tracks = {track.track_id: track for track in corpus.usable}
    wrong = []
    for track_id, row in zip(card["split"]["validation"], card["validation_probabilities"], strict=True):
        track, predicted = tracks[track_id], int(np.argmax(row))
        margin = row[predicted] - row[genres.index(track.genre)]
        if genres[predicted] != track.genre:
            wrong.append((margin, track, predicted, row))
    wrong.sort(key=lambda one: (-one[0], one[1].track_id))
    chosen = wrong[:SHOWN]
    pictures = _pictures([track for _, track, _, _ in chosen], card["front_end"], spectrograms)
    return tuple(
        WrongTrack(
            track_id=track.track_id,
            genre=track.genre,
            predicted=genres[predicted],
            probability=row[predicted],
            probability_of_genre=row[genres.index(track.genre)],
            picture=picture,
            sound=_sound(track),
        )
        for (_, track, predicted, row), picture in zip(chosen, pictures, strict=True)
    )


def _pictures(tracks: list[Track], front_end: Mapping[str, Any], spectrograms: Path) -> list[str | None]:
    """Each track's log-mel: from the store, else from its audio."""
    if not tracks:
        return []
    from genre_core.audio.mel import FrontEnd, log_mel  # with torch, which nothing else here needs
    from genre_core.corpus.spectrogram_store import open_store

    settings = FrontEnd(**{**front_end, "windows": tuple(front_end["windows"])})
    store = open_store(spectrograms, settings) if spectrograms.is_dir() else None

    def picture(track: Track) -> str | None:
        if store and track.content and track.content in store.places:
            mel = store.mel(track.content)[:, 0]
        elif (samples := _samples(track, settings.sample_rate)) is not None:
            mel = log_mel(samples, settings)[0].T.numpy()
        else:
            return None
        return _picture(_middle(mel, settings.frames_per_second))

    return [picture(track) for track in tracks]


def _picture(mel: NDArray[Any]) -> str:
    """A log-mel in dB, [frames, mels], as a PNG with a pixel for each."""
    levels = mel[:, ::-1].T.astype(np.float32)
    span = max(float(levels.max() - levels.min()), 1e-6)
    image = Image.fromarray(np.uint8(255 * (levels - levels.min()) / span))
    image.putpalette(_palette().tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file)


def _palette() -> NDArray[np.uint8]:
    """256 colours, [colour, channel]."""
    steps = np.linspace(0, 255, len(_CIVIDIS))
    channels = [[colour >> shift & 255 for colour in _CIVIDIS] for shift in (16, 8, 0)]
    return np.stack([np.interp(np.arange(256), steps, channel) for channel in channels], axis=1).astype(
        np.uint8
    )


def _sound(track: Track) -> str | None:
    if (samples := _samples(track, SAMPLE_RATE)) is None:
        return None
    file = io.BytesIO()
    soundfile.write(file, _middle(samples, SAMPLE_RATE), SAMPLE_RATE, format="MP3")
    return _data_uri("audio/mpeg", file)


def _samples(track: Track, sample_rate: int) -> Samples | None:
    """None where the audio was moved or changed since the search, or is on another machine."""
    try:
        return decode.read(track.path, sample_rate, content=track.content)
    except BadAudio:
        return None


def _middle(values: NDArray[Any], per_second: float) -> NDArray[Any]:
    """The excerpt along the first axis."""
    length = min(len(values), round(EXCERPT_SECONDS * per_second))
    start = (len(values) - length) // 2
    return values[start : start + length]


def _data_uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
