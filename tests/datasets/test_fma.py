"""FMA's table of tracks and its audio become a manifest with artists, top genres and the official split."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import Command
from mirrors import File, serving
from shaped import FMA_GENRES, SILENT, fma_archives

from genre_core.corpus.audit import audit
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, read_corpus
from genre_core.datasets.fetch import MIRRORS, NAMES, read_mirrors
from genre_core.datasets.fma import tracks
from genre_core.errors import ErrorCode, InputError

TABLE = [
    ["", "artist", "artist", "set", "set", "track"],
    ["", "id", "bio", "split", "subset", "genre_top"],
    ["track_id", "", "", "", "", ""],
    ["2", "1", "x" * 200_000, "training", "small", "Hip-Hop"],
    ["1005", "2", "a,\nb", "validation", "medium", "Old-Time / Historic"],
    ["99134", "3", "", "test", "small", "Rock"],
    ["150000", "4", "", "test", "large", "NA"],
    ["150001", "5", "", "test", "large", ""],
    ["150002", "6", "", "", "large", "Rock"],
]
PLACES = {
    2: "000/000002",
    1005: "001/001005",
    99134: "099/099134",
    150000: "150/150000",
    150001: "150/150001",
}


def unpacked(folder: Path, table: list[list[str]] = TABLE) -> Path:
    """The table, and empty files for all of PLACES in each subset's folder."""
    (folder / "fma_metadata").mkdir()
    with (folder / "fma_metadata/tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    for subset in ("small", "medium", "large"):
        for place in PLACES.values():
            path = folder / f"fma_{subset}" / f"{place}.mp3"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


# a subset, its listed tracks, the counts of skipped ones: without audio, without genre or split
SUBSETS = [("small", {2}, ["1"]), ("medium", {2, 1005}, ["1"]), ("large", {2, 1005, 150000}, ["1", "2"])]


@pytest.mark.parametrize(("subset", "numbers", "skipped"), SUBSETS)
def test_a_subset_contains_the_smaller_ones_and_skips_unusable_tracks(
    tmp_path: Path, subset: str, numbers: set[int], skipped: list[str]
) -> None:
    found, notes = tracks(unpacked(tmp_path), subset)
    assert [track.track_id for track in found] == [f"fma_{subset}/{PLACES[n]}.mp3" for n in sorted(numbers)]
    (note,) = notes
    assert re.findall(r"\d+", note) == skipped
    expected = {row[0]: (row[5], f"artist {row[1]}") for row in TABLE}
    for track in found:
        assert (track.genre, track.group) == expected[str(int(track.path.stem))]
        assert track.path.is_file()
    assert [track.split for track in found] == ["train", "validation", "test"][: len(numbers)]


def test_each_track_without_an_artist_is_its_own_group(tmp_path: Path) -> None:
    bare = [row if number < 3 else [row[0], "", *row[2:]] for number, row in enumerate(TABLE)]
    found, _ = tracks(unpacked(tmp_path, bare), "large")
    assert len(found) > 1
    assert [track.group for track in found] == [track.track_id for track in found]


def test_missing_tracks_are_skipped_and_counted(tmp_path: Path) -> None:
    (unpacked(tmp_path) / "fma_medium/001/001005.mp3").unlink()
    found, (note,) = tracks(tmp_path, "medium")
    assert len(found) == 1
    assert re.search(rf"\b1 \S+ in {re.escape(str(tmp_path))}/fma_medium$", note)
    (tmp_path / "fma_medium/000/000002.mp3").unlink()
    with pytest.raises(InputError) as error:
        tracks(tmp_path, "medium")
    assert error.value.code is ErrorCode.NO_TRACKS
    assert f"{tmp_path}/fma_medium" in str(error.value)


@pytest.mark.parametrize("table", [[], [["path", "genre"], ["a", "b"]], [*TABLE[:3], ["two", *TABLE[3][1:]]]])
def test_another_table_is_rejected(tmp_path: Path, table: list[list[str]]) -> None:
    with pytest.raises(InputError) as error:
        tracks(unpacked(tmp_path, table), "small")
    assert error.value.code is ErrorCode.FMA_TABLE_UNREADABLE
    assert str(tmp_path / "fma_metadata/tracks.csv") in str(error.value)


def test_fma_is_downloaded_with_its_metadata_and_can_be_searched(
    music: Path, genre_search: Command, tmp_path: Path
) -> None:
    metadata, audio = (path.read_bytes() for path in fma_archives(music, tmp_path))
    folder = tmp_path / "F"
    with serving(metadata=File(metadata), audio=File(audio, cuts=[500_000])) as mirror:
        archives = [
            {"name": "fma_metadata.zip", "urls": [f"{mirror.url}/metadata"]},
            {"name": "fma_small.zip", "urls": [f"{mirror.url}/audio"], "size": len(audio)},
        ]
        (tmp_path / "m.yaml").write_text(yaml.safe_dump({"fma_small": archives}))
        done = genre_search("data", "get", "fma_small", folder, "--mirrors", tmp_path / "m.yaml")
        again = genre_search("data", "get", "fma_small", folder, "--mirrors", tmp_path / "m.yaml")
        assert [asked[0] for asked in mirror.asked] == ["metadata", "audio", "audio"]
    assert (done.returncode, done.stderr) == (0, "")
    unverified, size_only, skipped, result = done.stdout.splitlines()[-4:]
    assert unverified.startswith("fma_metadata.zip: ")
    assert size_only.startswith("fma_small.zip: ")
    assert "size" in size_only
    assert f"{folder}/fma_small" in skipped
    for part in (
        *("48 tracks", "8 genres", "16 train", "16 validation", "16 test"),
        f"genre-search data check {folder}",
        f"genre-search run --config configs/fma_small.yaml --data {folder}",
    ):
        assert part in result
    assert again.stdout.splitlines() == [skipped, result]
    checked = genre_search("data", "check", folder)
    assert checked.returncode == 0
    assert "48 files in 8 genres" in checked.stdout.splitlines()[-1]
    corpus = split_corpus(
        audit(read_corpus(folder), minimum_seconds=3, cache=None), validation=0.2, test=0.2, seed=0
    )
    assert corpus.genres == FMA_GENRES
    assert Counter(track.split for track in corpus.usable) == dict.fromkeys(SPLITS, 16)
    assert (folder / f"fma_small/099/{SILENT:06}.mp3").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_default_mirrors_are_valid_and_have_checksums(name: str) -> None:
    archives = read_mirrors(MIRRORS, name)
    assert all(archive.checksums for archive in archives)
    assert [archive.name for archive in archives][-1] == (
        "genres.tar.gz" if name == "gtzan" else f"{name}.zip"
    )
    assert all(
        url.startswith("https://") and url.endswith(archive.name)
        for archive in archives
        for url in archive.urls
    )
