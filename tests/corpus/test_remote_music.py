"""Music in a storage: the same tracks, hashes and spectrograms as in a folder, and mistakes that name the address."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from refusals import refused
from s3_server import BUCKET, SECRET, Server

from genre_core.audio import on_disk
from genre_core.audio.mel import front_end
from genre_core.corpus import spectrogram_store
from genre_core.corpus.audit import audit, version_of
from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.mel_parts import in_threads
from genre_core.corpus.relocation import relocate_corpus
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.synthetic.corpus import SyntheticCorpus, write
from genre_core.system import remote_files
from genre_core.system.addresses import child, normalized

MEL64 = front_end("mel64")
ODD_NAMES = ("blues/100% sure?.wav", "blues/Artist #1/a b+c.wav", "rock/Björk/é.wav")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tracks in genre folders, some with names that an address must encode, and what is no track."""
    folder = tmp_path_factory.mktemp("music")
    write(SyntheticCorpus(tracks_per_genre=1, seconds=4.0, tracks_per_recording=1), folder)
    (folder / "manifest.csv").unlink()
    for name, source in zip(ODD_NAMES, sorted(folder.rglob("*.wav")), strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = bytearray(source.read_bytes())
        content[-2:] = b"\1\0"  # not a copy
        (folder / name).write_bytes(content)
    (folder / "rock" / "notes.txt").write_text("no audio")
    (folder / "rock" / ".hidden.wav").write_bytes(b"")
    (folder / "rock" / "bad.wav").write_bytes(b"RIFF")
    (folder / "outside.wav").write_bytes(b"RIFF")
    (folder / "rock" / "@eaDir").mkdir()
    (folder / "rock" / "@eaDir" / "thumb.wav").write_bytes(b"")
    return folder


def _upload(folder: Path, address: str) -> None:
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    for file in folder.rglob("*"):
        if file.is_file():
            target = f"{path}/{file.relative_to(folder).as_posix()}"
            if system.type_name == "local":
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            with system.open_output_stream(target) as out:
                out.write(file.read_bytes())


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The parent of the music of one test, in a folder and in a bucket."""
    if request.param == "file":
        return (tmp_path / "storage").as_uri()
    server: Server = request.getfixturevalue("server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return normalized(server.bare_address(tmp_path.name))


@pytest.fixture
def music(address: str, folder: Path) -> str:
    """The address of a copy of the folder."""
    at = child(address, "my music")
    _upload(folder, at)
    return at


def _audited(source: Path | str, cache: Path | None = None) -> Corpus:
    return audit(read_corpus(source), minimum_seconds=3.0, cache=cache, workers=2)


def _without_location(corpus: Corpus) -> Corpus:
    return Corpus(tuple(replace(track, location="") for track in corpus.tracks))


def test_names_groups_hashes_and_the_written_table_are_those_of_the_folder(
    music: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    there, here = _audited(music), _audited(folder)
    assert len(here.usable) == 13
    assert _without_location(there) == _without_location(here)
    assert there.notes == here.notes
    assert read_corpus(music).notes == read_corpus(folder).notes
    tables = []
    for name, corpus in (("there", there), ("here", here)):
        write_corpus(corpus, tmp_path / name)
        tables.append(pq.read_table(tmp_path / name))
    assert tables[0].drop(["path"]).equals(tables[1].drop(["path"]))
    assert all(track.location == child(music, track.track_id) for track in there.tracks)
    assert not list(temporary.iterdir()), "copies are deleted"


def test_the_spectrogram_store_is_that_of_the_folder(music: str, folder: Path, tmp_path: Path) -> None:
    there, here = _audited(music), _audited(folder)
    stores = [
        spectrogram_store.open_or_build(corpus.usable, MEL64, cache=tmp_path / name, workers=2)
        for name, corpus in (("there", there), ("here", here))
    ]
    assert stores[0].folder.name == stores[1].folder.name
    for one, other in zip(there.usable, here.usable, strict=True):
        assert np.array_equal(stores[0].mel(one), stores[1].mel(other))


def test_a_listing_says_which_files_were_audited_before_and_a_changed_file_is_read_again(
    music: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _audited(music, tmp_path)
    fetched: list[str] = []
    asked: list[str] = []
    chunks = remote_files.chunks

    def remember(location: str) -> Iterator[bytes]:
        fetched.append(location)
        return chunks(location)

    monkeypatch.setattr(on_disk, "chunks", remember)
    monkeypatch.setattr(remote_files, "version", asked.append)
    assert _audited(music, tmp_path) == first
    assert fetched == [child(music, "rock/bad.wav")], "only what may not be the file's fault"
    assert asked == []
    changed = first.usable[0]
    system, path = remote_files._opened(changed.location)
    with system.open_output_stream(path) as out:
        out.write(b"RIFF")
    fetched.clear()
    now = _audited(music, tmp_path)
    assert set(fetched) == {changed.location, child(music, "rock/bad.wav")}
    assert changed.track_id not in {track.track_id for track in now.usable}


def test_the_version_in_a_listing_is_that_of_a_single_request(music: str) -> None:
    assert {file: version_of(child(music, file)) for file in ODD_NAMES} == {
        file: version for file, version in remote_files.list_files(music).items() if file in ODD_NAMES
    }
    assert version_of(child(music, "none.wav")) == remote_files.MISSING


MANIFEST = """path,genre,group
{first},blues,a
blues/Artist #1/a b+c.wav,blues,b
rock\\Bjo\u0308rk\\e\u0301.wav,rock,c
rock/none.wav,rock,d
"""


def test_paths_in_a_manifest_are_relative_to_it_or_addresses(
    music: str, address: str, folder: Path, tmp_path: Path
) -> None:
    elsewhere = child(address, "else where")
    _upload(folder, elsewhere)
    single = f"{elsewhere.partition('?')[0]}/blues/100%25 sure%3F.wav"  # partly encoded, as people write
    single += "".join(elsewhere.partition("?")[1:])
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "manifest.csv").write_text(MANIFEST.format(first=single))
    _upload(tmp_path / "tables", music)
    corpora = [read_corpus(music), read_corpus(child(music, "manifest.csv"))]
    assert corpora[0] == corpora[1]
    by_group = {track.group: track for track in corpora[0].tracks}
    assert by_group["a"].location == child(elsewhere, ODD_NAMES[0])
    assert by_group["b"].track_id == ODD_NAMES[1]
    assert by_group["c"].location == child(music, ODD_NAMES[2])
    assert by_group["d"].version == remote_files.MISSING
    audited = audit(corpora[0], minimum_seconds=3.0, cache=None)
    assert {track.group: bool(track.excluded_reason) for track in audited.tracks} == {
        "a": False,
        "b": False,
        "c": False,
        "d": True,
    }
    (tmp_path / "local.csv").write_text(f"path,genre\n{single},blues\n{child(music, ODD_NAMES[2])},rock\n")
    local = audit(read_corpus(tmp_path / "local.csv"), minimum_seconds=3.0, cache=None)
    assert [track.location for track in local.usable] == [
        child(elsewhere, ODD_NAMES[0]),
        child(music, ODD_NAMES[2]),
    ]
    assert ODD_NAMES[0] in local.usable[0].track_id


def test_hugging_face_metadata_is_read(address: str, folder: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "hf" / part).mkdir(parents=True)
        shutil.copy(folder / ODD_NAMES[0], tmp_path / "hf" / part / "one.wav")
        (tmp_path / "hf" / part / "metadata.csv").write_text("file_name,label\none.wav,blues\n")
    _upload(tmp_path / "hf", child(address, "hf"))
    there, here = read_corpus(child(address, "hf")), read_corpus(tmp_path / "hf")
    assert [track.split for track in there.tracks] == ["test", "train"]
    assert _without_location(there) == _without_location(here)
    assert there.notes == here.notes


def test_a_mistake_in_a_manifest_names_its_address(address: str, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "manifest.csv").write_text("path,genre\none.wav,\n")
    _upload(tmp_path / "tables", child(address, "tables"))
    shown = child(address, "tables").partition("?")[0]
    with refused(ErrorCode.MANIFEST_EMPTY_CELL, f"{shown}/manifest.csv, row 1"):
        read_corpus(child(address, "tables"))


def test_an_object_that_is_deleted_after_the_listing_is_a_bad_file_and_is_tried_again(
    music: str, tmp_path: Path
) -> None:
    listed = read_corpus(music)
    lost = listed.usable[0]
    system, path = remote_files._opened(lost.location)
    content = system.open_input_stream(path).read()
    system.delete_file(path)
    audited = audit(listed, minimum_seconds=3.0, cache=tmp_path, workers=2)
    reasons = {track.track_id: track.excluded_reason for track in audited.excluded}
    assert str(reasons[lost.track_id]).startswith("unreadable: ")
    parts = spectrogram_store.mel_parts(MEL64, tmp_path)
    found = dict(parts.examine({lost.location: lost.version or (0, 0)}, in_threads, minimum_seconds=3.0))
    assert found[lost.location].reason
    with system.open_output_stream(path) as out:
        out.write(content)
    assert lost.track_id in {track.track_id for track in _audited(music, tmp_path).usable}


def test_moved_music_is_found_by_name_and_renamed_music_by_content(
    music: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "local")
    one = tmp_path / "local" / ODD_NAMES[0]
    one.rename(one.with_name("renamed.wav"))
    here = _audited(tmp_path / "local")
    there = relocate_corpus(here, music, cache=tmp_path / "cache")
    assert {track.location for track in there.usable} == {
        track.location for track in read_corpus(music).usable
    } - {child(music, "rock/bad.wav")}
    back = relocate_corpus(there, tmp_path / "local", cache=tmp_path / "cache")
    assert back == here


REGION = "endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
WRONG = {"AWS_SECRET_ACCESS_KEY": "wrong-and-hidden"}
MISTAKES: dict[str, tuple[Callable[[Server], str], dict[str, str], ErrorCode, str]] = {
    "no such folder": (
        lambda server: server.bare_address("nothing here"),
        {},
        ErrorCode.CORPUS_NOT_FOUND,
        "nothing here does not exist",
    ),
    "another file": (
        lambda server: server.bare_address("ready"),
        {},
        ErrorCode.CORPUS_NOT_FOUND,
        "ready is another file",
    ),
    "no such bucket": (
        lambda server: server.bare_address("x", bucket="no-such-bucket"),
        {},
        ErrorCode.CORPUS_ADDRESS_UNREADABLE,
        "NO_SUCH_BUCKET",
    ),
    "wrong secret": (
        lambda server: server.bare_address("x"),
        WRONG,
        ErrorCode.CORPUS_ADDRESS_UNREADABLE,
        "SIGNATURE_DOES_NOT_MATCH",
    ),
    "no credentials": (
        lambda server: server.bare_address("x"),
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        ErrorCode.CORPUS_ADDRESS_UNREADABLE,
        "ACCESS_DENIED",
    ),
    "credentials in it": (
        lambda server: server.address(secret="hidden"),
        {},
        ErrorCode.CORPUS_ADDRESS_WITH_CREDENTIALS,
        f"{BUCKET}/of/mine",
    ),
    "no server": (
        lambda _: f"s3://bucket/x?{REGION}",
        {},
        ErrorCode.CORPUS_ADDRESS_UNREADABLE,
        "NETWORK_CONNECTION",
    ),
    "unknown scheme": (lambda _: "s4://bucket/x", {}, ErrorCode.CORPUS_ADDRESS_UNREADABLE, "s4"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_address_that_cannot_be_listed_is_refused_in_one_line_without_secrets(
    mistake: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, environment, code, value = MISTAKES[mistake]
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # asking for credentials there takes long
    for name, setting in (server.environment | environment).items():
        monkeypatch.setenv(name, setting)
    remote_files._system.cache_clear()  # it keeps the credentials with which it was opened
    with pytest.raises(InputError) as caught:
        read_corpus(address(server))
    remote_files._system.cache_clear()
    text = str(caught.value)
    assert caught.value.code is code
    assert value in text
    assert "\n" not in text
    assert "hidden" not in text
    assert SECRET not in text


def test_a_storage_that_is_lost_while_files_are_decoded_ends_the_audit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, each file would count as bad, after several seconds each."""
    gone = f"s3://{BUCKET}/x?{REGION}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    listed = read_corpus(folder)
    there = Corpus(tuple(replace(t, location=child(gone, t.track_id), version=(1, 1)) for t in listed.tracks))
    with pytest.raises(InputError) as caught:
        audit(there, minimum_seconds=3.0, cache=None, workers=2)
    assert caught.value.code is ErrorCode.AUDIO_STORAGE_UNREACHABLE
    assert BUCKET in str(caught.value)
    with refused(ErrorCode.AUDIO_STORAGE_UNREACHABLE, BUCKET):
        version_of(f"s3://{BUCKET}/x?{REGION}")
    assert "hidden" not in str(caught.value)
