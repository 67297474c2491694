"""The worst misclassified tracks of a model, with spectrogram images and audio excerpts."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import sample_colorscale

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio, Samples
from genre_core.audio.on_disk import on_disk
from genre_core.corpus.tracks import Corpus, Track
from genre_core.errors import InputError
from search.report.charts import COLOURSCALE
from search.run.split_record import tracks_of

MAX_TRACKS = 8
EXCERPT_SECONDS = 10.0
"""Length of the excerpt from the middle of a track that is shown and played."""
SAMPLE_RATE = 22_050
"""Sample rate of the audio excerpt in Hz."""
TICKS_HZ = (500, 1000, 2000, 4000, 8000)
"""Frequencies marked on the axis of a spectrogram that contains them."""

_LINEAR_HZ, _LINEAR_MELS, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
"""Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1000 Hz, or 15 mels, then logarithmic with this step."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The log-mel spectrogram of an excerpt, low frequencies at the bottom, with its axes."""

    uri: str
    """A data URI of a PNG with one pixel for each value."""
    seconds: tuple[float, float]
    """Start and end of the excerpt in the track."""
    ticks: Mapping[int, float]
    """Frequency in Hz -> its height as a fraction of the picture's."""


@dataclass(frozen=True, kw_only=True)
class MisclassifiedTrack:
    """A validation track that the model misclassified."""

    track_id: str
    genre: str
    predicted: str
    probability: float
    """Predicted probability of the predicted genre."""
    probability_of_genre: float
    """Predicted probability of the true genre."""
    picture: Picture | None
    """None if the track is neither in the spectrogram store nor readable."""
    sound: str | None
    """The audio excerpt: a data URI of an MP3. None if the track is not readable."""


def worst_tracks(
    card: Mapping[str, Any], corpus: Corpus, *, spectrograms: Path
) -> tuple[MisclassifiedTrack, ...]:
    """At most MAX_TRACKS misclassified validation tracks, the most confident mistake first.

    Args:
        card: the model's card.
        corpus: the corpus of the search.
        spectrograms: the folder of its spectrogram store, which need not exist.
    """
    genres = list(card["genres"])
    tracks = tracks_of(card["split"], "validation", corpus)
    wrong = []
    for track, row in zip(tracks, card["validation_probabilities"] if tracks else (), strict=True):
        predicted = int(np.argmax(row))
        if genres[predicted] != track.genre:
            wrong.append((track, genres[predicted], row[predicted], row[genres.index(track.genre)]))
    wrong.sort(key=lambda one: (one[3] - one[2], one[0].track_id))
    worst = wrong[:MAX_TRACKS]
    pictures = _pictures([track for track, *_ in worst], card["front_end"], spectrograms)
    return tuple(
        MisclassifiedTrack(
            track_id=track.track_id,
            genre=track.genre,
            predicted=predicted,
            probability=probability,
            probability_of_genre=probability_of_genre,
            picture=picture,
            sound=_sound(track),
        )
        for (track, predicted, probability, probability_of_genre), picture in zip(
            worst, pictures, strict=True
        )
    )


def _pictures(tracks: list[Track], front_end: Mapping[str, Any], spectrograms: Path) -> list[Picture | None]:
    """Each track's log-mel spectrogram, from the store or else from its audio."""
    if not tracks:
        return []
    from genre_core.audio.mel import FrontEnd, log_mel  # imports torch, which is not needed otherwise
    from genre_core.corpus.spectrogram_store import open_store

    settings = FrontEnd(**{**front_end, "windows": tuple(front_end["windows"])})
    store = open_store(spectrograms, settings) if spectrograms.is_dir() else None

    def picture(track: Track) -> Picture | None:
        if store and track in store:
            mel = store.mel(track)[:, 0]
        elif (samples := _samples(track, settings.sample_rate)) is not None:
            mel = log_mel(samples, settings)[0].T.numpy()
        else:
            return None
        excerpt = _middle(len(mel), settings.frames_per_second)
        return Picture(
            uri=_png(mel[excerpt]),
            seconds=(
                excerpt.start / settings.frames_per_second,
                excerpt.stop / settings.frames_per_second,
            ),
            ticks={
                hz: at for hz in TICKS_HZ if (at := height(hz, settings.n_mels, settings.sample_rate)) < 1.0
            },
        )

    return [picture(track) for track in tracks]


def height(hz: float, n_mels: int, sample_rate: int) -> float:
    """The position of a frequency in a mel spectrogram, as a fraction of its height from the bottom.

    Args:
        hz: the frequency.
        n_mels: number of mel bands, from 0 Hz to half the sample rate; a band is drawn around its centre.
        sample_rate: in Hz.
    """
    band = _mels(hz) / _mels(sample_rate / 2) * (n_mels + 1) - 1
    return float((band + 0.5) / n_mels)


def _mels(hz: float) -> float:
    linear = hz / _LINEAR_HZ * _LINEAR_MELS
    return linear if hz < _LINEAR_HZ else _LINEAR_MELS + float(np.log(hz / _LINEAR_HZ)) / _LOG_STEP


def _png(mel: NDArray[Any]) -> str:
    """A data URI of a PNG with one pixel for each value of a log-mel spectrogram in dB, [frames, mels]."""
    levels = mel[:, ::-1].T.astype(np.float32)
    span = max(float(levels.max() - levels.min()), 1e-6)
    image = Image.fromarray(np.uint8(255 * (levels - levels.min()) / span))
    image.putpalette(_palette())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file)


@cache
def _palette() -> bytes:
    """256 colours of the charts' colour scale, three bytes each."""
    colours = sample_colorscale(COLOURSCALE, np.linspace(0, 1, 256), colortype="tuple")
    return np.uint8(np.round(255 * np.array(colours))).tobytes()


def _sound(track: Track) -> str | None:
    if (samples := _samples(track, SAMPLE_RATE)) is None:
        return None
    file = io.BytesIO()
    soundfile.write(file, samples[_middle(len(samples), SAMPLE_RATE)], SAMPLE_RATE, format="MP3")
    return _data_uri("audio/mpeg", file)


def _samples(track: Track, sample_rate: int) -> Samples | None:
    """None if the audio was moved or changed after the search, or cannot be read from this machine."""
    try:
        with on_disk(track.location) as path:
            return decode.read(path, sample_rate, content=track.content, file_hash=track.file_hash)
    except (BadAudio, InputError):
        return None


def _middle(length: int, per_second: float) -> slice:
    """The middle EXCERPT_SECONDS of so many values."""
    excerpt = min(length, round(EXCERPT_SECONDS * per_second))
    start = (length - excerpt) // 2
    return slice(start, start + excerpt)


def _data_uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
