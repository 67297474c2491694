"""Audits: reasons for bad files, warnings, and the cache of findings."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from refusals import refused

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio, Fault, Reason, read
from genre_core.corpus.audit import (
    CACHE_NAME,
    EARLIER_CACHE,
    audit,
    reason_counts,
    track_warnings,
    warnings_summary,
)
from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import Corpus, Exclusion, Track, read_corpus
from genre_core.errors import ErrorCode

SOUNDTRACKS = Path(__file__).parents[3] / "shared/data/soundtracks"
RATE = 8_000
MINIMUM = 0.5  # s


def tone(path: Path, frequency: float, seconds: float = 1.0, **options: str) -> Path:
    """Write a sine of whole 16-bit steps, so that lossless formats agree; files of one frequency are copies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
    soundfile.write(path, np.round(wave * 2**15) / 2**15, RATE, **options)
    return path


def audited(root: Path, cache: Path | None = None, workers: int = 2, minimum: float = MINIMUM) -> Corpus:
    return audit(read_corpus(root), minimum_seconds=minimum, cache=cache, workers=workers)


Expected = dict[str, tuple[str, str] | None]
"""Track id -> kind of the reason for exclusion and a value in its detail; None for a usable track."""


def assert_reasons(corpus: Corpus, expected: Expected) -> None:
    kinds = {
        track.track_id: track.excluded_reason and track.excluded_reason.partition(":")[0]
        for track in corpus.tracks
    }
    assert kinds == {name: reason and reason[0] for name, reason in expected.items()}
    for track in corpus.excluded:
        reason = expected[track.track_id]
        assert reason is not None
        assert reason[1] in str(track.excluded_reason)
        assert "\n" not in str(track.excluded_reason)


