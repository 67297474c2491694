"""A folder in a storage: at any address that pyarrow's file systems understand, local or in an object store."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

import pyarrow.fs

from genre_core.errors import InputError
from genre_core.system.addresses import masked
from genre_core.system.atomic import PARTIAL
from genre_core.system.storage import CHUNK_BYTES, STORAGE_ERRORS, answer, file_system, reason
from search.errors import SearchErrorCode

_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Types of file systems where uploads are atomic and folders need not be created."""
_PROBE = ".probe"
_T = TypeVar("_T")


class RemoteFolder:
    """A folder at an address; its files are named by their paths relative to it."""

    def __init__(self, address: str, name: str) -> None:
        """Args: the address of the parent folder, and the folder's name."""
        self._system, path = file_system(address)
        self._base = f"{path.rstrip('/')}/{name}"

    def files(self) -> set[str]:
        """Names of all files, without those that never belong to a run."""
        return set(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Bytes of each of these files."""
        selector = pyarrow.fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        found = ((i.path.removeprefix(f"{self._base}/"), i) for i in self._system.get_file_info(selector))
        return {name: info.size for name, info in found if info.is_file and is_kept(name)}

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
    """Answer of a storage; see `genre_core.system.storage.answer`.

    Raises:
        InputError: the storage failed, or did not answer in time.
    """
    try:
        return answer(question)
    except STORAGE_ERRORS as error:
        raise InputError(
            "--storage must be an address that can be read and written (s3://BUCKET/…, gs://…, file:///…), "
            f"but got {masked(address)}: {reason(error)}",
            code=SearchErrorCode.STORAGE_UNUSABLE,
        ) from error
