"""Every copy of GTZAN becomes a manifest with the filtered split, despite its known faults."""

import errno
import hashlib
import os
import random
import re
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import Command
from filelock import FileLock
from mirrors import File, Mirror, serving
from shaped import CORRUPT, gtzan_archive, gtzan_folder
from torchaudio.datasets import gtzan as published

from genre_core.corpus.audit import audit, copies_across_splits
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.datasets.fetch import get
from genre_core.datasets.gtzan import filtered_split, recordings, tracks
from genre_core.errors import ErrorCode, InputError
from genre_core.models.registry import BLOCKS
from genre_core.system.progress import ProgressCallback
from search.config.schema import load
from search.config.space import DepthRange


@pytest.fixture(scope="module")
def archive(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gtzan_archive(music, tmp_path_factory.mktemp("gtzan"))


@contextmanager
def hidden(title: str) -> Iterator[ProgressCallback]:
    yield lambda done, total: None


def mirrors(folder: Path, mirror: Mirror, archive: Path, *paths: str) -> Path:
    """A file for --mirrors with the archive's checksum."""
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    row = {"name": "genres.tar.gz", "urls": [f"{mirror.url}/{path}" for path in paths], "sha256": sha256}
    (folder / "mirrors.yaml").write_text(yaml.safe_dump({"gtzan": [row]}))
    return folder / "mirrors.yaml"


def everything(folder: Path, suffix: str = "wav") -> Path:
    """All thousand files of GTZAN, empty."""
    for genre in published.gtzan_genres:
        (folder / genre).mkdir(parents=True)
        for number in range(100):
            (folder / genre / f"{genre}.{number:05}.{suffix}").touch()
    return folder


@pytest.mark.parametrize("place", ["genres", "Data/genres_original", "."])
@pytest.mark.parametrize("suffix", ["wav", "au"])
def test_the_filtered_split_is_the_published_one_in_every_copy(
    tmp_path: Path, place: str, suffix: str
) -> None:
    everything(tmp_path / place, suffix)
    found, notes = tracks(tmp_path, "filtered")
    assert Counter(track.split for track in found) == {"train": 443, "validation": 197, "test": 290}
    for side, names in {"train": published.filtered_train, "test": published.filtered_test}.items():
        assert {track.path.stem for track in found if track.split == side} == set(names)
    assert all(track.path.is_file() and track.group == track.track_id for track in found)
    (note,) = notes
    assert re.findall(r"\d+", note) == ["70"]
    assert CORRUPT in {track.path.stem for track in found}


def test_canary_torchaudio_has_the_lists_of_the_filtered_split() -> None:
    try:
        listed = "\n".join(f"{name} {split}" for name, split in sorted(filtered_split().items()))
    except (ImportError, AttributeError) as error:
        listed = str(error)
    assert hashlib.sha256(listed.encode()).hexdigest() == (
        "91b2cdad2605dc5477a3365ffb01cb905ff56493f7d042b5a39e21fb4f45b856"
    ), (
        "torchaudio.datasets.gtzan no longer has the lists filtered_train, filtered_valid and filtered_test of "
        "torchaudio 2.11: copy them from there to genre_core/datasets and read them in filtered_split"
    )


def test_the_stratified_split_has_every_track_and_warns_that_it_leaks(tmp_path: Path) -> None:
    found, notes = tracks(everything(tmp_path), "stratified")
    assert Counter(track.split for track in found) == {"train": 600, "validation": 200, "test": 200}
    assert Counter((t.genre, t.split) for t in found)["jazz", "test"] == 20
    (note,) = notes
    assert note.startswith("warning: ")
    assert "--split filtered" in note


def test_missing_tracks_are_counted_and_named(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / "blues" / "blues.00012.wav").unlink()
    note = tracks(tmp_path, "filtered")[1][0]
    assert all(value in note for value in ("1 of", "930", "blues.00012"))
    shutil.rmtree(tmp_path / "blues")
    for path in tmp_path.rglob("*.wav"):
        path.rename(path.with_name("renamed.wav"))
    with pytest.raises(InputError) as error:
        tracks(tmp_path, "filtered")
    assert error.value.code is ErrorCode.NO_TRACKS
    assert str(tmp_path) in str(error.value)


def test_gtzan_is_downloaded_from_unreliable_mirrors_and_can_be_searched(
    archive: Path, genre_search: Command, tmp_path: Path
) -> None:
    content, folder = archive.read_bytes(), tmp_path / "new" / "G"
    with serving(
        gone=File(b"", status=404), corrupted=File(content[::-1]), cut=File(content, cuts=[999_999])
    ) as mirror:
        file = mirrors(tmp_path, mirror, archive, "gone", "corrupted", "cut")
        done = genre_search("data", "get", "gtzan", folder, "--mirrors", file)
        assert (done.returncode, done.stderr) == (0, "")
        assert [asked[:2] for asked in mirror.asked] == [
            *[("gone", None), ("corrupted", None), ("cut", None), ("cut", "bytes=999999-")]
        ]
    for part in (
        *("61 tracks", "10 genres", "21 train", "20 validation", "20 test"),
        f"genre-search data check {folder}",
        f"genre-search run --config configs/gtzan.yaml --data {folder}",
    ):
        assert part in done.stdout.splitlines()[-1]
    assert sorted(path.name for path in folder.iterdir()) == [".downloads", "genres", "manifest.csv"]
    corpus = read_corpus(folder)
    assert not [track for track in corpus.tracks if track.path.name.startswith("._")]
    checked = genre_search("data", "check", folder)
    assert checked.returncode == 1
    assert f"genres/jazz/{CORRUPT}.wav" in checked.stdout.splitlines()[1]
    assert re.search(r"^all +60 +60 +20 +20 +20 *$", checked.stdout, re.MULTILINE)
    assert re.findall(r"\d+", checked.stdout.splitlines()[-1]) == ["1", "61", "1"]
    sound = split_corpus(audit(corpus, minimum_seconds=3, cache=None), validation=0.2, test=0.2, seed=0)
    assert {split: len(sound.part(split)) for split in ("train", "validation", "test")} == {
        "train": 20,
        "validation": 20,
        "test": 20,
    }


def test_existing_audio_is_not_downloaded(music: Path, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "Data/genres_original")
    get("gtzan", tmp_path, progress=hidden)
    found = read_corpus(tmp_path).tracks
    assert found[0].track_id == "Data/genres_original/blues/blues.00000.wav"
    assert len(found) == 61


def test_an_existing_archive_is_unpacked_and_kept(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive, tmp_path)
    get("gtzan", tmp_path, progress=hidden)
    assert len(read_corpus(tmp_path).tracks) == 61
    assert (tmp_path / "genres.tar.gz").exists()


def test_kaggles_archive_is_unpacked_and_kept(music: Path, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "kaggle/Data/genres_original")
    (tmp_path / "kaggle/Data/images_original/jazz").mkdir(parents=True)
    (tmp_path / "kaggle/Data/images_original/jazz/jazz00000.png").write_bytes(b"PNG")
    (tmp_path / "kaggle/Data/features_30_sec.csv").write_text("filename,label\nblues.00000.wav,blues\n")
    folder = tmp_path / "gtzan"
    folder.mkdir()
    shutil.make_archive(str(folder / "archive"), "zip", tmp_path / "kaggle")
    get("gtzan", folder, progress=hidden)  # without any mirror
    corpus = read_corpus(folder)
    assert len(corpus.tracks) == 61
    assert all(track.path.is_relative_to(folder / "Data/genres_original") for track in corpus.tracks)
    assert (folder / "archive.zip").exists()
    with pytest.raises(InputError) as error:
        get("gtzan", folder / "archive.zip", progress=hidden)
    assert error.value.code is ErrorCode.FOLDER_IS_A_FILE


def test_recordings_in_hidden_folders_are_ignored(tmp_path: Path) -> None:
    everything(tmp_path / "genres")
    everything(tmp_path / ".Trash-1000/genres")
    assert not [path for path in recordings(tmp_path).values() if ".Trash-1000" in path.parts]


def test_copies_across_the_split_are_reported(music: Path, genre_search: Command, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "genres", replicas=9)
    warned = genre_search("data", "get", "gtzan", tmp_path, "--split", "stratified")
    assert warned.stdout.startswith("warning: ")
    corpus = audit(read_corpus(tmp_path), minimum_seconds=3, cache=None)
    by_content: dict[str | None, set[str | None]] = {}
    for track in corpus.tracks:
        by_content.setdefault(track.content, set()).add(track.split)
    across = [content for content, sides in by_content.items() if content and len(sides) > 1]
    assert across
    assert {original.content for original, _ in copies_across_splits(corpus)} == set(across)
    lines = genre_search("data", "check", tmp_path).stdout.splitlines()
    for original, copy in copies_across_splits(corpus):
        assert any(
            all(
                str(value) in line for value in (copy.track_id, copy.split, original.track_id, original.split)
            )
            for line in lines
        )
    assert any(line.startswith(f"{len(copies_across_splits(corpus))} ") for line in lines)
    filtered, _ = tracks(tmp_path, "filtered")
    assert copies_across_splits(audit(Corpus(filtered), minimum_seconds=3, cache=None)) == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Simulates a full disk: no file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_download_resumes_after_the_disk_was_full(archive: Path, tmp_path: Path) -> None:
    content, folder = archive.read_bytes(), tmp_path / "G"
    limit = len(content) // 2
    with serving(m=File(content)) as mirror:
        file = mirrors(tmp_path, mirror, archive, "m")
        with pytest.raises(InputError) as error, file_size_limit(limit):
            get("gtzan", folder, mirrors=file, progress=hidden)
        assert error.value.code is ErrorCode.FOLDER_NOT_WRITABLE
        assert str(folder) in str(error.value)
        assert os.strerror(errno.EFBIG) in str(error.value)
        get("gtzan", folder, mirrors=file, progress=hidden)
        assert mirror.asked == [("m", None, None), ("m", f"bytes={limit}-", '"1"')]
    assert len(read_corpus(folder).tracks) == 61


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.999])
def test_a_damaged_archive_without_a_checksum_is_deleted_and_downloaded_again(
    archive: Path, tmp_path: Path, share: float
) -> None:
    content = archive.read_bytes()
    damaged, place = bytearray(content), int(share * len(content))
    damaged[place : place + 100] = random.Random(0).randbytes(100)
    with serving(m=File(bytes(damaged))) as mirror:
        (tmp_path / "mirrors.yaml").write_text(f"gtzan: [{{name: genres.tar.gz, urls: [{mirror.url}/m]}}]")
        with pytest.raises(InputError) as error:
            get("gtzan", tmp_path / "G", mirrors=tmp_path / "mirrors.yaml", progress=hidden)
        assert error.value.code is ErrorCode.ARCHIVE_DAMAGED
        mirror.files["m"] = File(content)
        _, notes = get("gtzan", tmp_path / "G", mirrors=tmp_path / "mirrors.yaml", progress=hidden)
    assert notes[0].startswith("genres.tar.gz: ")
    for path in (archive.parent / "genres").rglob("*.wav"):
        assert (tmp_path / "G" / path.relative_to(archive.parent)).read_bytes() == path.read_bytes()