def spoilt_corpus(root: Path) -> Expected:
    """Create a corpus with every fault, and return the expected kind of reason and value for each file."""
    tone(root / "jazz/1.wav", 200)
    tone(root / "jazz/copies/1.flac", 200)
    tone(root / "jazz/copies/1.aiff", 200)
    tone(root / "jazz/2.ogg", 210)
    tone(root / "soul/1.wav", 300)
    tone(root / "soul/disputed.wav", 400)
    tone(root / "rock/disputed.flac", 400)
    tone(root / "rock/disputed again.flac", 400)
    tone(root / "rock/exact.wav", 310, MINIMUM)
    tone(root / "rock/short.wav", 320, MINIMUM - 1 / RATE)
    tone(root / "rock/short copy.wav", 320, MINIMUM - 1 / RATE)
    tone(root / "soul/._1.wav", 330)
    (root / "soul/._2.wav").write_bytes(b"Mac OS X")
    (root / "soul/no bytes.wav").touch()
    (root / "soul/text.wav").write_text("hello")
    (root / "soul/song.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    (root / "soul/gone.wav").symlink_to("nowhere")
    os.mkfifo(root / "soul/pipe.wav")
    soundfile.write(root / "soul/silent.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "soul/nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(root / "soul/no samples.wav", np.zeros(0), RATE)
    tone(root / "loose.wav", 340)
    return {
        "jazz/1.wav": None,
        "jazz/2.ogg": None,
        "jazz/copies/1.aiff": (Exclusion.DUPLICATE, "jazz/1.wav"),
        "jazz/copies/1.flac": (Exclusion.DUPLICATE, "jazz/1.wav"),
        "loose.wav": (Exclusion.OUTSIDE_GENRE_FOLDER, ""),
        "rock/disputed again.flac": (Exclusion.DUPLICATE_ACROSS_GENRES, "soul/disputed.wav"),
        "rock/disputed.flac": (Exclusion.DUPLICATE_ACROSS_GENRES, "soul/disputed.wav"),
        "rock/exact.wav": None,
        "rock/short copy.wav": (Exclusion.TOO_SHORT, "0.499875 s < 0.5 s"),
        "rock/short.wav": (Exclusion.TOO_SHORT, "0.499875 s < 0.5 s"),
        "soul/._1.wav": (Exclusion.HIDDEN, ""),
        "soul/._2.wav": (Exclusion.HIDDEN, ""),
        "soul/1.wav": None,
        "soul/disputed.wav": (Exclusion.DUPLICATE_ACROSS_GENRES, "rock/disputed again.flac"),
        "soul/gone.wav": (Reason.UNREADABLE, os.strerror(errno.ENOENT)),
        "soul/nan.wav": (Reason.NOT_FINITE, "8000 frames"),
        "soul/no bytes.wav": (Reason.EMPTY, "0 bytes"),
        "soul/no samples.wav": (Reason.EMPTY, ""),
        "soul/pipe.wav": (Reason.UNREADABLE, "regular file"),
        "soul/silent.wav": (Reason.SILENT, "-80 dBFS"),
        "soul/song.m4a": (Reason.UNREADABLE, "12 bytes"),
        "soul/text.wav": (Reason.UNREADABLE, "'hello'"),
    }


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_bad_file_is_named_with_its_reason(tmp_path: Path, workers: int) -> None:
    expected = spoilt_corpus(tmp_path / "music")
    corpus = audited(tmp_path / "music", tmp_path / "cache", workers)
    assert_reasons(corpus, expected)
    assert_reasons(audited(tmp_path / "music", tmp_path / "cache", workers), expected)
    assert all(track.seconds and track.content for track in corpus.usable)
    assert reason_counts(corpus) == {
        Reason.UNREADABLE: 4,
        Exclusion.DUPLICATE_ACROSS_GENRES: 3,
        Exclusion.DUPLICATE: 2,
        Exclusion.TOO_SHORT: 2,
        Exclusion.HIDDEN: 2,
        Exclusion.OUTSIDE_GENRE_FOLDER: 1,
        Reason.NOT_FINITE: 1,
        Reason.EMPTY: 2,
        Reason.SILENT: 1,
    }


def test_an_audit_without_a_cache_has_the_same_result_and_writes_nothing(tmp_path: Path) -> None:
    expected = spoilt_corpus(tmp_path / "music")
    before = sorted(tmp_path.rglob("*"))
    assert_reasons(audited(tmp_path / "music"), expected)
    assert sorted(tmp_path.rglob("*")) == before


def test_auditing_an_audited_corpus_changes_nothing(tmp_path: Path) -> None:
    spoilt_corpus(tmp_path / "music")
    once = audited(tmp_path / "music")
    write_corpus(once, tmp_path / "corpus.parquet")
    loaded = load_corpus(tmp_path / "corpus.parquet")
    assert audit(loaded, minimum_seconds=MINIMUM, cache=None, workers=1) == once


def test_folders_and_lost_files_in_a_manifest_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "manifest.csv").write_text("path,genre\nfolder.wav,jazz\nlost.wav,jazz\n")
    assert_reasons(
        audited(tmp_path),
        {
            "folder.wav": (Reason.UNREADABLE, "folder"),
            "lost.wav": (Reason.UNREADABLE, os.strerror(errno.ENOENT)),
        },
    )


def test_a_file_that_vanishes_or_changes_while_others_are_decoded_has_a_reason(tmp_path: Path) -> None:
    for number in range(6):
        tone(tmp_path / f"jazz/{number}.wav", 200 + number)
    corpus = read_corpus(tmp_path)

    def spoil(done: int, total: int) -> None:
        if done == 1:
            (tmp_path / "jazz/4.wav").unlink()
            (tmp_path / "jazz/5.wav").write_text("no longer audio")

    assert_reasons(
        audit(corpus, minimum_seconds=MINIMUM, cache=tmp_path / "cache", workers=1, progress=spoil),
        {f"jazz/{number}.wav": None for number in range(4)}
        | {
            "jazz/4.wav": (Reason.UNREADABLE, os.strerror(errno.ENOENT)),
            "jazz/5.wav": (Reason.UNREADABLE, "'no longer audio'"),
        },
    )


def test_a_file_that_vanishes_after_the_audit_has_a_reason_when_it_is_read(tmp_path: Path) -> None:
    tone(tmp_path / "jazz/1.wav", 200)
    track = audited(tmp_path).usable[0]
    track.path.unlink()
    with pytest.raises(BadAudio) as caught:
        read(track.path, RATE)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.NOT_ACCESSIBLE)


