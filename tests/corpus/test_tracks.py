"""Discovery of tracks in folders and manifests."""

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import flat, touched
from refusals import refused

from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.manifest import MANIFEST_SUFFIXES
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.errors import ErrorCode

# file, genre, group, reason for exclusion
FOLDERS = [
    ("blues/blues.00000.wav", "blues", "blues/blues.00000.wav", None),
    ("blues/Muddy Waters/one.MP3", "blues", "Muddy Waters", None),
    ("rock/Muddy Waters/two.flac", "rock", "Muddy Waters", None),
    ("rock/Queen/A Night/disc 1/x.ogg", "rock", "Queen", None),
    ("rock/x.m4a", "rock", "rock/x.m4a", None),
    ("rock/._x.wav", "rock", "rock/._x.wav", "hidden file"),
    ("schöne Musik/日本 🎵.opus", "schöne Musik", "schöne Musik/日本 🎵.opus", None),
    ("two\nlines/a\nb.wav", "two\nlines", "two\nlines/a\nb.wav", None),
    ("lost.wav", "", "lost.wav", "outside a genre folder"),
]
NOT_AUDIO = ["README.md", "blues/cover.jpg", "rock/list.m3u", "rock/x.wav.part", "rock/wav"]
SKIPPED = [
    ".git/x.wav",
    "__MACOSX/blues/._blues.00000.wav",
    "$RECYCLE.BIN/S-1-5-21/$RA1.mp3",
    "System Volume Information/x.wav",
    "blues/.ipynb_checkpoints/blues.00000-checkpoint.wav",
    "rock/.Trash-1000/files/x.wav",
    "rock/Queen/@eaDir/x.mp3/SYNO.mp3",
    "rock/Queen/A Night/#recycle/x.ogg",
    "rock/lost+found/x.wav",
    "rock/FOUND.000/x.wav",
]


def test_subfolders_are_genres_and_their_subfolders_are_groups(tmp_path: Path) -> None:
    touched(tmp_path, *(name for name, *_ in FOLDERS), *NOT_AUDIO, *SKIPPED)
    corpus = read_corpus(tmp_path)
    assert [(t.track_id, t.genre, t.group, t.excluded_reason) for t in corpus.tracks] == sorted(FOLDERS)
    assert all(track.path == tmp_path / track.track_id for track in corpus.tracks)
    assert corpus.genres == ("blues", "rock", "schöne Musik", "two\nlines")


def test_hidden_and_system_folders_are_skipped_at_every_depth_and_counted(tmp_path: Path) -> None:
    kept = ["blues/lost and found/a.wav", "recycled sounds/b.wav", "trash/c.wav"]
    touched(tmp_path, *kept, *SKIPPED)
    corpus = read_corpus(tmp_path)
    assert [track.track_id for track in corpus.tracks] == kept
    within = [name for name in SKIPPED if name.startswith(("blues/", "rock/"))]
    assert f" {len(within)} " in corpus.notes[0]
    assert "'blues/.ipynb_checkpoints'" in corpus.notes[0]


def test_a_corpus_within_a_hidden_folder_is_read(tmp_path: Path) -> None:
    touched(tmp_path / ".cache/music", "jazz/a.wav")
    assert [track.track_id for track in read_corpus(tmp_path / ".cache/music").tracks] == ["jazz/a.wav"]


NFC, NFD = "M\u00fasica", "Mu\u0301sica"


def test_names_in_two_unicode_forms_are_one_genre_and_one_group_and_keep_their_paths(tmp_path: Path) -> None:
    touched(tmp_path, f"{NFC}/{NFC}/a.wav", f"{NFD}/{NFD}/b.wav", "jazz/c.wav")
    corpus = read_corpus(tmp_path)
    assert corpus.genres == (NFC, "jazz")
    assert {(t.genre, t.group) for t in corpus.tracks} == {(NFC, NFC), ("jazz", "jazz/c.wav")}
    assert all(track.path.is_file() for track in corpus.tracks)
    assert {track.track_id for track in corpus.tracks} == {
        f"{NFC}/{NFC}/a.wav",
        f"{NFD}/{NFD}/b.wav",
        "jazz/c.wav",
    }


def test_a_relative_folder_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touched(tmp_path, "blues/a.wav"))
    assert read_corpus(Path()).tracks[0].path == tmp_path / "blues/a.wav"


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touched(tmp_path, "elsewhere/Nina/a.wav", "music/jazz/b.wav")
    (tmp_path / "music/soul").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "music/jazz/again").symlink_to(tmp_path / "music/jazz")
    (tmp_path / "music/jazz/Nina").symlink_to(tmp_path / "elsewhere/Nina")
    (tmp_path / "music/itself").symlink_to("itself")
    (tmp_path / "music/jazz/gone.wav").symlink_to("nowhere")
    names = [track.track_id for track in read_corpus(tmp_path / "music").tracks]
    assert names == ["jazz/Nina/a.wav", "jazz/b.wav", "jazz/gone.wav", "soul/Nina/a.wav"]


def test_loops_of_linked_folders_end(tmp_path: Path) -> None:
    touched(tmp_path, "music/jazz/a.wav", "music/x.wav/b.wav")
    (tmp_path / "music/jazz/up").symlink_to(tmp_path)
    (tmp_path / "music/jazz/there").symlink_to("back")
    (tmp_path / "music/jazz/back").symlink_to("there")
    (tmp_path / "music/x.wav/again.wav").symlink_to(tmp_path / "music/x.wav")
    tracks = read_corpus(tmp_path / "music").tracks
    assert [(t.track_id, t.genre) for t in tracks] == [
        ("jazz/a.wav", "jazz"),
        ("jazz/up/music/x.wav/b.wav", "jazz"),
        ("x.wav/b.wav", "x.wav"),
    ]


