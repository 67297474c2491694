"""The copy of a run follows its folder, survives an outage of its storage and is restored byte for byte."""

import os
import socket
import time
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs
import pytest
from s3_server import SECRET, Server, until

from genre_core.errors import InputError
from genre_core.system import storage
from search.errors import SearchErrorCode
from search.run.mirror import GIVE_UP_FILES, Mirror, fetch, require_usable
from search.run.remote_folder import RemoteFolder

FILES = {
    "config.yaml": b"trials: 4\n",
    "corpus.parquet": b"tracks",
    "study.journal": b'{"op_code": 0}\n{"op_code": 4}\n',
    "results/trials.parquet": b"rows",
    "results/epochs/trial-00000.parquet": b"epochs",
    "models/trial-00000-epoch-002/model.safetensors": os.urandom(12 * 1024**2),
    "models/trial-00000-epoch-002/model.json": b"{}",
    f"models/shared/{64 * 'a'}.safetensors": b"block",
    "checkpoints/trial-00001-epoch-001.safetensors": b"",
}
"""The files of a run: one is larger than a part of a multipart upload, one is empty."""


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where copies are kept: a folder, and a bucket."""
    if request.param == "file":
        return f"file://{tmp_path}/copies"
    real: Server = request.getfixturevalue("server")
    return real.address()


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run with a name of its own, because tests share the bucket."""
    run = tmp_path / f"run-{abs(hash(request.node.name))}"
    for name, content in FILES.items():
        _write(run / name, content)
    return run


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _stored(address: str, run: Path) -> dict[str, bytes]:
    """Files at the address, read by pyarrow alone."""
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    base = f"{path}/{run.name}"
    found = {}
    for info in system.get_file_info(pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)):
        try:
            if info.is_file:
                found[info.path.removeprefix(f"{base}/")] = system.open_input_stream(info.path).read()
        except OSError:  # deleted in between
            continue
    return found


def _stored_names(address: str, run: Path) -> set[str]:
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    infos = system.get_file_info(pyarrow.fs.FileSelector(f"{path}/{run.name}", recursive=True))
    return {info.path.removeprefix(f"{path}/{run.name}/") for info in infos if info.is_file}


def _mirror(run: Path, address: str, said: list[str] | None = None, *, resumed: bool = False) -> Mirror:
    say = print if said is None else said.append
    return Mirror(run, address, say=say, resumed=resumed, interval_seconds=0.05)