def test_a_file_too_loud_for_a_mel_is_excluded(tmp_path: Path) -> None:
    tone(tmp_path / "jazz/1.wav", 200)
    soundfile.write(tmp_path / "jazz/2.wav", np.full(RATE, 1e30), RATE, subtype="FLOAT")
    assert reason_counts(audited(tmp_path)) == {Reason.TOO_LOUD: 1}


def doubtful_corpus(root: Path) -> None:
    """A good file, a clipped one, a truncated one of integers stored as floats, and a silent one."""
    tone(root / "jazz/1.wav", 200)
    soundfile.write(root / "jazz/2.wav", np.clip(5 * np.sin(np.arange(RATE)), -1, 1), RATE)
    soundfile.write(root / "soul/3.wav", 20_000 * np.sin(np.arange(2 * RATE)), RATE, subtype="FLOAT")
    (root / "soul/3.wav").write_bytes((root / "soul/3.wav").read_bytes()[: 4 * RATE])
    soundfile.write(root / "soul/4.wav", np.outer(np.sin(np.arange(RATE)), [1, -1]), RATE)


def test_warnings_of_usable_files_are_reported_and_cached(tmp_path: Path) -> None:
    (tmp_path / "music/jazz").mkdir(parents=True)
    (tmp_path / "music/soul").mkdir()
    doubtful_corpus(tmp_path / "music")

    first = audited(tmp_path / "music", tmp_path / "cache")

    assert [(track.track_id, warning.partition(":")[0]) for track, warning in track_warnings(first)] == [
        ("jazz/2.wav", "clipped"),
        ("soul/3.wav", "length"),
        ("soul/3.wav", "integers stored as floats"),
    ]
    assert reason_counts(first) == {"silent": 1}
    assert "2 of 3" in warnings_summary(first)
    for track in first.usable:
        overwritten_in_secret(track.path)
    assert track_warnings(audited(tmp_path / "music", tmp_path / "cache")) == track_warnings(first)


def test_a_file_that_is_too_short_because_it_was_truncated_has_both_lengths_as_its_reason(
    tmp_path: Path,
) -> None:
    path = tone(tmp_path / "jazz/1.wav", 200)
    path.write_bytes(path.read_bytes()[:RATE])
    corpus = audited(tmp_path, minimum=0.9)
    assert_reasons(corpus, {"jazz/1.wav": (Exclusion.TOO_SHORT, "0.49725 s < 0.9 s; length: ")})
    assert " 1.00 s" in str(corpus.excluded[0].excluded_reason)


def test_a_good_corpus_has_no_summary_of_warnings(tmp_path: Path) -> None:
    tone(tmp_path / "jazz/1.wav", 200)
    assert warnings_summary(audited(tmp_path)) == ""


def overwritten_in_secret(path: Path, content: bytes | None = None) -> None:
    """Replace the content by as many other bytes and keep the modification time."""
    status = path.stat()
    path.write_bytes(content or b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_audit_decodes_nothing(tmp_path: Path) -> None:
    for number in range(4):
        tone(tmp_path / f"music/jazz/{number}.wav", 200 + number)
    first = audited(tmp_path / "music", tmp_path / "cache")
    for track in first.tracks:
        overwritten_in_secret(track.path)

    reported: list[tuple[int, int]] = []
    again = audit(
        read_corpus(tmp_path / "music"),
        minimum_seconds=MINIMUM,
        cache=tmp_path / "cache",
        workers=2,
        progress=lambda done, total: reported.append((done, total)),
    )

    assert again == first
    assert reported == []
    assert reason_counts(audited(tmp_path / "music")) == {"unreadable": 4}


def touched_later(path: Path) -> None:
    later = path.stat().st_mtime_ns + 1
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, ns=(later, later))


