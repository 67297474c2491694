"""GTZAN, whatever its copy and its faults, becomes a manifest with the split that lets nothing leak."""

import hashlib
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

from genre_core.corpus.audit import audit, copies_across
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.datasets.fetch import get
from genre_core.datasets.gtzan import recordings, tracks
from genre_core.errors import InputError
from genre_core.models.registry import BLOCKS
from genre_core.system.progress import ProgressCallback
from search.config.schema import load
from search.config.space import DepthRange


@pytest.fixture(scope="module")
def archive(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gtzan_archive(music, tmp_path_factory.mktemp("gtzan"))


@contextmanager
def unseen(title: str) -> Iterator[ProgressCallback]:
    yield lambda done, total: None


def mirrors(folder: Path, mirror: Mirror, archive: Path, *paths: str) -> Path:
    """A file for --mirrors, with the archive's true checksum."""
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    row = {"name": "genres.tar.gz", "urls": [f"{mirror.url}/{path}" for path in paths], "sha256": sha256}
    (folder / "mirrors.yaml").write_text(yaml.safe_dump({"gtzan": [row]}))
    return folder / "mirrors.yaml"


def everything(folder: Path, suffix: str = "wav") -> Path:
    """All thousand names of GTZAN, without audio."""
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
    assert notes == ["70 files that the filtered split does not list, faulty or replicas, are left out"]
    assert CORRUPT in {track.path.stem for track in found}


def test_the_stratified_split_has_every_track_and_says_that_it_leaks(tmp_path: Path) -> None:
    found, notes = tracks(everything(tmp_path), "stratified")
    assert Counter(track.split for track in found) == {"train": 600, "validation": 200, "test": 200}
    assert Counter((t.genre, t.split) for t in found)["jazz", "test"] == 20
    assert notes[0].startswith("warning: the stratified split leaks. 64% of its test tracks share an artist")


def test_a_copy_that_lacks_tracks_says_so(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / "blues" / "blues.00012.wav").unlink()
    assert (
        tracks(tmp_path, "filtered")[1][0]
        == "1 of the filtered split's 930 tracks are not there, first blues.00012"
    )
    shutil.rmtree(tmp_path / "blues")
    for path in tmp_path.rglob("*.wav"):
        path.rename(path.with_name("renamed.wav"))
    with pytest.raises(InputError, match="no track of GTZAN's filtered split is in"):
        tracks(tmp_path, "filtered")


def test_gtzan_is_downloaded_through_all_that_goes_wrong_and_can_be_searched(
    archive: Path, genre_search: Command, tmp_path: Path
) -> None:
    content, folder = archive.read_bytes(), tmp_path / "new" / "G"
    with serving(
        gone=File(b"", status=404), spoilt=File(content[::-1]), cut=File(content, cuts=[999_999])
    ) as mirror:
        file = mirrors(tmp_path, mirror, archive, "gone", "spoilt", "cut")
        done = genre_search("data", "get", "gtzan", folder, "--mirrors", file)
        assert (done.returncode, done.stderr) == (0, "")
        assert [asked[:2] for asked in mirror.asked] == [
            *[("gone", None), ("spoilt", None), ("cut", None), ("cut", "bytes=999999-")]
        ]
    assert done.stdout.splitlines()[-1] == (
        "gtzan: 61 tracks in 10 genres, 21 train, 20 validation, 20 test; "
        f"next: genre-search data check {folder}    "
        f"genre-search run --config configs/gtzan.yaml --data {folder}"
    )
    assert sorted(path.name for path in folder.iterdir()) == [".downloads", "genres", "manifest.csv"]
    corpus = read_corpus(folder)
    assert not [track for track in corpus.tracks if track.path.name.startswith("._")]
    checked = genre_search("data", "check", folder)
    assert checked.returncode == 1
    assert f"'genres/jazz/{CORRUPT}.wav': unreadable" in checked.stdout.splitlines()[1]
    assert re.search(r"^all +60 +60 +20 +20 +20 *$", checked.stdout, re.MULTILINE)
    assert checked.stdout.splitlines()[-1] == "1 of 61 files left out: 1 unreadable"
    sound = split_corpus(audit(corpus, minimum_seconds=3, cache=None), validation=0.2, test=0.2, seed=0)
    assert {split: len(sound.part(split)) for split in ("train", "validation", "test")} == {
        "train": 20,
        "validation": 20,
        "test": 20,
    }


def test_audio_that_is_there_is_not_downloaded(music: Path, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "Data/genres_original")
    get("gtzan", tmp_path, progress=unseen)
    found = read_corpus(tmp_path).tracks
    assert found[0].track_id == "Data/genres_original/blues/blues.00000.wav"
    assert len(found) == 61


def test_an_archive_that_is_there_is_unpacked_and_kept(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive, tmp_path)
    get("gtzan", tmp_path, progress=unseen)
    assert len(read_corpus(tmp_path).tracks) == 61
    assert (tmp_path / "genres.tar.gz").exists()


def test_kaggles_archive_is_unpacked_where_it_is_and_kept(music: Path, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "kaggle/Data/genres_original")
    (tmp_path / "kaggle/Data/images_original/jazz").mkdir(parents=True)
    (tmp_path / "kaggle/Data/images_original/jazz/jazz00000.png").write_bytes(b"PNG")
    (tmp_path / "kaggle/Data/features_30_sec.csv").write_text("filename,label\nblues.00000.wav,blues\n")
    folder = tmp_path / "gtzan"
    folder.mkdir()
    shutil.make_archive(str(folder / "archive"), "zip", tmp_path / "kaggle")
    get("gtzan", folder, progress=unseen)  # no mirror is there to be asked
    corpus = read_corpus(folder)
    assert len(corpus.tracks) == 61
    assert all(track.path.is_relative_to(folder / "Data/genres_original") for track in corpus.tracks)
    assert (folder / "archive.zip").exists()
    with pytest.raises(InputError, match=r"DIR must be a folder, but got the file .*put it into one"):
        get("gtzan", folder / "archive.zip", progress=unseen)


def test_recordings_in_hidden_folders_are_none(tmp_path: Path) -> None:
    everything(tmp_path / "genres")
    everything(tmp_path / ".Trash-1000/genres")
    assert not [path for path in recordings(tmp_path).values() if ".Trash-1000" in path.parts]


def test_copies_across_the_split_are_told(music: Path, genre_search: Command, tmp_path: Path) -> None:
    gtzan_folder(music, tmp_path / "genres", replicas=9)
    warned = genre_search("data", "get", "gtzan", tmp_path, "--split", "stratified")
    assert warned.stdout.startswith("warning: the stratified split leaks")
    corpus = audit(read_corpus(tmp_path), minimum_seconds=3, cache=None)
    by_content: dict[str | None, set[str | None]] = {}
    for track in corpus.tracks:
        by_content.setdefault(track.content, set()).add(track.split)
    across = [content for content, sides in by_content.items() if content and len(sides) > 1]
    assert across
    assert {original.content for original, _ in copies_across(corpus)} == set(across)
    told = genre_search("data", "check", tmp_path).stdout
    original, copy = copies_across(corpus)[0]
    assert f"{copy.track_id!r} in {copy.split} is a copy of {original.track_id!r} in {original.split}" in told
    assert f"{len(copies_across(corpus))} exact copies cross the split: left out here and by run" in told
    filtered, _ = tracks(tmp_path, "filtered")
    assert copies_across(audit(Corpus(filtered), minimum_seconds=3, cache=None)) == []


def test_a_full_disk_is_one_line_and_with_room_it_goes_on(
    archive: Path, genre_search: Command, tmp_path: Path
) -> None:
    """A limit on the size of a file stands in for the disk."""
    content, folder = archive.read_bytes(), tmp_path / "G"
    limit = len(content) // 2

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with serving(m=File(content)) as mirror:
        file = mirrors(tmp_path, mirror, archive, "m")
        full = genre_search("data", "get", "gtzan", folder, "--mirrors", file, preexec_fn=limited)
        assert full.returncode == 2
        assert full.stderr == (
            f"error: {folder} cannot be written: File too large; mend that and run the same command again, "
            "it goes on from here\n"
        )
        assert genre_search("data", "get", "gtzan", folder, "--mirrors", file).returncode == 0
        assert mirror.asked == [("m", None, None), ("m", f"bytes={limit}-", '"1"')]
    assert len(read_corpus(folder).tracks) == 61


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.999])
def test_a_damaged_archive_without_a_checksum_goes_and_is_asked_for_again(
    archive: Path, tmp_path: Path, share: float
) -> None:
    content = archive.read_bytes()
    spoilt, place = bytearray(content), int(share * len(content))
    spoilt[place : place + 100] = random.Random(0).randbytes(100)
    with serving(m=File(bytes(spoilt))) as mirror:
        (tmp_path / "mirrors.yaml").write_text(f"gtzan: [{{name: genres.tar.gz, urls: [{mirror.url}/m]}}]")
        with pytest.raises(InputError, match=r"genres.tar.gz is damaged .*: get it anew"):
            get("gtzan", tmp_path / "G", mirrors=tmp_path / "mirrors.yaml", progress=unseen)
        mirror.files["m"] = File(content)
        _, notes = get("gtzan", tmp_path / "G", mirrors=tmp_path / "mirrors.yaml", progress=unseen)
    assert notes[0] == "genres.tar.gz: neither a checksum nor a size is known for it"
    for path in (archive.parent / "genres").rglob("*.wav"):
        assert (tmp_path / "G" / path.relative_to(archive.parent)).read_bytes() == path.read_bytes()


