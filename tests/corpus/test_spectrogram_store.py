"""The spectrogram store: correct, found again, atomic, and built once by several processes."""

import hashlib
import json
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from stores import in_one_file

from genre_core.audio import decode
from genre_core.audio.mel import FRONT_ENDS, FrontEnd, front_end, stored_mel
from genre_core.corpus import mel_parts, spectrogram_store
from genre_core.corpus.audit import audit, version_of
from genre_core.corpus.mel_parts import AudioFile, Transformed, in_threads
from genre_core.corpus.spectrogram_store import SpectrogramStore, open_or_build
from genre_core.corpus.tracks import Track, read_corpus
from genre_core.synthetic.corpus import SyntheticCorpus, write

MEL64 = front_end("mel64")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Track, ...]:
    """Ten generated tracks, audited."""
    folder = tmp_path_factory.mktemp("music")
    write(SyntheticCorpus(tracks_per_genre=1, seconds=4.0, tracks_per_recording=1), folder)
    return audit(read_corpus(folder), minimum_seconds=3.0, cache=None, workers=2).usable


def _build(tracks: Sequence[Track], cache: Path, setting: FrontEnd = MEL64) -> SpectrogramStore:
    return open_or_build(tracks, setting, cache=cache, workers=2)


def _stores(cache: Path) -> list[str]:
    """Names of the finished stores."""
    return sorted(index.parent.name for index in (cache / "spectrograms").glob("[!.]*/index.json"))


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_store_has_the_mel_of_each_track(name: str, tracks: tuple[Track, ...], tmp_path: Path) -> None:
    setting = front_end(name)
    store = _build(tracks, tmp_path, setting)
    for track in tracks:
        waveform, rate = soundfile.read(track.path, dtype="float32")
        assert rate == setting.sample_rate
        assert np.array_equal(store.mel(track), stored_mel(waveform, setting))


