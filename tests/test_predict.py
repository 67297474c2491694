"""A finished model on files: as its trial heard them, of any length, and a bad file is a line."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command

from genre_core.corpus import load_corpus
from genre_core.errors import InputError
from genre_core.predict import Model

RATE = 22_050


@pytest.fixture
def model(run: Path) -> Path:
    """One of the models that a search has kept."""
    return min((run / "models").iterdir())


def test_files_are_heard_as_the_trial_heard_them(model: Path, run: Path) -> None:
    card, loaded = json.loads((model / "model.json").read_text()), Model.load(model)
    tracks = load_corpus(run / "corpus.parquet").part("validation")
    assert [track.track_id for track in tracks] == card["split"]["validation"]
    heard = [list(loaded.predict(track.path).probabilities.values()) for track in tracks]
    np.testing.assert_allclose(heard, card["validation_probabilities"], rtol=1e-4)


def test_a_track_of_any_length_is_heard_whole(model: Path, tmp_path: Path) -> None:
    loaded = Model.load(model)
    noise = np.random.default_rng(0).standard_normal(60 * RATE) * 0.1
    soundfile.write(tmp_path / "long.flac", noise, RATE)
    soundfile.write(tmp_path / "short.flac", noise[: RATE // 2], RATE)
    long, short = (loaded.predict(tmp_path / f"{name}.flac", over_time=True) for name in ("long", "short"))
    assert (long.padded, short.padded) == (False, True)
    assert long.seconds == 60
    assert len(short.over_time) == 1
    starts = np.array([stretch.start for stretch in long.over_time])
    assert (np.diff(starts) <= loaded.segment_seconds + 1e-6).all()
    assert starts[-1] == pytest.approx(60 - loaded.segment_seconds, abs=0.1)
    for found in (long, short, *long.over_time):
        assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_a_bad_file_is_a_line_and_the_others_are_heard(
    model: Path, music: Path, tmp_path: Path, genre_search: Command
) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    good = music / "jazz" / "jazz.00000.wav"
    done = genre_search("predict", model, tmp_path, "-", "--json", input=f"{good}\n")
    assert done.returncode == 1, done.stderr
    bad, heard = (json.loads(line) for line in done.stdout.splitlines())
    assert bad["error"].startswith("unreadable")
    assert heard["path"] == str(good)
    assert max(heard["probabilities"], key=heard["probabilities"].get) == heard["genre"]


def test_what_is_no_model_is_refused_in_a_line(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks model\.safetensors and model\.json"):
        Model.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:999])
    (tmp_path / "model.json").write_text((model / "model.json").read_text())
    with pytest.raises(InputError, match="something is amiss"):
        Model.load(tmp_path)
