"""FMA's table of tracks and its folders become a manifest with its artists, its top genres and its own split."""

import csv
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
from genre_core.errors import InputError

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


def laid(folder: Path, table: list[list[str]] = TABLE) -> Path:
    """The table, and files without audio for all of PLACES in each subset's folder."""
    (folder / "fma_metadata").mkdir()
    with (folder / "fma_metadata/tracks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    for subset in ("small", "medium", "large"):
        for place in PLACES.values():
            path = folder / f"fma_{subset}" / f"{place}.mp3"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


# a subset, what it lists, what it says of the rest
SUBSETS = [
    ("small", {2}, "1 known to hold no audio"),
    ("medium", {2, 1005}, "1 known to hold no audio"),
    ("large", {2, 1005, 150000}, "1 known to hold no audio, 2 without a top genre or a split"),
]


@pytest.mark.parametrize(("subset", "numbers", "words"), SUBSETS)
def test_a_subset_holds_those_before_it_and_leaves_out_what_cannot_be_used(
    tmp_path: Path, subset: str, numbers: set[int], words: str
) -> None:
    found, notes = tracks(laid(tmp_path), subset)
    assert [track.track_id for track in found] == [f"fma_{subset}/{PLACES[n]}.mp3" for n in sorted(numbers)]
    assert notes == [f"tracks left out: {words}"]
    expected = {row[0]: (row[5], f"artist {row[1]}") for row in TABLE}
    for track in found:
        assert (track.genre, track.group) == expected[str(int(track.path.stem))]
        assert track.path.is_file()
    assert [track.split for track in found] == ["train", "validation", "test"][: len(numbers)]


def test_tracks_without_an_artist_are_groups_of_their_own(tmp_path: Path) -> None:
    bare = [row if number < 3 else [row[0], "", *row[2:]] for number, row in enumerate(TABLE)]
    found, _ = tracks(laid(tmp_path, bare), "large")
    assert len(found) > 1
    assert [track.group for track in found] == [track.track_id for track in found]


def test_tracks_that_are_not_there_are_left_out_and_told(tmp_path: Path) -> None:
    (laid(tmp_path) / "fma_medium/001/001005.mp3").unlink()
    found, notes = tracks(tmp_path, "medium")
    assert len(found) == 1
    assert notes[0].endswith(f"1 not in {tmp_path}/fma_medium")
    (tmp_path / "fma_medium/000/000002.mp3").unlink()
    with pytest.raises(
        InputError, match=r"no track of .*tracks.csv is in .*fma_medium: take that away and run it"
    ):
        tracks(tmp_path, "medium")


@pytest.mark.parametrize("table", [[], [["path", "genre"], ["a", "b"]], [*TABLE[:3], ["two", *TABLE[3][1:]]]])
def test_another_table_is_refused(tmp_path: Path, table: list[list[str]]) -> None:
    with pytest.raises(
        InputError, match=r"tracks.csv must be FMA's table of tracks, but cannot be read as one"
    ):
        tracks(laid(tmp_path, table), "small")


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
    said = done.stdout.splitlines()[-4:]
    assert said == [
        "fma_metadata.zip: neither a checksum nor a size is known for it",
        "fma_small.zip: no checksum is known for it; its size is as announced",
        f"tracks left out: 1 known to hold no audio, 1 not in {folder}/fma_small",
        "fma_small: 48 tracks in 8 genres, 16 train, 16 validation, 16 test; "
        f"next: genre-search data check {folder}    "
        f"genre-search run --config configs/fma_small.yaml --data {folder}",
    ]
    assert again.stdout.splitlines() == said[-2:]
    checked = genre_search("data", "check", folder)
    assert checked.returncode == 0
    assert checked.stdout.splitlines()[-1].startswith("48 files in 8 genres, all good")
    corpus = split_corpus(
        audit(read_corpus(folder), minimum_seconds=3, cache=None), validation=0.2, test=0.2, seed=0
    )
    assert corpus.genres == FMA_GENRES
    assert Counter(track.split for track in corpus.usable) == dict.fromkeys(SPLITS, 16)
    assert (folder / f"fma_small/099/{SILENT:06}.mp3").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_our_own_mirrors_are_well_formed_and_have_a_checksum_each(name: str) -> None:
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