# the changed arguments, the kind of mistake, the value that the message must name
MISTAKES: list[tuple[dict[str, str], ErrorCode, str]] = [
    ({"name": "gtzam"}, ErrorCode.UNKNOWN_DATA_SET, "gtzam"),
    ({"split": "honest"}, ErrorCode.UNKNOWN_SPLIT, "--split honest"),
    ({"name": "fma_small", "split": "filtered"}, ErrorCode.SPLIT_NOT_SELECTABLE, "--split filtered"),
    ({"mirrors": "nowhere"}, ErrorCode.MIRRORS_UNREADABLE, "nowhere"),
    ({"mirrors": "text"}, ErrorCode.MIRRORS_WITHOUT_DATA_SET, "text"),
    ({"mirrors": "odd"}, ErrorCode.INVALID_ARCHIVE_ENTRY, "md5=1"),
    ({"mirrors": "typo"}, ErrorCode.INVALID_ARCHIVE_ENTRY, "sha512"),
    ({"folder": "text"}, ErrorCode.FOLDER_IS_A_FILE, "text"),
]


@pytest.mark.parametrize(("changes", "code", "value"), MISTAKES)
def test_each_kind_of_mistake_has_a_code_and_names_the_value(
    changes: dict[str, str], code: ErrorCode, value: str, tmp_path: Path
) -> None:
    everything(tmp_path / "G")
    (tmp_path / "text").write_text("nothing")
    (tmp_path / "odd").write_text("gtzan: [{name: a.zip, urls: ['http://a/b'], md5: 1}]")
    (tmp_path / "typo").write_text("gtzan: [{name: a.zip, urls: ['http://a/b'], sha512: '1'}]")
    with pytest.raises(InputError) as error:
        get(
            changes.get("name", "gtzan"),
            tmp_path / changes.get("folder", "G"),
            split=changes.get("split"),
            mirrors=tmp_path / changes["mirrors"] if "mirrors" in changes else None,
            progress=hidden,
        )
    assert error.value.code is code
    assert value in str(error.value)
    if "mirrors" in changes:
        assert changes["mirrors"] in str(error.value)
    assert not (tmp_path / "G/manifest.csv").exists()


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / ".downloads").mkdir()
    with FileLock(tmp_path / ".downloads/lock"), pytest.raises(InputError) as error:
        get("gtzan", tmp_path, progress=hidden)
    assert error.value.code is ErrorCode.FOLDER_IN_USE
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["gtzan", "fma_small"])
def test_the_configurations_for_published_data_search_all_five_families(name: str) -> None:
    config = load(Path(__file__).parents[2] / "configs" / f"{name}.yaml", {})
    assert {BLOCKS[backbone] for backbone in config.backbones} == set(BLOCKS.values())
    assert set(config.backbones) >= {"resnet18", "resnet34"}
    assert config.space.frozen_blocks == DepthRange(low=0, high="all")
