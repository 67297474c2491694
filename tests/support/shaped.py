"""Generated music in the shapes of GTZAN and FMA, with the faults that the real ones have."""

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
    """`folder`/GENRE/GENRE.00012.wav of a generated corpus with three recordings a genre: one for each side.

    Names are those of the filtered split. Beside them lie jazz.00054, which is no audio, for each genre a hidden
    file as macOS adds it, and `replicas` exact copies of a test track under names that the split does not list.
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
    """`folder`/genres.tar.gz of the same, as Hugging Face has it."""
    gtzan_folder(music, folder / "genres")
    with tarfile.open(folder / "genres.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder / "genres", "genres")
    return folder / "genres.tar.gz"


def fma_archives(music: Path, folder: Path) -> list[Path]:
    """`folder`/fma_metadata.zip and fma_small.zip, compressed by bzip2 as the real ones.

    Eight genres with an artist on each side; a track that is known to hold no audio, one that is not in the
    archive, one of each larger subset, and one of the largest without a genre.
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
