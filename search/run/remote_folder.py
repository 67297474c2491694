"""A folder in a storage: at any address that pyarrow's file systems understand, local or in an object store.

fsspec would take other addresses than the runs that exist have recorded, and needs a package per kind of storage.
"""

import io
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.fs

from genre_core.errors import InputError
from genre_core.system.atomic import PARTIAL
from search.errors import SearchErrorCode

CHECK_SECONDS = 60.0
"""Time limit for the first answer of a storage; without credentials, half of it is spent looking for some."""
S3_ATTEMPTS = 3
"""Attempts per request to S3: an unresponsive server is given up after 10 s instead of pyarrow's 100 s."""
GCS_RETRY_SECONDS = 10
"""How long a request to Google Cloud Storage is retried; pyarrow's default is 15 minutes."""
CHUNK_BYTES = 1024**2
STORAGE_ERRORS = (OSError, ValueError, ImportError, pa.ArrowException)
"""What pyarrow raises, depending on the file system, for a bad address, server or network."""

_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Types of file systems where uploads are atomic and folders need not be created."""
_PROBE = ".probe"
_T = TypeVar("_T")


class RemoteFolder:
    """A folder at an address; its files are named by their paths relative to it."""

    def __init__(self, address: str, name: str) -> None:
        """Args: the address of the parent folder, and the folder's name."""
        self._system, path = _file_system(address)
        self._base = f"{path.rstrip('/')}/{name}"

    def files(self) -> set[str]:
        """Names of all files, without those that never belong to a run."""
        selector = pyarrow.fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        found = (info.path for info in self._system.get_file_info(selector) if info.is_file)
        return {name for path in found if is_kept(name := path.removeprefix(f"{self._base}/"))}

    def upload(self, name: str, source: BinaryIO) -> None:
        """Write a file, which appears whole or not at all."""
        target = PurePosixPath(self._base, name)
        if self._system.type_name in _OBJECT_STORES:
            self._write(target, source)
            return
        self._system.create_dir(str(target.parent), recursive=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        self._write(partial, source)
        self._system.move(str(partial), str(target))

    def _write(self, path: PurePosixPath, source: BinaryIO) -> None:
        with self._system.open_output_stream(str(path)) as out:
            shutil.copyfileobj(source, out, CHUNK_BYTES)

    def download(self, name: str, target: Path) -> None:
        """Copy a file to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._system.open_input_stream(f"{self._base}/{name}") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        with self._system.open_input_stream(f"{self._base}/{name}") as source:
            content: bytes = source.read()
        return content

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._system.delete_file(f"{self._base}/{name}")

    def delete_subfolder(self, name: str) -> None:
        """Delete a subfolder, or the marker that pyarrow creates for one in an object store."""
        self._system.delete_dir(f"{self._base}/{name}")

    def check(self) -> None:
        """Write and delete a file; of the folder itself nothing remains if it did not exist before."""
        existed = self._exists()
        self.upload(_PROBE, io.BytesIO(b"genre-search can write here"))
        self.delete(_PROBE)
        if not existed:
            self._system.delete_dir(self._base)

    def _exists(self) -> bool:
        """Whether the folder exists; object stores have none to leave behind."""
        if self._system.type_name in _OBJECT_STORES:
            return True
        found: bool = self._system.get_file_info(self._base).type != pyarrow.fs.FileType.NotFound
        return found


def is_kept(name: str) -> bool:
    """Whether a file of a run belongs in its copy: not a lock, and not a file that is being written."""
    return not any(p.startswith(".") or p.endswith((PARTIAL, ".lock")) for p in PurePosixPath(name).parts)


def ask(address: str, question: Callable[[], _T]) -> _T:
    """Answer of a storage, in a thread because pyarrow cannot be interrupted.

    Raises:
        InputError: the storage failed, or did not answer within CHECK_SECONDS.
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(CHECK_SECONDS)
    except STORAGE_ERRORS as error:  # a timeout is an OSError too
        why = reason(error) if answer.done() else f"no answer in {CHECK_SECONDS:.0f} s"
        raise InputError(
            "--storage must be an address that can be read and written (s3://BUCKET/…, gs://…, file:///…), "
            f"but got {masked(address)}: {why}",
            code=SearchErrorCode.STORAGE_UNUSABLE,
        ) from error


def masked(text: str) -> str:
    """Text without the key and the secret that an address may carry."""
    return re.sub(r"//[^@?\s]*@", "//", text)


def reason(error: BaseException) -> str:
    """An error in one line without secrets; with its type unless storages are known to raise it."""
    text, kind = masked(" ".join(str(error).split())), type(error).__name__
    return (text or kind) if isinstance(error, STORAGE_ERRORS) else f"{kind}: {text}"


def _file_system(address: str) -> tuple[Any, str]:
    """The file system at an address, which fails soon when it cannot be reached, and the path in it."""
    if address.startswith(("gs:", "gcs:")) and "retry_limit_seconds=" not in address:
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    return (_with_few_attempts(system) if system.type_name == "s3" else system), path


def _with_few_attempts(system: pyarrow.fs.S3FileSystem) -> pyarrow.fs.S3FileSystem:
    """The same S3 file system with S3_ATTEMPTS.

    An address cannot carry a retry strategy and a file system does not show its settings: they are taken from what
    pickle would store of it, which pyarrow does not document.
    """
    _, (settings,) = system.__reduce__()
    given = {k: v for k, v in settings.items() if v not in ("", -1.0, None) and k != "proxy_options"}
    attempts = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
    return pyarrow.fs.S3FileSystem(**given, retry_strategy=attempts)