def test_a_restored_run_is_identical_to_the_copied_one(address: str, run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with _mirror(run, address, said):
        pass
    assert _stored(address, run) == FILES
    fetch(address, run.name, tmp_path / "back")
    assert _contents(tmp_path / "back") == FILES
    assert not said


def test_changed_files_are_copied_again_and_deleted_ones_are_deleted_from_the_copy(
    address: str, run: Path
) -> None:
    with _mirror(run, address):
        until(lambda: _stored(address, run) == FILES)
        _write(run / "results/trials.parquet", b"more rows")
        _write(run / "checkpoints/trial-00001-epoch-002.safetensors", b"two")
        (run / "checkpoints/trial-00001-epoch-001.safetensors").unlink()
        for name in ("model.json", "model.safetensors"):
            (run / "models/trial-00000-epoch-002" / name).unlink()
        (run / "models/trial-00000-epoch-002").rmdir()
        expected = _contents(run)
        until(lambda: _stored(address, run) == expected)
        _write(run / "results/trials.parquet", b"last rows")  # as many bytes as before
    assert _stored(address, run) == expected | {"results/trials.parquet": b"last rows"}
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    assert not system.get_file_info(f"{path}/{run.name}/models").is_file
    left = system.get_file_info(f"{path}/{run.name}/models/trial-00000-epoch-002")
    assert left.type == pyarrow.fs.FileType.NotFound


@pytest.mark.parametrize(
    "name",
    [
        "results/.trials.parquet.123.partial",
        "models/trial-00002-epoch-001.partial/model.safetensors",
        "study.journal.lock",
        ".driver",
    ],
)
def test_incomplete_files_and_locks_are_never_copied(name: str, address: str, run: Path) -> None:
    _write(run / name, b"half")
    with _mirror(run, address):
        pass
    assert _stored(address, run) == FILES


def test_a_growing_journal_is_copied_in_complete_lines(address: str, run: Path, tmp_path: Path) -> None:
    for name in FILES.keys() - {"config.yaml"}:
        (run / name).unlink()
    line = b'{"op_code": 6, "trial_id": 1, "value": 0.5}\n'
    lengths, parts = set(), count()
    with _mirror(run, address), (run / "study.journal").open("ab", buffering=0) as journal:

        def seen_at_many_lengths() -> bool:
            for part in islice(parts, 10):
                journal.write(line[: 20 + part % 3])
                time.sleep(0.002)
                journal.write(line[20 + part % 3 :])
            if copied := _stored(address, run).get("study.journal"):
                assert copied == line * (len(copied) // len(line))
                lengths.add(len(copied))
            return len(lengths) > 9

        until(seen_at_many_lengths)
        journal.write(line[:7])
    assert _stored(address, run)["study.journal"] == line * next(parts)


def test_the_journal_in_the_copy_never_mentions_an_epoch_that_the_copy_lacks(address: str, run: Path) -> None:
    """Writes in a search's order: checkpoint, table, journal; the previous checkpoint is deleted."""
    for name in FILES.keys() - {"config.yaml"}:
        (run / name).unlink()
    checked, had_checkpoint, epochs = 0, False, count(1)
    with _mirror(run, address), (run / "study.journal").open("ab", buffering=0) as journal:

        def checked_often() -> bool:
            nonlocal checked, had_checkpoint
            for epoch in islice(epochs, 10):
                _write(run / f"checkpoints/trial-00001-epoch-{epoch:03d}.safetensors", b"weights")
                (run / f"checkpoints/trial-00001-epoch-{epoch - 1:03d}.safetensors").unlink(missing_ok=True)
                _write(run / f"results/epochs/{epoch:03d}.parquet", b"row")
                journal.write(f"{epoch}\n".encode())
                time.sleep(0.005)
            if said := _stored(address, run).get("study.journal", b"").decode().split():
                copied = _stored_names(address, run)
                assert {f"results/epochs/{int(n):03d}.parquet" for n in said} <= copied
                has_checkpoint = any(name.startswith("checkpoints/") for name in copied)
                assert has_checkpoint or not had_checkpoint, (
                    "the old checkpoint stays until the new one is copied"
                )
                had_checkpoint = has_checkpoint
                checked += 1
            return checked > 9

        until(checked_often)
    assert _stored(address, run) == _contents(run)


def test_the_copy_remains_when_the_run_folder_disappears(address: str, run: Path) -> None:
    with _mirror(run, address):
        until(lambda: _stored(address, run) == FILES)
        run.rename(run.with_name("elsewhere"))
    assert _stored(address, run) == FILES


def test_a_new_search_of_a_stored_name_is_refused_and_a_resumed_one_continues_the_copy(
    address: str, run: Path
) -> None:
    with _mirror(run, address):
        pass
    with pytest.raises(InputError) as refused:
        _mirror(run, address)
    assert refused.value.code is SearchErrorCode.STORAGE_HOLDS_ANOTHER_RUN
    assert run.name in str(refused.value)
    assert "genre-search resume" in str(refused.value)
    (run / "corpus.parquet").unlink()
    with _mirror(run, address, resumed=True):
        pass
    assert _stored(address, run) == _contents(run)


def test_an_outage_of_the_storage_and_its_end_are_reported_once_each(tmp_path: Path, run: Path) -> None:
    server = Server(tmp_path)
    server.start()
    said: list[str] = []
    try:
        with _mirror(run, server.address(), said):
            until(lambda: _stored(server.address(), run) == FILES)
            server.stop()
            _write(run / "results/trials.parquet", b"more rows")
            until(lambda: bool(said))
            server.start()
            until(lambda: len(said) == 2)
            assert _stored(server.address(), run) == _contents(run)
        assert len(said) == 2
        assert run.name in said[1]
        assert not any(SECRET in text or "\n" in text for text in said)
    finally:
        server.stop()


def test_a_last_sync_that_fails_names_the_missing_files_and_the_command_that_copies_them(
    tmp_path: Path, run: Path
) -> None:
    folder = tmp_path / "disk"
    said: list[str] = []
    with _mirror(run, f"file://{folder}", said):
        until(lambda: _stored(f"file://{folder}", run) == FILES)
        folder.rename(tmp_path / "unplugged")
        folder.touch()
        until(lambda: bool(said))
        _write(run / "results/trials.parquet", b"more rows")
    assert len(said) == 2
    assert "1 files: results/trials.parquet)" in said[1]
    assert f"genre-search resume {run}" in said[1]


def test_an_unexpected_error_is_reported_with_its_type_and_copying_continues(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    times = iter([1, 2, 3])
    list_files = RemoteFolder.files

    def files(folder: RemoteFolder) -> set[str]:
        if next(times, None):
            raise KeyError("unheard-of")
        return list_files(folder)

    address = f"file://{tmp_path}/copies"
    mirror = _mirror(run, address, said)
    monkeypatch.setattr(RemoteFolder, "files", files)
    with mirror:
        until(lambda: len(said) == 2)
        assert _stored(address, run) == FILES
    assert "KeyError: 'unheard-of'" in said[0]


def test_a_file_that_fails_delays_only_the_journal_and_model_cards_and_is_named_at_the_end(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    upload = RemoteFolder.upload

    def refuse(folder: RemoteFolder, name: str, source: BinaryIO) -> None:
        if name == "corpus.parquet":
            raise ValueError("no such names here")
        upload(folder, name, source)

    monkeypatch.setattr(RemoteFolder, "upload", refuse)
    with _mirror(run, f"file://{tmp_path}/copies", said):
        pass
    waiting = {"corpus.parquet", "study.journal", "models/trial-00000-epoch-002/model.json"}
    assert _stored_names(f"file://{tmp_path}/copies", run) == FILES.keys() - waiting
    assert "corpus.parquet: no such names here" in said[-1]
    assert "3 files" in said[-1]
    assert all(name in said[-1] for name in waiting)


def test_a_failing_storage_is_not_tried_with_every_file(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    asked: list[str] = []

    def refuse(folder: RemoteFolder, name: str, source: BinaryIO) -> None:
        asked.append(name)
        raise OSError("no answer")

    mirror = Mirror(run, f"file://{tmp_path}/copies", say=said.append, resumed=False, interval_seconds=1e6)
    monkeypatch.setattr(RemoteFolder, "upload", refuse)
    with mirror:
        until(lambda: bool(said))
        assert len(asked) == GIVE_UP_FILES < len(FILES)
    assert f"{len(FILES)} files" in said[-1]


def test_an_unusable_address_is_refused_in_one_line_without_its_secrets(
    server: Server, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    unreachable = "endpoint_override=127.0.0.1:1&scheme=http&region=r"
    cases = {
        "nonsense": "nonsense",
        "ftp://host/path": "ftp",
        "s3://": "s3://",
        f"file://{tmp_path}/taken": "taken",
        f"s3://k:hidden@bucket/x?{unreachable}": "127.0.0.1:1",
        server.address(bucket="no-such-bucket"): "NO_SUCH_BUCKET",
        server.address(secret="wrong-and-hidden"): "SIGNATURE_DOES_NOT_MATCH",
    }
    for address, value in cases.items():
        with pytest.raises(InputError) as refused:
            _mirror(run, address)
        text = str(refused.value)
        assert refused.value.code is SearchErrorCode.STORAGE_UNUSABLE
        assert value in text
        assert "--storage" in text
        assert "\n" not in text
        assert "hidden" not in text


def test_a_server_that_never_answers_is_given_up_after_a_few_attempts(run: Path) -> None:
    """This also fails when pyarrow no longer applies the number of attempts that it is given."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http&region=us-east-1"
        began = time.monotonic()
        with pytest.raises(InputError) as refused:
            _mirror(run, f"s3://k:s@bucket/x?{at}")
    assert refused.value.code is SearchErrorCode.STORAGE_UNUSABLE
    assert "NETWORK_CONNECTION" in str(refused.value)
    assert time.monotonic() - began < storage.CHECK_SECONDS / 2


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/path?endpoint_override=127.0.0.1:1&scheme=http&region=eu-west-1",
        "s3://bucket?region=us-east-1&allow_bucket_creation=true&tls_verify_certificates=false",
    ],
)
def test_an_s3_file_system_keeps_its_settings_when_its_attempts_are_limited(address: str) -> None:
    """pyarrow documents neither what pickle stores of a file system nor that its constructor takes the same names."""
    system, _ = pyarrow.fs.FileSystem.from_uri(address)
    limited = storage._with_few_attempts(system)
    assert limited.__reduce__() == system.__reduce__()


def test_a_public_bucket_is_read_without_credentials() -> None:
    system, path = storage.file_system("s3://anonymous@bucket/x?region=us-east-1")
    _, (settings,) = system.__reduce__()
    assert (settings["anonymous"], bool(settings["access_key"]), path) == (True, False, "bucket/x")


def test_restoring_needs_a_stored_search_and_a_new_folder(address: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as missing:
        fetch(address, run.name, tmp_path / "back")
    assert missing.value.code is SearchErrorCode.STORAGE_WITHOUT_RUN
    assert run.name in str(missing.value)
    with pytest.raises(InputError) as exists:
        fetch(address, run.name, run)
    assert exists.value.code is SearchErrorCode.RESTORE_TARGET_EXISTS
    assert str(run) in str(exists.value)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("existed", [False, True])
def test_the_check_before_a_search_leaves_no_trace_in_the_storage(existed: bool, tmp_path: Path) -> None:
    notes = tmp_path / "copies" / "run" / ".notes"
    if existed:
        notes.parent.mkdir(parents=True)
        notes.touch()
    for resumed in (False, True):
        require_usable((tmp_path / "copies").as_uri(), "run", resumed=resumed)
        assert notes.parent.exists() == existed
        assert notes.exists() == existed


def test_the_check_before_a_new_search_refuses_a_stored_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(InputError) as refused:
        require_usable(tmp_path.as_uri(), "run", resumed=False)
    assert refused.value.code is SearchErrorCode.STORAGE_HOLDS_ANOTHER_RUN
    require_usable(tmp_path.as_uri(), "run", resumed=True)