def grown(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"x" * (status.st_size + 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [touched_later, grown])
def test_a_file_with_another_size_or_modification_time_is_decoded_again(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    for number in range(3):
        tone(tmp_path / f"music/jazz/{number}.wav", 200 + number)
    first = audited(tmp_path / "music", tmp_path / "cache")
    change(first.tracks[0].path)
    overwritten_in_secret(first.tracks[1].path)
    again = audited(tmp_path / "music", tmp_path / "cache")
    assert str(again.tracks[0].excluded_reason).startswith(Reason.UNREADABLE)
    assert again.tracks[1:] == first.tracks[1:]


def test_the_cache_has_one_finding_on_each_file_of_all_corpora(tmp_path: Path) -> None:
    for name in ("a/jazz/1.wav", "a/jazz/2.wav", "b/jazz/1.wav"):
        tone(tmp_path / name, 200)
    for root in ("a", "b"):
        audited(tmp_path / root, tmp_path / "cache")
    tone(tmp_path / "a/jazz/1.wav", 300, seconds=2.0)
    audited(tmp_path / "a", tmp_path / "cache")
    rows = pq.read_table(tmp_path / "cache" / CACHE_NAME, columns=["path", "seconds"]).to_pylist()
    found = {row["path"].removeprefix(f"{tmp_path}/"): row["seconds"] for row in rows}
    assert found == {"a/jazz/1.wav": 2.0, "a/jazz/2.wav": 1.0, "b/jazz/1.wav": 1.0}
    assert len(rows) == 3


def test_an_unreadable_file_that_was_repaired_is_decoded_again(tmp_path: Path) -> None:
    lost = tmp_path / "music/jazz/a.wav"
    lost.parent.mkdir(parents=True)
    lost.symlink_to(tmp_path / "later.wav")
    assert reason_counts(audited(tmp_path / "music", tmp_path / "cache")) == {"unreadable": 1}
    tone(tmp_path / "later.wav", 200)
    assert reason_counts(audited(tmp_path / "music", tmp_path / "cache")) == {}


def test_unreadable_files_are_not_cached_since_permissions_and_decoders_change(tmp_path: Path) -> None:
    path = tone(tmp_path / "music/jazz/a.wav", 200)
    content = path.read_bytes()
    overwritten_in_secret(path)
    assert reason_counts(audited(tmp_path / "music", tmp_path / "cache")) == {"unreadable": 1}
    overwritten_in_secret(path, content)
    assert reason_counts(audited(tmp_path / "music", tmp_path / "cache")) == {}


def test_the_cache_serves_other_minimum_lengths_and_other_corpora(tmp_path: Path) -> None:
    tone(tmp_path / "a/jazz/1.wav", 200)
    tone(tmp_path / "b/jazz/1.wav", 200)
    for root in ("a", "b"):
        audited(tmp_path / root, tmp_path / "cache")
        overwritten_in_secret(tmp_path / root / "jazz/1.wav")
    assert reason_counts(audited(tmp_path / "a", tmp_path / "cache", minimum=0.9)) == {}
    stricter = audited(tmp_path / "b", tmp_path / "cache", minimum=1.1)
    assert_reasons(stricter, {"jazz/1.wav": (Exclusion.TOO_SHORT, "1 s < 1.1 s")})


def test_findings_of_an_earlier_version_get_their_files_hashes_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, frequency in {"jazz/1.wav": 200, "jazz/2.wav": 210, "soul/3.wav": 220}.items():
        tone(tmp_path / "music" / name, frequency)
    first = audited(tmp_path / "music", tmp_path / "cache")
    for track in first.usable:
        assert track.file_hash == hashlib.sha256(track.path.read_bytes()).hexdigest()
    table = pq.read_table(tmp_path / "cache" / CACHE_NAME).drop_columns(["file_hash"])
    pq.write_table(table, tmp_path / "cache" / EARLIER_CACHE)
    (tmp_path / "cache" / CACHE_NAME).unlink()
    monkeypatch.delattr(decode, "inspect")
    for _ in range(2):
        assert audited(tmp_path / "music", tmp_path / "cache") == first
        (tmp_path / "cache" / EARLIER_CACHE).unlink(missing_ok=True)


def emptied(cache: Path) -> None:
    cache.write_bytes(b"")


def cut(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[:-9])


def scrambled(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[::-1])


def of_another_shape(cache: Path) -> None:
    write_corpus(Corpus((Track(track_id="a", location="/a", genre="b", group="c"),)), cache)


def lost_in_the_middle(cache: Path) -> None:
    data = bytearray(cache.read_bytes())
    data[4:200] = bytes(196)
    cache.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [emptied, cut, scrambled, of_another_shape, lost_in_the_middle, Path.unlink]
)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    for number in range(3):
        tone(tmp_path / f"music/jazz/{number}.wav", 200 + number)
    first = audited(tmp_path / "music", tmp_path / "cache")
    damage(tmp_path / "cache" / CACHE_NAME)
    assert audited(tmp_path / "music", tmp_path / "cache") == first
    overwritten_in_secret(first.tracks[0].path)
    assert audited(tmp_path / "music", tmp_path / "cache") == first
    assert [child.name for child in (tmp_path / "cache").iterdir()] == [CACHE_NAME]


def test_a_cache_that_cannot_be_a_folder_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    tone(tmp_path / "music/jazz/1.wav", 200)
    (tmp_path / "cache").touch()
    with refused(ErrorCode.AUDIT_CACHE_NOT_WRITABLE, tmp_path / "cache", os.strerror(errno.EEXIST)):
        audited(tmp_path / "music", tmp_path / "cache")


def test_progress_counts_to_the_end_and_an_interrupted_audit_keeps_what_it_has(tmp_path: Path) -> None:
    for number in range(6):
        tone(tmp_path / f"music/jazz/{number}.wav", 200 + number)
    corpus = read_corpus(tmp_path / "music")
    reported: list[tuple[int, int]] = []

    def until_three(done: int, total: int) -> None:
        reported.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(corpus, minimum_seconds=MINIMUM, cache=tmp_path / "cache", workers=2, progress=until_three)
    rest: list[tuple[int, int]] = []
    audit(
        corpus,
        minimum_seconds=MINIMUM,
        cache=tmp_path / "cache",
        workers=2,
        progress=lambda done, total: rest.append((done, total)),
    )
    assert reported == [(1, 6), (2, 6), (3, 6)]
    assert rest == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.skipif(not SOUNDTRACKS.is_dir(), reason="needs real music in ../shared/data")
def test_real_music_passes_and_is_decoded_once(tmp_path: Path) -> None:
    corpus = read_corpus(SOUNDTRACKS)
    decoded: list[int] = []

    def once_more() -> Corpus:
        decoded.clear()
        return audit(
            corpus,
            minimum_seconds=3.0,
            cache=tmp_path,
            workers=2,
            progress=lambda done, total: decoded.append(done),
        )

    first = once_more()
    assert decoded == list(range(1, len(corpus.tracks) + 1))
    assert once_more() == first
    assert decoded == []
    assert reason_counts(first) == {}
    assert {round(track.seconds or 0) for track in first.usable} == {8}
    parted = split_corpus(first, validation=0.15, test=0.15, seed=0)
    assert parted.fingerprint == first.fingerprint