def test_two_files_with_the_same_escaped_name_are_refused(tmp_path: Path) -> None:
    touched(tmp_path, os.fsdecode(b"jazz/\xff.wav"), r"jazz/\udcff.wav")
    with refused(ErrorCode.DUPLICATE_TRACK, tmp_path, repr(r"jazz/\udcff.wav"), "rename"):
        read_corpus(tmp_path)


AS_NOBODY = """
import os, sys
from pathlib import Path
from genre_core.corpus.tracks import read_corpus
from genre_core.errors import InputError

if os.geteuid() == 0:  # root may read anything
    os.setgid(65_534)
    os.setuid(65_534)
try:
    print([track.track_id for track in read_corpus(Path(sys.argv[1])).tracks])
except InputError as error:
    print(error.code, error)
"""

# what cannot be read in a corpus, its mode, what is printed
FORBIDDEN = [
    ("", 0o000, [ErrorCode.CORPUS_FOLDER_UNREADABLE, "/music: "]),
    ("", 0o444, [ErrorCode.CORPUS_FOLDER_UNREADABLE, "/music/jazz: "]),
    ("jazz", 0o000, [ErrorCode.CORPUS_FOLDER_UNREADABLE, "/music/jazz: "]),
    ("jazz", 0o444, [ErrorCode.CORPUS_FOLDER_UNREADABLE, "/music/jazz/Nina: "]),
    ("jazz/Nina", 0o000, [ErrorCode.CORPUS_FOLDER_UNREADABLE, "/music/jazz/Nina: "]),
    ("jazz/Nina/a.wav", 0o000, ["['jazz/Nina/a.wav']"]),  # the audit reports it
    ("manifest.csv", 0o000, [ErrorCode.MANIFEST_UNREADABLE, "manifest.csv"]),
]


@pytest.mark.parametrize(("name", "mode", "values"), FORBIDDEN)
def test_a_file_or_folder_without_permission_is_named_in_one_line(
    name: str, mode: int, values: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # other users cannot enter pytest's own folders
        root = touched(Path(folder), "music/jazz/Nina/a.wav") / "music"
        Path(folder).chmod(0o755)
        if name == "manifest.csv":
            (root / name).write_text("path,genre\njazz/Nina/a.wav,jazz\n")
        (root / name).chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, root], capture_output=True, text=True, check=True
        )
        (root / name).chmod(0o755)
    assert len(done.stdout.splitlines()) == 1
    assert all(value in done.stdout for value in values)
    assert (os.strerror(errno.EACCES) in done.stdout) == (len(values) == 2)


def test_a_name_that_is_not_unicode_is_excluded_and_survives_a_round_trip(tmp_path: Path) -> None:
    touched(tmp_path / "c", "jazz/a.wav", os.fsdecode(b"jazz/\xff\xfe.wav"))
    corpus = read_corpus(tmp_path / "c")
    assert [(t.track_id, t.excluded_reason) for t in corpus.tracks] == [
        ("jazz/\\udcff\\udcfe.wav", "name is not Unicode"),
        ("jazz/a.wav", None),
    ]
    write_corpus(corpus, tmp_path / "corpus.parquet")
    assert load_corpus(tmp_path / "corpus.parquet") == corpus


def test_an_archive_is_refused_with_the_advice_to_unpack_it(tmp_path: Path) -> None:
    touched(tmp_path, "archive.zip")
    with refused(ErrorCode.CORPUS_WITHOUT_AUDIO, "unpack archive.zip"):
        read_corpus(tmp_path)
    with refused(ErrorCode.CORPUS_NOT_FOUND, "unpack"):
        read_corpus(tmp_path / "archive.zip")


def test_a_source_without_audio_is_refused(tmp_path: Path) -> None:
    with refused(ErrorCode.CORPUS_NOT_FOUND, tmp_path / "nothing", *MANIFEST_SUFFIXES):
        read_corpus(tmp_path / "nothing")
    with refused(ErrorCode.CORPUS_WITHOUT_AUDIO, tmp_path, "GENRE/track.wav", "manifest.csv"):
        read_corpus(touched(tmp_path, "blues/notes.txt"))
    with refused(ErrorCode.CORPUS_FOLDER_UNREADABLE, "x" * 300, os.strerror(errno.ENAMETOOLONG)):
        read_corpus(tmp_path / ("x" * 300))


def test_the_fingerprint_depends_only_on_the_usable_audio() -> None:
    tracks = [replace(track, content=f"c{n}") for n, track in enumerate(flat(jazz=3, soul=3).tracks)]
    fingerprint = Corpus(tuple(tracks)).fingerprint
    renamed = tuple(replace(track, genre="x", track_id=f"{9 - n}") for n, track in enumerate(tracks))
    assert Corpus(renamed[::-1]).fingerprint == fingerprint
    assert Corpus(tuple(tracks[1:])).fingerprint != fingerprint
    spoilt = replace(tracks[0], excluded_reason="silent")
    assert Corpus((spoilt, *tracks[1:])).fingerprint == Corpus(tuple(tracks[1:])).fingerprint


def test_tracks_of_a_large_corpus_share_the_names_of_their_genres_and_groups(tmp_path: Path) -> None:
    touched(tmp_path / "music", *(f"{genre}/Queen/{n}.wav" for genre in ("pop", "rock") for n in range(3)))
    found = read_corpus(tmp_path / "music")
    write_corpus(found, tmp_path / "corpus.parquet")
    for corpus in (found, load_corpus(tmp_path / "corpus.parquet")):
        assert [len({id(getattr(t, name)) for t in corpus.tracks}) for name in ("genre", "group")] == [2, 1]
        assert not any(hasattr(track, "__dict__") for track in corpus.tracks)