# what is asked for, what is said
MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"name": "gtzam"}, "NAME must be one of gtzan, fma_small, fma_medium, fma_large, but got gtzam"),
    ({"split": "honest"}, "--split of gtzan must be filtered or stratified, but got --split honest"),
    ({"name": "fma_small", "split": "filtered"}, "leave --split filtered out"),
    ({"mirrors": "nowhere"}, "--mirrors must be a readable YAML file, but .*nowhere is not"),
    ({"mirrors": "text"}, "--mirrors must list archives under gtzan, but .*text does not"),
    ({"mirrors": "odd"}, "--mirrors .*odd: an archive's md5 must be 32 hexadecimal digits"),
    ({"mirrors": "typo"}, "--mirrors .*typo: an archive has no sha512; see .*data_sets.yaml"),
    ({"folder": "text"}, "DIR must be a folder, but got the file .*text; put it into one"),
]


@pytest.mark.parametrize(("asked", "words"), MISTAKES, ids=[case[1] for case in MISTAKES])
def test_a_mistake_is_named_with_the_way_out(asked: dict[str, str], words: str, tmp_path: Path) -> None:
    everything(tmp_path / "G")
    (tmp_path / "text").write_text("nothing")
    (tmp_path / "odd").write_text("gtzan: [{name: a.zip, urls: ['http://a/b'], md5: 1}]")
    (tmp_path / "typo").write_text("gtzan: [{name: a.zip, urls: ['http://a/b'], sha512: '1'}]")
    with pytest.raises(InputError, match=words):
        get(
            asked.get("name", "gtzan"),
            tmp_path / asked.get("folder", "G"),
            split=asked.get("split"),
            mirrors=tmp_path / asked["mirrors"] if "mirrors" in asked else None,
            progress=unseen,
        )
    assert not (tmp_path / "G/manifest.csv").exists()


def test_two_at_a_time_are_one_too_many(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / ".downloads").mkdir()
    with (
        FileLock(tmp_path / ".downloads/lock"),
        pytest.raises(InputError, match=r"another data get is at work in .*: wait for its end"),
    ):
        get("gtzan", tmp_path, progress=unseen)


@pytest.mark.parametrize("name", ["gtzan", "fma_small"])
def test_our_searches_of_published_data_are_over_all_five_families(name: str) -> None:
    config = load(Path(__file__).parents[2] / "configs" / f"{name}.yaml", {})
    assert {BLOCKS[backbone] for backbone in config.backbones} == set(BLOCKS.values())
    assert set(config.backbones) >= {"resnet18", "resnet34"}
    assert config.space.frozen_blocks == DepthRange(low=0, high="all")
