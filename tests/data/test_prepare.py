"""The preparation rejects data that a search cannot use, and reports genres, files and warnings."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import flat
from refusals import refused
from reporters import RecordingReporter

from genre_core.audio.mel import FrontEnd
from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.mel_parts import AudioFile, Transformed, in_threads
from genre_core.corpus.tracks import SPLITS, Corpus, read_corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.synthetic.styles import GENRES
from genre_core.system.addresses import child
from search.config.schema import SearchConfig, load, to_yaml
from search.data import genre_list, prepare
from search.data.music import locate_music
from search.errors import SearchErrorCode
from search.run.folder import RunFolder


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"segment_seconds": 0.5}, "0.5"),
        ({"segment_seconds": 2.0, "space.backbone": "alexnet"}, "2.0"),
    ],
)
def test_a_segment_with_too_few_frames_is_rejected(
    tiny: Callable[..., SearchConfig], changes: dict[str, Any], value: str
) -> None:
    with pytest.raises(InputError) as error:
        prepare.read_data(tiny(**changes))
    assert error.value.code is SearchErrorCode.SEGMENT_TOO_SHORT
    assert "segment_seconds" in str(error.value)
    assert value in str(error.value)


def test_too_many_bad_files_are_an_error_that_names_the_command_to_list_them(
    tiny: Callable[..., SearchConfig], music: Path, cache: Path
) -> None:
    with pytest.raises(InputError) as error:
        prepare.prepare(tiny(segment_seconds=3.3), cache=cache, reporter=RecordingReporter())
    assert error.value.code is SearchErrorCode.TOO_MANY_BAD_FILES
    assert "max_bad_share" in str(error.value)
    assert f"genre-search data check {music}" in str(error.value)


def test_a_manifest_may_list_a_few_files_that_do_not_exist_but_not_more_than_max_bad_share(
    tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    names = [f"{genre}/{number}.wav" for genre in ("jazz", "soul") for number in range(5)]
    for name in names[1:]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["path,genre", *(f"{name},{name[:4]}" for name in names)]) + "\n")
    found = prepare.read_data(tiny(data=str(manifest), max_bad_share=0.1))
    assert found is not None
    assert len(found.usable) == len(names)
    (tmp_path / names[1]).unlink()
    with refused(SearchErrorCode.TOO_MANY_BAD_FILES, "10%", "2 of 10", manifest, repr(names[0]), "correct"):
        prepare.read_data(tiny(data=str(manifest), max_bad_share=0.1))


def test_a_resumed_search_needs_the_same_weights_and_audio(
    tiny: Callable[..., SearchConfig], music: Path, tmp_path: Path
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(music, data)
    config = tiny(data=str(data))
    tracks, ready = prepare.prepare(config, cache=cache, reporter=RecordingReporter())
    again = prepare.prepare_resumed(config, tracks, cache=cache, reporter=RecordingReporter())
    assert (again.spectrograms, again.weights) == (ready.spectrograms, ready.weights)

    other = config.model_copy(update={"provenance": {"weights": {"resnet18": "another file"}}})
    with pytest.raises(InputError) as error:
        prepare.verify_weights(other, RecordingReporter())
    assert error.value.code is SearchErrorCode.WEIGHTS_CHANGED
    assert "resnet18" in str(error.value)

    shutil.rmtree(next(cache.rglob(ready.spectrograms)))
    changed = tracks.usable[0]
    changed.path.write_bytes(tracks.usable[1].path.read_bytes())
    with pytest.raises(InputError) as error:
        prepare.reopen_store(config, tracks, cache=cache, reporter=RecordingReporter())
    assert error.value.code is SearchErrorCode.AUDIO_CHANGED
    assert repr(changed.track_id) in str(error.value)
    assert "--data PATH" in str(error.value)


def test_a_run_reports_its_genres_and_missing_groups_first() -> None:
    reporter = RecordingReporter()
    prepare.report_genres(flat(jazz=10, soul=12), reporter)
    corpus = flat(jazz=10, soul=12)
    assert reporter.lines == [
        genre_list.summary(corpus),
        *(f"warning: {warning}" for warning in genre_list.warnings(corpus)),
    ]
    assert "jazz 10/10, soul 12/12" in reporter.lines[0]
    assert "`group`" in reporter.lines[1]


def test_a_run_counts_files_with_warnings_and_names_the_command_that_lists_them() -> None:
    tracks = list(flat(jazz=3).tracks)
    tracks[0] = replace(tracks[0], warnings=("clipped", "quiet"))
    tracks[1] = replace(tracks[1], warnings=("clipped",), excluded_reason="shorter than a segment")
    reporter = RecordingReporter()
    prepare.report_files(Corpus(tuple(tracks)), reporter)
    excluded, counted = reporter.lines
    assert repr(tracks[1].track_id) in excluded
    assert "shorter than a segment" in excluded
    assert "1 of 2" in counted
    assert "genre-search data check" in counted


def test_genres_are_reported_before_spectrograms_are_computed(
    tiny: Callable[..., SearchConfig], cache: Path
) -> None:
    reporter = RecordingReporter()
    prepare.prepare(tiny(), cache=cache, reporter=reporter)
    (listed,) = [line for line in reporter.lines if line.count(" 6/3") == 10]
    assert reporter.lines.index(listed) < reporter.lines.index("Computing spectrograms")
    assert any(line.startswith("warning: ") for line in reporter.lines)


def test_validation_is_drawn_from_training_only_if_the_setting_is_on(
    tiny: Callable[..., SearchConfig], music: Path, tmp_path: Path, cache: Path
) -> None:
    tracks = read_corpus(music).tracks
    held = {max(track.group for track in tracks if track.genre == genre) for genre in GENRES}
    rows = [f"{t.path},{t.genre},{t.group},{'test' if t.group in held else 'train'}" for t in tracks]
    (tmp_path / "m.csv").write_text("\n".join(["path,genre,group,split", *rows]))
    data = str(tmp_path / "m.csv")
    assert not load(None, {}).split.draw_validation
    with pytest.raises(InputError) as error:
        prepare.prepare(tiny(data=data), cache=cache, reporter=RecordingReporter())
    assert "split.draw_validation=true" in str(error.value)
    parted, _ = prepare.prepare(
        tiny(data=data, split__draw_validation=True), cache=cache, reporter=RecordingReporter()
    )
    assert [len(parted.part(part)) for part in SPLITS] == [20, 20, 20]
    assert {track.group for track in parted.part("test")} == held


def test_a_single_genre_is_rejected_before_a_file_is_decoded(
    tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    for genre in ("jazz", "soul"):
        (tmp_path / "all" / genre).mkdir(parents=True)
        (tmp_path / "all" / genre / "a.wav").touch()
    with pytest.raises(InputError) as error:
        prepare.read_data(tiny(data=str(tmp_path)))
    assert error.value.code is ErrorCode.TOO_FEW_GENRES
    assert str(tmp_path / "all") in str(error.value)


def test_a_corpus_that_was_prepared_is_decoded_once_and_not_again_by_a_search(
    tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    transformed: list[str] = []

    def transform(files: Sequence[AudioFile], setting: FrontEnd) -> Iterator[Sequence[Transformed]]:
        transformed.extend(file.location for file in files)
        return in_threads(files, setting)

    reporter = RecordingReporter()
    tracks, store = prepare.prepare_corpus(
        tiny(), None, cache=tmp_path, reporter=reporter, transform=transform
    )
    assert sorted(transformed) == sorted(track.location for track in tracks.tracks)
    assert all(track in store for track in tracks.usable)
    _, ready = prepare.prepare(tiny(), cache=tmp_path, reporter=reporter, transform=transform)
    assert len(transformed) == len(tracks.tracks)
    assert ready.spectrograms == store.folder.name


def test_music_at_an_address_is_prepared_resumed_and_moved(
    tiny: Callable[..., SearchConfig], music: Path, tmp_path: Path
) -> None:
    """The tracks and the store are those of the folder; only their locations differ."""
    address, cache = (music.parent / music.name).as_uri(), tmp_path / "cache"
    here, ready = prepare.prepare(tiny(), cache=tmp_path / "other", reporter=RecordingReporter())
    config = tiny(data=address)
    there, remote = prepare.prepare(config, cache=cache, reporter=RecordingReporter())
    assert {track.location for track in there.tracks} == {
        child(address, track.track_id) for track in here.tracks
    }
    unlocated = [
        Corpus(tuple(replace(track, location="") for track in tracks.tracks)) for tracks in (here, there)
    ]
    assert unlocated[0] == unlocated[1]
    assert remote.spectrograms == ready.spectrograms
    assert remote.train.digest == ready.train.digest
    shutil.rmtree(cache)
    again = prepare.prepare_resumed(config, there, cache=cache, reporter=RecordingReporter())
    assert again.spectrograms == ready.spectrograms

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    write_corpus(there, run.corpus)
    run.config.write_text(to_yaml(config))
    for data in (str(music), address):
        moved, tracks = locate_music(config, run.path, data, cache=cache, reporter=RecordingReporter())
        assert moved.data == data == load(run.config, {}).data
        assert tracks == (here if data == str(music) else there)


def test_a_manifest_of_a_storage_may_list_only_a_few_files_that_were_not_listed(
    tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    names = [f"{genre}/{number}.wav" for genre in ("jazz", "soul") for number in range(5)]
    for name in names[2:]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "manifest.csv").write_text("path,genre\n" + "".join(f"{n},{n[:4]}\n" for n in names))
    with refused(SearchErrorCode.TOO_MANY_BAD_FILES, "10%", "2 of 10", tmp_path, repr(names[0])):
        prepare.read_data(tiny(data=tmp_path.as_uri(), max_bad_share=0.1))