def test_a_store_is_found_by_the_files_whatever_their_paths(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    first = _build(tracks, tmp_path / "cache")
    copies = tmp_path / "elsewhere"
    for track in tracks:
        (copies / track.genre).mkdir(parents=True)
        (copies / track.genre / "copy.wav").write_bytes(track.path.read_bytes())
    again = audit(read_corpus(copies), minimum_seconds=3.0, cache=None, workers=2).usable
    modified = (first.folder / "index.json").stat().st_mtime_ns
    assert _build(again, tmp_path / "cache").folder == first.folder
    assert (first.folder / "index.json").stat().st_mtime_ns == modified


def test_other_content_or_another_front_end_has_another_store(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    stores = [
        _build(tracks, tmp_path),
        _build(tracks[1:], tmp_path),
        _build(tracks, tmp_path, front_end("mel128")),
    ]
    assert len({store.folder for store in stores}) == 3


def test_stores_of_absolute_levels_keep_the_name_from_before_the_setting(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    """Tracks of earlier versions have no hash of their file."""
    tracks = tuple(replace(track, file_hash=None) for track in tracks)
    settings = {"name": "mel64", "n_mels": 64, "hop_length": 1024, "windows": [2048], "sample_rate": 22_050}
    key = json.dumps([1, settings, sorted(str(track.content) for track in tracks)])
    store = _build(tracks, tmp_path, front_end("mel64", level="absolute"))
    assert store.folder.name == f"mel64-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    assert _build(tracks, tmp_path).folder != store.folder


def test_a_store_that_an_earlier_version_keyed_by_decoded_content_is_used(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    earlier = _build([replace(track, file_hash=None) for track in tracks], tmp_path)
    found = _build(tracks, tmp_path)
    assert found.folder == earlier.folder
    assert all(np.array_equal(found.mel(track), earlier.mel(track)) for track in tracks)


def test_a_file_that_another_machine_decoded_to_other_samples_is_the_same_file(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    elsewhere = [replace(track, content=f"{n:064}") for n, track in enumerate(tracks)]
    store = _build(elsewhere, tmp_path)
    assert all(track in store for track in elsewhere)
    assert _build(tracks, tmp_path).folder == store.folder


def test_a_lost_file_is_left_out_and_the_store_is_found_without_it(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    music = tmp_path / "music"
    (music / "rock").mkdir(parents=True)
    for n, track in enumerate(tracks):
        (music / "rock" / f"{n}.wav").write_bytes(track.path.read_bytes())
    moved = audit(read_corpus(music), minimum_seconds=3.0, cache=None, workers=2).usable
    moved[4].path.unlink()
    store = _build(moved, tmp_path / "cache")
    assert [track in store for track in moved] == [n != 4 for n in range(len(moved))]
    assert _build([*moved[:4], *moved[5:]], tmp_path / "cache").folder == store.folder


def test_segments_are_cut_from_their_own_tracks(tracks: tuple[Track, ...], tmp_path: Path) -> None:
    store = _build(tracks, tmp_path)
    genres = sorted({track.genre for track in tracks})
    segments = store.segments(tracks[:4], genres=genres, segment_frames=40, segments_per_track=2)
    assert segments.mels.shape == (8, 1, 64, 40)
    assert segments.track.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [genres[g] for g in segments.genre] == [track.genre for track in tracks[:4]]
    last = store.mel(tracks[2])[-40:, 0].T
    assert np.array_equal(segments.mels[torch.tensor([5])][0, 0], last)


def _build_in_process(tracks: tuple[Track, ...], cache: Path) -> str:
    store = _build(tracks, cache)
    return f"{store.folder.name} {(store.folder / 'index.json').stat().st_ino}"


def test_two_processes_build_one_store(tracks: tuple[Track, ...], tmp_path: Path) -> None:
    with SPAWN.Pool(2) as pool:
        first, second = pool.starmap(_build_in_process, [(tracks, tmp_path)] * 2)
    assert first == second
    assert len(_stores(tmp_path)) == 1


def _build_until(tracks: tuple[Track, ...], cache: Path, enough: int, reached: Event) -> None:
    """Build a store in parts of three tracks and hang after `enough` tracks."""

    def progress(done: int, total: int) -> None:
        if done == enough:
            reached.set()
            threading.Event().wait()

    mel_parts.PART_TRACKS = 3
    open_or_build(tracks, MEL64, cache=cache, workers=1, progress=progress)


@pytest.mark.parametrize("enough", [3, 9, 10])
def test_a_build_that_was_killed_continues_with_the_tracks_that_it_had_not_finished(
    enough: int, tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    reached = SPAWN.Event()
    builder = SPAWN.Process(target=_build_until, args=(tracks, tmp_path, enough, reached))
    builder.start()
    assert reached.wait(100)
    builder.kill()
    builder.join()
    assert _stores(tmp_path) == [], "no store may look complete"
    transformed: list[str] = []

    def transform(files: Sequence[AudioFile], setting: FrontEnd) -> Iterator[Sequence[Transformed]]:
        transformed.extend(file.location for file in files)
        return in_threads(files, setting, workers=1)

    store = open_or_build(tracks, MEL64, cache=tmp_path, transform=transform)
    assert transformed == [track.location for track in tracks[enough:]]
    assert _stores(tmp_path) == [store.folder.name]
    again = _build(tracks, tmp_path / "undisturbed")
    assert all(np.array_equal(store.mel(track), again.mel(track)) for track in tracks)


def test_stores_share_the_tracks_that_they_have_in_common(tracks: tuple[Track, ...], tmp_path: Path) -> None:
    _build(tracks[:7], tmp_path)
    transformed: list[str] = []

    def transform(files: Sequence[AudioFile], setting: FrontEnd) -> Iterator[Sequence[Transformed]]:
        transformed.extend(file.location for file in files)
        return in_threads(files, setting, workers=1)

    larger = open_or_build(tracks, MEL64, cache=tmp_path, transform=transform)
    assert transformed == [track.location for track in tracks[7:]]
    smaller = open_or_build(tracks[2:4], MEL64, cache=tmp_path, transform=transform)
    assert len(transformed) == 3
    assert np.array_equal(smaller.mel(tracks[3]), larger.mel(tracks[3]))


def test_a_store_in_one_file_of_an_earlier_version_is_read(
    tracks: tuple[Track, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _build(tracks, tmp_path / "now")
    earlier = in_one_file(store, tmp_path / "then" / "spectrograms" / store.folder.name)
    monkeypatch.setattr(spectrogram_store, "SHARD_BYTES", 3 * 80 * 64 * 2)
    found = _build(tracks, tmp_path / "then")
    assert found.folder == earlier
    assert len(found.frames.shards) == 4
    assert all(np.array_equal(found.mel(track), store.mel(track)) for track in tracks)


def test_files_are_examined_and_transformed_in_one_pass(
    tracks: tuple[Track, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The findings and the spectrograms are those of an audit and of a later build; both are kept."""
    versions = {track.location: version_of(track.location) for track in tracks}
    parts = spectrogram_store.mel_parts(MEL64, tmp_path)
    found = dict(parts.examine(versions, in_threads, minimum_seconds=3.0))
    assert {
        file: (finding.content, finding.file_hash, finding.seconds) for file, finding in found.items()
    } == {track.location: (track.content, track.file_hash, track.seconds) for track in tracks}
    monkeypatch.delattr(decode, "examine")
    monkeypatch.delattr(decode, "read")
    again = spectrogram_store.mel_parts(MEL64, tmp_path)
    assert dict(again.examine(versions, in_threads, minimum_seconds=3.0)) == found
    store = _build(tracks, tmp_path)
    monkeypatch.undo()
    expected = _build([replace(track, file_hash=None) for track in tracks], tmp_path / "apart")
    assert all(np.array_equal(store.mel(track), expected.mel(track)) for track in tracks)


def test_a_bad_or_short_file_has_a_finding_and_no_spectrogram(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    locations = [tracks[0].location, str(tmp_path / "bad.wav"), str(tmp_path / "missing.wav")]
    parts = spectrogram_store.mel_parts(MEL64, tmp_path)
    found = dict(
        parts.examine({file: version_of(file) for file in locations}, in_threads, minimum_seconds=5.0)
    )
    assert [bool(found[file].reason) for file in locations] == [False, True, True]
    assert parts.places(finding.file_hash or "" for finding in found.values()) == {}


def test_a_track_that_changed_since_it_was_audited_is_not_stored(
    tracks: tuple[Track, ...], tmp_path: Path
) -> None:
    for hashed in (tracks, [replace(track, file_hash=None) for track in tracks]):
        changed = replace(hashed[0], location=tracks[1].location)
        store = _build((changed, *hashed[1:]), tmp_path / str(hashed is tracks))
        assert [track in store for track in hashed] == [n > 0 for n in range(len(tracks))]
