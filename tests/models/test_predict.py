"""A saved model on audio files: predictions as in its trial, for any length and format, and reasons for bad files."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import Command
from scipy.special import softmax
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from genre_core import predict
from genre_core.audio.bad_audio import BadAudio, Fault, Reason
from genre_core.corpus.corpus_table import load_corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.models.artifact import SHARED_BLOCKS, read_card, read_tensors
from genre_core.predict import Model, Prediction, SegmentPrediction
from search.cli.prediction_output import text_lines
from search.run.model_store import write_model

RATE = 22_050
NOISE = np.random.default_rng(0).standard_normal(60 * RATE) * 0.1


@pytest.fixture(scope="module")
def folder(run: Path) -> Path:
    """One of the models saved by a search."""
    return min((run / "models").glob("trial-*"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return Model.load(folder)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of noise, half a second of it, ten seconds in four formats, and files without music."""
    songs = tmp_path_factory.mktemp("songs")
    (songs / "sub").mkdir()
    soundfile.write(songs / "long.flac", NOISE, RATE)
    soundfile.write(songs / "short.flac", NOISE[: RATE // 2], RATE)
    stereo = np.stack([NOISE[: 10 * RATE] * 2**15] * 2, axis=1).astype(np.int16)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(songs / "sub" / f"ten.{suffix}", stereo, RATE)
    soundfile.write(songs / "sub" / "._hidden.wav", NOISE[:RATE], RATE)
    (songs / "notes.txt").write_text("not an audio suffix")
    (songs / "text.wav").write_text("not audio")
    return songs


def test_predictions_equal_those_of_the_trial(folder: Path, model: Model, run: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    tracks = load_corpus(run / "corpus.parquet").part("validation")
    assert [track.track_id for track in tracks] == card["split"]["validation"]
    predicted = [list(model.predict(track.path).probabilities.values()) for track in tracks]
    np.testing.assert_allclose(predicted, card["validation_probabilities"], atol=1e-6)


def test_a_file_at_an_address_has_the_prediction_of_its_file(model: Model, songs: Path) -> None:
    path = songs / "long.flac"
    assert model.predict(path.as_uri()) == model.predict(path)


def test_predictions_over_time_cover_a_track_of_any_length(model: Model, songs: Path) -> None:
    long, short = (model.predict(songs / f"{name}.flac", over_time=True) for name in ("long", "short"))
    assert (long.padded, short.padded) == (False, True)
    assert (long.seconds, short.seconds) == (60, 0.5)
    assert [segment.start for segment in short.over_time] == [0]
    assert short.over_time[0].probabilities == short.probabilities
    starts = np.array([segment.start for segment in long.over_time])
    assert starts[0] == 0
    np.testing.assert_allclose(np.diff(starts)[:-1], model.segment_seconds)
    assert np.diff(starts)[-1] <= model.segment_seconds
    assert starts[-1] + model.segment_seconds == pytest.approx(60, abs=0.1)
    predictions: list[Prediction | SegmentPrediction] = [long, short, *long.over_time]
    for prediction in predictions:
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_a_segment_of_a_track_is_classified_like_a_track_of_its_own(
    model: Model, songs: Path, tmp_path: Path
) -> None:
    segment = model.predict(songs / "long.flac", over_time=True).over_time[4]
    frames = model.segment_frames * model.front_end.hop_length
    first = round(segment.start * RATE)
    soundfile.write(tmp_path / "cut.flac", NOISE[first : first + frames - 1], RATE)
    alone = model.predict(tmp_path / "cut.flac")
    assert not alone.padded
    assert segment.probabilities == pytest.approx(alone.probabilities, abs=0.05), (
        "only the frames at its ends differ"
    )


GAINS = {"-20 dB": 0.1, "-10 dB": 0.316, "-6 dB": 0.5, "+6 dB": 2.0, "16-bit range": 2.0**15}


@pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS)
def test_a_louder_or_quieter_copy_has_the_same_prediction(
    gain: float, model: Model, music: Path, tmp_path: Path
) -> None:
    """Copies in float32, which does not clip at full scale."""
    for file in sorted(music.rglob("*.wav"))[::6]:
        samples, rate = soundfile.read(file, dtype="float32")
        soundfile.write(tmp_path / "copy.wav", samples * np.float32(gain), rate, subtype="FLOAT")
        as_is, copy = model.predict(file), model.predict(tmp_path / "copy.wav")
        assert copy.probabilities == pytest.approx(as_is.probabilities, abs=1e-3)


def _older(folder: Path, copy: Path) -> Path:
    """A copy of a model as written before front ends had a `level`, and models shared blocks."""
    card = read_card(folder)
    tensors = read_tensors(folder, card)
    del card["front_end"]["level"], card[SHARED_BLOCKS]
    write_model(copy, tensors, card)
    return copy


def test_a_model_without_a_level_uses_absolute_levels_as_before(
    folder: Path, music: Path, tmp_path: Path
) -> None:
    """Bit-identical to torchaudio's own transforms, and close to librosa's."""
    older = Model.load(_older(folder, tmp_path / "older"))
    file = sorted(music.rglob("*.wav"))[7]
    samples = soundfile.read(file, dtype="float32")[0] / 4
    soundfile.write(tmp_path / "quiet.wav", samples, RATE, subtype="FLOAT")
    predicted = list(older.predict(tmp_path / "quiet.wav").probabilities.values())
    settings: dict[str, Any] = {"n_fft": 2048, "hop_length": 1024, "n_mels": 64}
    to_mel = MelSpectrogram(RATE, norm="slaney", mel_scale="slaney", pad_mode="constant", **settings)
    at_once = AmplitudeToDB("power", 80.0)(to_mel(torch.from_numpy(samples))).half().numpy()
    assert predicted == _middle_segment(older, at_once)
    power = librosa.feature.melspectrogram(y=samples, sr=RATE, **settings)
    by_librosa = librosa.power_to_db(power, amin=1e-10, top_db=80.0).astype(np.float16)
    assert predicted == pytest.approx(_middle_segment(older, by_librosa), abs=2e-3)
    assert predicted != pytest.approx(list(older.predict(file).probabilities.values()), abs=1e-2)


def _middle_segment(model: Model, mel: np.ndarray) -> list[float]:
    """The network's probabilities for the middle segment of a mel, [mels, frames]."""
    start = (mel.shape[1] - model.segment_frames) // 2
    segment = np.ascontiguousarray(mel[None, None, :, start : start + model.segment_frames])
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(segment)).cpu().mean(dim=0)
    return list(softmax(logits.numpy()).tolist())


def test_lossless_formats_have_the_same_prediction(model: Model, songs: Path) -> None:
    flac, wav, ogg, mp3 = (model.predict(songs / "sub" / f"ten.{s}") for s in ("flac", "wav", "ogg", "mp3"))
    assert flac == wav
    assert abs(mp3.seconds - 10) < 0.1
    assert set(ogg.probabilities) == set(model.genres)


@pytest.mark.parametrize(
    ("make", "reason", "fault"),
    [
        (lambda path: path.write_text("text"), Reason.UNREADABLE, Fault.NOT_AUDIO),
        (lambda path: path.mkdir(), Reason.UNREADABLE, Fault.NOT_A_FILE),
        (lambda path: None, Reason.UNREADABLE, Fault.NOT_ACCESSIBLE),
        (lambda path: soundfile.write(path, np.zeros(RATE), RATE), Reason.SILENT, Fault.TOO_QUIET),
        (
            lambda path: soundfile.write(path, np.outer(np.sin(np.arange(RATE)), [1, -1]), RATE),
            Reason.SILENT,
            Fault.CHANNELS_CANCEL,
        ),
        (lambda path: soundfile.write(path, np.zeros(0), RATE), Reason.EMPTY, None),
    ],
    ids=["text", "a folder", "nothing", "silence", "opposite phase", "no samples"],
)
def test_an_unusable_file_is_refused_with_its_reason(
    make: Callable[[Path], object], reason: Reason, fault: Fault | None, model: Model, tmp_path: Path
) -> None:
    make(tmp_path / "a.wav")
    with pytest.raises(BadAudio) as error:
        model.predict(tmp_path / "a.wav")
    assert (error.value.reason, error.value.fault) == (reason, fault)


def _card(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _level(level: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        front_end = json.loads((folder / "model.json").read_text())["front_end"]
        _card(front_end=front_end | {"level": level})(folder)

    return change


Damage = Callable[[Path], object]
DAMAGED: dict[str, tuple[Damage, ErrorCode, str]] = {
    "no card": (lambda folder: (folder / "model.json").unlink(), ErrorCode.MODEL_INCOMPLETE, "model.json"),
    "no folder": (
        lambda folder: shutil.rmtree(folder),
        ErrorCode.MODEL_INCOMPLETE,
        "model.safetensors and model.json",
    ),
    "a truncated card": (
        lambda folder: (folder / "model.json").write_text("{"),
        ErrorCode.MODEL_CARD_NOT_JSON,
        "model.json",
    ),
    "a list as card": (
        lambda folder: (folder / "model.json").write_text("[]"),
        ErrorCode.MODEL_INCONSISTENT,
        "AttributeError",
    ),
    "truncated tensors": (
        lambda folder: os.truncate(folder / "model.safetensors", 999),
        ErrorCode.MODEL_INCONSISTENT,
        "SafetensorError",
    ),
    "no genres": (_card(genres=None), ErrorCode.MODEL_INCONSISTENT, "TypeError"),
    "other genres": (_card(genres=["jazz"]), ErrorCode.MODEL_INCONSISTENT, "1 genres"),
    "another backbone": (
        _card(recipe={"backbone": "vgg16", "precision": "float32"}),
        ErrorCode.MODEL_INCONSISTENT,
        "Missing key",
    ),
    "an unknown backbone": (
        _card(recipe={"backbone": "vgg17", "precision": "float32"}),
        ErrorCode.MODEL_INCONSISTENT,
        "vgg17",
    ),
    "an incomplete front end": (
        _card(front_end={"windows": [2048]}),
        ErrorCode.MODEL_INCONSISTENT,
        "TypeError",
    ),
    "an unknown level": (_level("loudness"), ErrorCode.MODEL_INCONSISTENT, "'loudness'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_model_is_refused(case: str, folder: Path, tmp_path: Path) -> None:
    damage, code, detail = DAMAGED[case]
    copy = Path(shutil.copytree(folder.parent, tmp_path / "models")) / folder.name
    damage(copy)
    with pytest.raises(InputError) as error:
        Model.load(copy)
    assert error.value.code is code
    assert str(copy) in str(error.value)
    assert detail in str(error.value)


def test_folders_and_lists_are_classified_in_order_with_one_line_per_bad_file(
    run: Path, songs: Path, genre_search: Command, tmp_path: Path
) -> None:
    (empty := tmp_path / "empty").mkdir()
    listed = f"{songs}/long.flac\n\n{songs}/nowhere.mp3\n{empty}\n{songs}/sub\n"
    done = genre_search("predict", run, songs, "-", "--json", input=listed)
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    sub = [f"sub/ten.{suffix}" for suffix in ("flac", "mp3", "ogg", "wav")]
    names = ["long.flac", "short.flac", "text.wav", *sub, "long.flac", "nowhere.mp3", str(empty), *sub]
    assert [row["path"] for row in rows] == [str(songs / name) for name in names]
    bad = {Path(row["path"]).name: row["error"].partition(":")[0] for row in rows if "error" in row}
    assert bad == {"text.wav": Reason.UNREADABLE, "nowhere.mp3": Reason.UNREADABLE, "empty": Reason.EMPTY}
    for row in (row for row in rows if "error" not in row):
        assert max(row["probabilities"], key=row["probabilities"].get) == row["genre"]
        assert row["padded"] == row["path"].endswith("short.flac")
        assert row["over_time"] == []


def test_a_file_has_its_path_first_then_the_likeliest_genres_with_bars_then_its_segments(
    folder: Path, model: Model, songs: Path, genre_search: Command
) -> None:
    files = songs / "sub" / "ten.wav", songs / "short.flac"
    done = genre_search("predict", folder, *files, "--over-time", "--top", 2)
    assert done.returncode == 0, done.stderr
    path, *rows = done.stdout.splitlines()
    expected = model.predict(files[0], over_time=True)
    likeliest = sorted(expected.probabilities.values(), reverse=True)[:2]
    assert path.startswith(f"{files[0]}  (10.0 s)")
    assert [row.split()[1] for row in rows[:2]] == [f"{value:.3f}" for value in likeliest]
    assert rows[0].split()[0] == expected.genre
    assert [row.split()[0] for row in rows[2:4]] == ["0.0-3.0", "3.0-5.9"]
    assert rows[2 + len(expected.over_time)].startswith(str(files[1]))
    [padded] = [line for line in done.stdout.splitlines() if "2.97 s" in line]
    assert "short.flac" in padded


def test_csv_has_a_row_per_segment_and_a_column_per_genre(
    folder: Path, model: Model, songs: Path, genre_search: Command, tmp_path: Path
) -> None:
    files = songs / "sub" / "ten.wav", songs / "text.wav"
    done = genre_search("predict", folder, *files, "--over-time", "--csv")
    assert done.returncode == 1, "one file is bad"
    track, *segments, bad = csv.DictReader(done.stdout.splitlines())
    expected = model.predict(files[0], over_time=True)
    assert (track["path"], track["genre"], track["error"]) == (str(files[0]), expected.genre, "")
    for row, probabilities in zip(
        [track, *segments],
        [expected.probabilities, *(segment.probabilities for segment in expected.over_time)],
        strict=True,
    ):
        assert {genre: float(row[genre]) for genre in model.genres} == pytest.approx(probabilities, abs=1e-6)
    assert (bad["path"], bad["genre"]) == (str(files[1]), "")
    assert bad["error"]
    refused = genre_search("predict", folder, *files, "--json", "--csv")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a song's name.mp3", "a song's name.mp3"),
        ("two\nlines.mp3", "two\\nlines.mp3"),
        ("\x1b[2J.mp3", "\\x1b[2J.mp3"),
        ("byte \udcff.mp3", "byte \udcff.mp3"),
    ],
    ids=["plain", "line break", "escape", "undecodable"],
)
def test_a_path_is_shown_as_it_is_but_cannot_control_the_terminal(path: str, shown: str) -> None:
    outcome = Prediction(genre="rock", probabilities={"rock": 1.0}, seconds=3.0, padded=False)
    first = text_lines(path, outcome, top=3, segment_seconds=3.0).splitlines()[0]
    assert first == f"{shown}  (3.0 s)"


def test_rows_are_printed_one_by_one_and_a_closed_pipe_is_not_an_error(folder: Path, songs: Path) -> None:
    command = [str(Path(sys.executable).parent / "genre-search"), "predict", str(folder), "--json", "-"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(os.fsencode(songs / "short.flac") + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["padded"], "printed before the list has ended"
        process.stdout.close()
        process.stdin.write(b"nowhere.wav\n" * 3)
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_three_lines_of_the_docstring_work(
    folder: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line[4:] for line in str(predict.__doc__).splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    script = "\n".join(lines).replace("exported", str(folder))
    exec(script.replace("song.mp3", str(songs / "sub" / "ten.mp3")), {})
    assert capsys.readouterr().out.startswith("Prediction(genre='")
