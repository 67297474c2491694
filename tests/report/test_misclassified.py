"""The worst misclassified tracks, with their images and audio."""

import base64
import io
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from PIL import Image

from genre_core.audio import decode
from genre_core.audio.mel import front_end
from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.spectrogram_store import open_or_build
from genre_core.corpus.tracks import Corpus
from search.report.misclassified import MAX_TRACKS, SAMPLE_RATE, height, worst_tracks
from search.report.page import collect
from search.run.model_store import kept_card
from search.run.tables import read_trials


def test_the_worst_tracks_are_the_most_confident_mistakes_with_image_and_audio(
    run: Path, cache: Path
) -> None:
    corpus = load_corpus(run / "corpus.parquet")
    best = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True]).iloc[0]
    card = kept_card(run, best.trial)
    assert card is not None
    store = open_or_build(corpus.usable, front_end("mel64"), cache=cache)
    shown = worst_tracks(card, corpus, spectrograms=store.folder)
    tracks = {track.track_id: track for track in corpus.usable}
    probabilities = dict(zip(card["split"]["validation"], card["validation_probabilities"], strict=True))
    margins = {
        name: max(row) - row[card["genres"].index(tracks[name].genre)] for name, row in probabilities.items()
    }
    wrong = sorted((name for name in margins if margins[name] > 0), key=lambda name: -margins[name])
    assert [track.track_id for track in shown] == wrong[:MAX_TRACKS]
    for track in shown:
        mel = store.mel(tracks[track.track_id])[:, 0]
        assert track.picture
        picture = Image.open(io.BytesIO(_bytes(track.picture.uri)))
        assert picture.size == mel.shape
        column = int(mel.max(axis=1).argmax())
        brightest = np.asarray(picture)[:, column].argmax()  # index into the palette
        assert brightest == mel.shape[1] - 1 - mel[column].argmax()
        seconds = len(mel) / front_end("mel64").frames_per_second
        assert track.picture.seconds == pytest.approx((0.0, seconds))
        assert all(0 < tick < 1 for tick in track.picture.ticks.values())
        samples, rate = soundfile.read(io.BytesIO(_bytes(track.sound)))
        original = decode.read(tracks[track.track_id].path, SAMPLE_RATE)
        assert rate == SAMPLE_RATE
        assert len(samples) == pytest.approx(len(original), rel=0.05)


def test_audio_that_moved_is_found_in_the_given_folder_if_it_is_unchanged(
    run: Path, music: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "tiny"))
    corpus = load_corpus(copy / "corpus.parquet")
    away = tuple(replace(track, location=f"/gone/{track.track_id}") for track in corpus.tracks)
    write_corpus(Corpus(away), copy / "corpus.parquet")

    def sounds(data: Path | None) -> dict[str, bool]:
        worst = collect(copy, cache=tmp_path / "no-cache", data=data).misclassified
        assert worst
        return {track.track_id: track.sound is not None for track in worst}

    assert not any(sounds(None).values())
    found = sounds(music)
    assert all(found.values())
    moved = Path(shutil.copytree(music, tmp_path / "moved"))
    changed = next(iter(found))
    soundfile.write(moved / changed, np.zeros(70_000), SAMPLE_RATE)
    assert sounds(moved) == {name: name != changed for name in found}


@pytest.mark.parametrize(("stored", "readable"), list(product([True, False], repeat=2)))
def test_a_spectrogram_comes_from_the_store_or_from_the_audio(
    stored: bool, readable: bool, run: Path, cache: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(run / "corpus.parquet")
    store = (
        open_or_build(corpus.usable, front_end("mel64"), cache=cache).folder if stored else tmp_path / "none"
    )
    if not readable:
        corpus = Corpus(tuple(replace(track, location="/gone.wav") for track in corpus.tracks))
    card = next((run / "models").glob("*/model.json"))
    track, *_ = worst_tracks(json.loads(card.read_text()), corpus, spectrograms=store)
    assert (track.picture is not None, track.sound is not None) == (stored or readable, readable)


@pytest.mark.parametrize("n_mels", [64, 128])
def test_frequencies_are_marked_at_the_centre_of_their_band(n_mels: int) -> None:
    centres = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=11_025)[1:-1]
    heights = [height(hz, n_mels, 22_050) for hz in centres]
    np.testing.assert_allclose(heights, (np.arange(n_mels) + 0.5) / n_mels)


def _bytes(data_uri: str | None) -> bytes:
    assert data_uri is not None
    return base64.b64decode(data_uri.partition("base64,")[2])
