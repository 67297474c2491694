"""Synthetic music in the layouts of GTZAN and FMA, with their known faults."""

import csv
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import soundfile
from torchaudio.datasets import gtzan

from genre_core.corpus.tracks import SPLITS, Track, read_corpus

FILTERED = {"train": gtzan.filtered_train, "validation": gtzan.filtered_valid, "test": gtzan.filtered_test}
CORRUPT = "jazz.00054"
FMA_GENRES = ("Electronic", "Experimental", "Folk", "Hip-Hop", "Instrumental", "International", "Pop", "Rock")
FMA_SIDES = ("training", "validation", "test")
SILENT = 99134


def gtzan_folder(music: Path, folder: Path, replicas: int = 1) -> Path:
    """Copy a synthetic corpus to `folder`/GENRE/GENRE.NUMBER.wav, one recording per genre and part of the split.

    The names are from the filtered split. In addition there are jazz.00054, which is not audio, a hidden macOS file for
    each genre, and `replicas` exact copies of a test track under names that the split does not list.
    """
    for genre, tracks in _by_genre(music):
        (folder / genre).mkdir(parents=True)
        for side, recording in zip(SPLITS, _recordings(tracks), strict=True):
            names = [name for name in FILTERED[side] if name.startswith(genre) and name != CORRUPT]
            for track, name in zip(recording, names, strict=False):
                shutil.copy(track.path, folder / genre / f"{name}.wav")
        listed = {name for names in FILTERED.values() for name in names}
        spare = [name for number in range(100) if (name := f"{genre}.{number:05}") not in listed]
        for name in spare[:replicas]:
            shutil.copy(recording[0].path, folder / genre / f"{name}.wav")
        (folder / genre / f"._{genre}.00000.wav").write_bytes(b"\0\5\26\7Mac OS X")
    (folder / "jazz" / f"{CORRUPT}.wav").write_bytes(b"\1\0" * 5_000)
    return folder


def gtzan_archive(music: Path, folder: Path) -> Path:
    """Pack this as `folder`/genres.tar.gz, as on Hugging Face."""
    gtzan_folder(music, folder / "genres")
    with tarfile.open(folder / "genres.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder / "genres", "genres")
    return folder / "genres.tar.gz"


def fma_archives(music: Path, folder: Path) -> list[Path]:
    """Write `folder`/fma_metadata.zip and fma_small.zip, compressed with bzip2 like the real ones.

    There are eight genres with one artist per part of the split, a track known to contain no audio, one that is missing
    in the archive, and one of each larger subset, the last without a genre.
    """
    rows: list[tuple[int, *tuple[str, ...]]] = []
    audio = folder / "fma_small"
    for genre, (_, tracks) in zip(FMA_GENRES, _by_genre(music), strict=False):
        for side, recording in zip(FMA_SIDES, _recordings(tracks), strict=True):
            for track in recording:
                rows.append(_fma_row(2 + 137 * len(rows), f"{genre} {side}", side, "small", genre))
                path = audio / f"{rows[-1][0] // 1000:03}/{rows[-1][0]:06}.mp3"
                path.parent.mkdir(parents=True, exist_ok=True)
                samples, rate = soundfile.read(track.path)
                soundfile.write(path, samples, rate)
    (audio / f"{SILENT // 1000:03}").mkdir(exist_ok=True)
    (audio / f"{SILENT // 1000:03}" / f"{SILENT:06}.mp3").write_bytes(b"ID3" + bytes(500))
    rows += [
        _fma_row(SILENT, "nobody", "training", "small", "Rock"),
        _fma_row(150_000, "nobody", "training", "small", "Rock"),
        _fma_row(150_001, "somebody", "training", "medium", "Blues"),
        _fma_row(150_002, "somebody", "training", "large", ""),
    ]
    (folder / "fma_metadata").mkdir()
    header = [
        ("", "album", "artist", "artist", "set", "set", "track"),
        ("", "id", "bio", "id", "split", "subset", "genre_top"),
        ("track_id", "", "", "", "", "", ""),
    ]
    with (folder / "fma_metadata/tracks.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*header, *rows])
    return [_zipped(folder / name) for name in ("fma_metadata", "fma_small")]


def _fma_row(number: int, artist: str, side: str, subset: str, genre: str) -> tuple[int, *tuple[str, ...]]:
    bio = 'Plays "everything",\nand <b>more</b>'
    return (number, "1", bio, str(sum(artist.encode())), side, subset, genre)


def _zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder.parent))
    return path


def _by_genre(music: Path) -> Iterator[tuple[str, list[Track]]]:
    corpus = read_corpus(music)
    for genre in corpus.genres:
        yield genre, [track for track in corpus.tracks if track.genre == genre]


def _recordings(tracks: list[Track]) -> list[list[Track]]:
    """The tracks of the first three groups."""
    groups = sorted({track.group for track in tracks})[: len(SPLITS)]
    return [[track for track in tracks if track.group == group] for group in groups]
