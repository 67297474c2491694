"""Manifests: dialects, invalid ones, paths, and Hugging Face audio folders."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import touched
from refusals import refused

from genre_core.corpus.tracks import SPLITS, read_corpus
from genre_core.errors import ErrorCode

NFC, NFD = "M\u00fasica", "Mu\u0301sica"


@pytest.mark.parametrize(("listed", "stored"), [(NFC, NFD), (NFD, NFC), (f"{NFC}/{NFD}", f"{NFD}/{NFC}")])
def test_a_manifest_names_a_file_in_either_unicode_form(tmp_path: Path, listed: str, stored: str) -> None:
    touched(tmp_path, f"{stored}/{stored}.wav")
    (tmp_path / "manifest.csv").write_text(f"path,genre,group\n{listed}/{listed}.wav,{listed},{listed}\n")
    (track,) = read_corpus(tmp_path).tracks
    assert track.path == tmp_path / f"{stored}/{stored}.wav"
    assert track.genre == track.group == unicodedata.normalize("NFC", listed)
    (tmp_path / "manifest.csv").write_text(f"path,genre\n{listed}/{listed}.wav,a\n{stored}/{stored}.wav,b\n")
    with refused(ErrorCode.DUPLICATE_TRACK, "manifest.csv, row 2", f"{stored}/{stored}.wav"):
        read_corpus(tmp_path)


def test_a_file_is_found_in_either_of_two_folders_whose_names_differ_in_unicode_form(tmp_path: Path) -> None:
    touched(tmp_path, f"{NFC}/a.wav", f"{NFD}/b.wav")
    for form in (NFC, NFD):
        (tmp_path / "manifest.csv").write_text(f"path,genre\n{form}/a.wav,x\n{form}/b.wav,y\n")
        paths = {track.path for track in read_corpus(tmp_path).tracks}
        assert paths == {tmp_path / NFC / "a.wav", tmp_path / NFD / "b.wav"}


def test_two_files_whose_names_differ_only_in_unicode_form_are_two_tracks(tmp_path: Path) -> None:
    touched(tmp_path, f"{NFC}.wav", f"{NFD}.wav")
    (tmp_path / "manifest.csv").write_text(f"path,genre\n{NFC}.wav,a\n{NFD}.wav,b\n")
    assert {(track.path.stem, track.genre) for track in read_corpus(tmp_path).tracks} == {
        (NFC, "a"),
        (NFD, "b"),
    }


ROWS: list[dict[str, object]] = [
    {"path": "a/1.wav", "genre": "jazz", "group": "Nina", "split": "train", "tempo": 90},
    {"path": "ä, \n2.ogg", "genre": "jazz", "group": None, "split": "val", "tempo": 91},
    {"path": "a/../3.mp3", "genre": "jazz", "group": "Ella", "split": "test", "tempo": 92},
]


def manifest(folder: Path, rows: list[dict[str, object]], form: str) -> Path:
    table = pa.Table.from_pylist(rows)
    if form == "parquet":
        pq.write_table(table, folder / "manifest.parquet")
    else:
        table.to_pandas().to_csv(folder / "manifest.csv", index=False)
    return folder


def test_a_manifest_written_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("\ufeffpath,genre\r\nä.wav,jazz\r\n\r\n".encode())
    assert [track.track_id for track in read_corpus(tmp_path).tracks] == ["ä.wav"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_manifest_lists_tracks_with_groups_and_splits(tmp_path: Path, form: str) -> None:
    absolute: dict[str, object] = {"path": "/music/4.wav", "genre": "jazz", "group": "Duke", "split": "dev"}
    corpus = read_corpus(manifest(tmp_path, [*ROWS, absolute], form))
    assert [(t.track_id, t.path, t.group, t.split) for t in corpus.tracks] == [
        ("/music/4.wav", Path("/music/4.wav"), "Duke", "validation"),
        ("3.mp3", tmp_path / "3.mp3", "Ella", "test"),
        ("a/1.wav", tmp_path / "a/1.wav", "Nina", "train"),
        ("ä, \n2.ogg", tmp_path / "ä, \n2.ogg", "ä, \n2.ogg", "validation"),
    ]


def test_a_parquet_manifest_may_have_numbers_as_genres_and_groups(tmp_path: Path) -> None:
    rows = [{"path": "a.mp3", "genre": 10, "group": 7}, {"path": "b.mp3", "genre": 12, "group": None}]
    tracks = read_corpus(manifest(tmp_path, rows, "parquet")).tracks
    assert [(track.genre, track.group) for track in tracks] == [("10", "7"), ("12", "b.mp3")]


# text of the manifest, code of the refusal, values in its message
BAD_MANIFESTS = [
    ("", ErrorCode.MANIFEST_MISSING_COLUMN, ["path and genre", "no columns", "add a header"]),
    (
        "path,style\na.wav,jazz\n",
        ErrorCode.MANIFEST_MISSING_COLUMN,
        ["'path', 'style'", "rename 'style' to genre"],
    ),
    ("path:genre\na.wav:jazz\n", ErrorCode.MANIFEST_MISSING_COLUMN, ["'path:genre'"]),
    (
        "path,Class Name\na.wav,jazz\n",
        ErrorCode.MANIFEST_MISSING_COLUMN,
        ["rename 'Class Name' to genre"],
    ),
    (
        "file_path,label\na.wav,jazz\n",
        ErrorCode.MANIFEST_MISSING_COLUMN,
        ["rename 'file_path' to path", "rename 'label' to genre"],
    ),
    ("path,genre\n", ErrorCode.MANIFEST_WITHOUT_ROWS, []),
    ("path,genre\na.wav,jazz\n,jazz\n", ErrorCode.MANIFEST_EMPTY_CELL, ["row 2", "'' and 'jazz'"]),
    ("path,genre\na.wav\n", ErrorCode.MANIFEST_EMPTY_CELL, ["row 1", "'a.wav' and ''"]),
    ("path,genre\na\0.wav,jazz\n", ErrorCode.MANIFEST_EMPTY_CELL, ["row 1", repr("a\0.wav")]),
    ("path,genre\na.wav,jazz,blues\n", ErrorCode.MANIFEST_EXTRA_CELLS, ["row 1", "quote"]),
    ("path,genre\na.wav,jazz\nb/../a.wav,blues\n", ErrorCode.DUPLICATE_TRACK, ["row 2", "'a.wav'"]),
    ('path,genre\n"a.wav,jazz\n', ErrorCode.MANIFEST_QUOTING, ["row 1", '"12"" mix.wav"']),
    ('path,genre\na.wav,jazz\n"Heroes".wav,rock\n', ErrorCode.MANIFEST_QUOTING, ["row 2"]),
    ('path,genre\na.wav,jazz\n"Heroes.wav,rock\nb.wav,jazz\n', ErrorCode.MANIFEST_QUOTING, ["row 2"]),
    ('"path,genre\na.wav,jazz\n', ErrorCode.MANIFEST_QUOTING, ["header"]),
    (
        "path,genre\na.wav,jazz\nC:\\Music\\b.wav,jazz\n",
        ErrorCode.MANIFEST_WINDOWS_PATH,
        ["row 2", repr("C:\\Music\\b.wav"), "relative to /"],
    ),
    ("path,genre\nC:/Music/b.wav,jazz\n", ErrorCode.MANIFEST_WINDOWS_PATH, ["row 1"]),
    ("path,genre\n\\\\nas\\music\\b.wav,jazz\n", ErrorCode.MANIFEST_WINDOWS_PATH, ["row 1"]),
    ("path,genre,genre\na.wav,jazz,soul\n", ErrorCode.MANIFEST_REPEATED_COLUMN, ["genre"]),
    (f"path,genre\n{'a' * 200_000}.wav,jazz\n", ErrorCode.MANIFEST_QUOTING, ["row 1", "field limit"]),
    ("Path, PATH ,genre\na.wav,a.wav,jazz\n", ErrorCode.MANIFEST_REPEATED_COLUMN, ["path"]),
    (
        "path,genre,split\na.wav,jazz,holdout\n",
        ErrorCode.MANIFEST_UNKNOWN_SPLIT,
        ["row 1", *SPLITS, "'holdout'"],
    ),
]


@pytest.mark.parametrize(("text", "code", "values"), BAD_MANIFESTS)
def test_an_invalid_manifest_is_refused_with_its_name_and_row(
    tmp_path: Path, text: str, code: ErrorCode, values: list[str]
) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with refused(code, tmp_path, *values):
        read_corpus(tmp_path)


ONE_ROW = [("a.wav", "jazz", "Nina", "train")]
HEAD = "path,genre,group,split"
# name and bytes of the manifest, which all list the same track
DIALECTS = {
    "semicolons": ("manifest.csv", f"{HEAD}\na.wav,jazz,Nina,train\n".replace(",", ";").encode()),
    "tabs": ("manifest.tsv", f"{HEAD}\na.wav,jazz,Nina,train\n".replace(",", "\t").encode()),
    "tabs in a .csv": ("manifest.csv", f"{HEAD}\na.wav,jazz,Nina,train\n".replace(",", "\t").encode()),
    "with Excel's sep line": (
        "manifest.csv",
        f"sep=;\r\n{HEAD}\r\na.wav,jazz,Nina,train\r\n".replace(",", ";").encode(),
    ),
    "UTF-16": ("manifest.csv", f"{HEAD}\r\na.wav,jazz,Nina,train\r\n".replace(",", "\t").encode("utf-16")),
    "big-endian": ("manifest.csv", b"\xfe\xff" + f"{HEAD}\na.wav,jazz,Nina,train\n".encode("utf-16-be")),
    "capitals": ("Manifest.CSV", f"{HEAD.upper()}\na.wav,jazz,Nina,Train\n".encode()),
    "spaces": ("manifest.csv", f" {HEAD.replace(',', ' , ')} \na.wav, jazz , Nina , train \n".encode()),
    "a space before the path": ("manifest.csv", b"genre, path, group, split\njazz, a.wav, Nina, training\n"),
    "empty cells at the end": ("manifest.csv", f"{HEAD},,\na.wav,jazz,Nina,train,,,\n".encode()),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_manifest_is_read_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    name, content = DIALECTS[dialect]
    touched(tmp_path, "a.wav")
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path, tmp_path / name):
        corpus = read_corpus(source)
        assert [(t.track_id, t.genre, t.group, t.split) for t in corpus.tracks] == ONE_ROW
        assert corpus.tracks[0].path.is_file()
        assert not corpus.notes


def test_a_parquet_manifest_in_capitals_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({" Path": ["a.wav"], "GENRE": ["jazz"]}), tmp_path / "M.PARQUET")
    assert [track.genre for track in read_corpus(tmp_path / "M.PARQUET").tracks] == ["jazz"]


@pytest.mark.parametrize("form", ["csv", "words", "parquet", "float"])
def test_a_track_without_a_group_is_a_group_of_its_own(tmp_path: Path, form: str) -> None:
    paths, genres = ["a.wav", "b.wav", "c.wav"], ["jazz"] * 3
    if form == "float":  # as pandas stores integers with missing values
        holes = pa.array([7.0, float("nan"), float("nan")], from_pandas=False)
        pq.write_table(
            pa.table({"path": paths, "genre": genres, "group": holes}), tmp_path / "manifest.parquet"
        )
        first = "7.0"
    else:
        groups = ["Nina", "nan", "<NA>"] if form == "words" else ["Nina", None, None]
        rows: list[dict[str, object]] = [
            dict(zip(("path", "genre", "group"), row, strict=True))
            for row in zip(paths, genres, groups, strict=True)
        ]
        manifest(tmp_path, rows, form.replace("words", "csv"))
        first = "Nina"
    corpus = read_corpus(tmp_path)
    assert [track.group for track in corpus.tracks] == [first, "b.wav", "c.wav"]
    assert any("2 of 3 tracks" in note for note in corpus.notes)
    assert any("'nan'" in note and "2 rows" in note for note in corpus.notes) == (form == "words")


def test_a_missing_genre_is_missing_and_never_a_genre_called_nan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.wav"], "genre": [float("nan")]}), tmp_path / "manifest.parquet")
    with refused(ErrorCode.MANIFEST_EMPTY_CELL, "row 1", "'a.wav' and ''"):
        read_corpus(tmp_path)


def test_unused_columns_are_listed_once_and_similar_names_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        ",path,genre,Artist,Fold,Unnamed: 0\n0,a.wav,jazz,Nina,1,0\n1,b.wav,jazz,Nina,2,1\n"
    )
    unread, group, split = read_corpus(tmp_path).notes
    assert unread.endswith(": 'Artist', 'Fold'")
    assert "rename it to group" in group
    assert "'Artist'" in group
    assert "rename it to split" in split
    assert "'Fold'" in split


def test_many_unused_columns_are_counted(tmp_path: Path) -> None:
    wide = [f"mfcc{n}" for n in range(60)]
    (tmp_path / "manifest.csv").write_text(f"path,genre,{','.join(wide)}\na.wav,jazz{',0' * 60}\n")
    (note,) = read_corpus(tmp_path).notes
    assert len(note) < 160
    assert note.endswith("and 52 more")


def test_backslashes_separate_folders_unless_a_file_name_contains_them(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav", r"jazz\b.wav", f"{NFD}/c.wav")
    listed = [r"jazz\a.wav", r"jazz\b.wav", rf"{NFC}\c.wav", r"jazz\lost.wav"]
    (tmp_path / "manifest.csv").write_text("".join(["path,genre\n", *(f"{path},jazz\n" for path in listed)]))
    names = {track.track_id for track in read_corpus(tmp_path).tracks}
    assert names == {"jazz/a.wav", r"jazz\b.wav", f"{NFD}/c.wav", "jazz/lost.wav"}


# files of a Hugging Face audio folder, and path, genre and split of its tracks
AUDIO_FOLDERS = [
    (
        {"metadata.csv": "file_name,genre\na.wav,jazz\nsub/b.wav,soul\n"},
        [("a.wav", "jazz", None), ("sub/b.wav", "soul", None)],
    ),
    (
        {
            "train/metadata.csv": "file_name,label\na.wav,jazz\n",
            "validation/metadata.jsonl": '{"file_name": "a.wav", "label": "jazz", "tempo": 90}\n',
            "test/Metadata.csv": "label;file_name\njazz;a.wav\n",
        },
        [
            ("test/a.wav", "jazz", "test"),
            ("train/a.wav", "jazz", "train"),
            ("validation/a.wav", "jazz", "validation"),
        ],
    ),
    ({"metadata.csv": "title,year\na,1969\n"}, [("sub/b.wav", "sub", None)]),  # another table
    ({"metadata.csv": b"\xff\xfe\xff"}, [("sub/b.wav", "sub", None)]),
]


@pytest.mark.parametrize(
    ("metadata", "expected"), AUDIO_FOLDERS, ids=lambda case: " ".join(case) if isinstance(case, dict) else ""
)
def test_a_hugging_face_audio_folder_is_read_by_its_metadata(
    tmp_path: Path, metadata: dict[str, str | bytes], expected: list[tuple[str, str, str | None]]
) -> None:
    touched(tmp_path, "sub/b.wav", *metadata)
    for name, content in metadata.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    tracks = read_corpus(tmp_path).tracks
    assert [(track.track_id, track.genre, track.split) for track in tracks] == expected


def test_hugging_face_metadata_without_a_genre_is_not_used_but_reported(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\njazz/a.wav,la la\n")
    corpus = read_corpus(tmp_path)
    assert [track.genre for track in corpus.tracks] == ["jazz"]
    assert all(name in corpus.notes[0] for name in ("metadata.csv", "file_name", "genre", "label"))


NO_MANIFESTS: list[Callable[[Path], object]] = [
    Path.mkdir,
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("nowhere"),
]


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
@pytest.mark.parametrize("make", NO_MANIFESTS, ids=["folder", "pipe", "device", "link to itself", "lost"])
def test_a_manifest_that_is_not_a_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    make(touched(tmp_path, "jazz/a.wav") / name)
    with refused(ErrorCode.MANIFEST_NOT_A_FILE, tmp_path / name):
        read_corpus(tmp_path)


def test_cells_of_unused_columns_are_not_read(tmp_path: Path) -> None:
    when = pa.array([2**62], pa.timestamp("us"))  # beyond what Python's dates reach
    pq.write_table(pa.table({"path": ["a.wav"], "genre": ["jazz"], "when": when}), tmp_path / "m.parquet")
    assert [track.track_id for track in read_corpus(tmp_path / "m.parquet").tracks] == ["a.wav"]
    pq.write_table(pa.table({"path": when, "genre": ["jazz"]}), tmp_path / "m.parquet")
    with refused(ErrorCode.MANIFEST_UNREADABLE, tmp_path / "m.parquet"):
        read_corpus(tmp_path / "m.parquet")


def test_an_unreadable_or_ambiguous_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("path,genre\nä.wav,jazz\n".encode("latin-1"))
    with refused(ErrorCode.MANIFEST_UNREADABLE, "manifest.csv", "UTF-8"):
        read_corpus(tmp_path)
    (tmp_path / "manifest.csv").rename(tmp_path / "manifest.parquet")
    with refused(ErrorCode.MANIFEST_UNREADABLE, "manifest.parquet"):
        read_corpus(tmp_path)
    (tmp_path / "manifest.csv").touch()
    with refused(ErrorCode.MANIFEST_AMBIGUOUS, "manifest.csv and manifest.parquet"):
        read_corpus(tmp_path)
