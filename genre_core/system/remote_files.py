"""Files at addresses such as s3://BUCKET/music/one.wav: their versions, listings and content."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pyarrow.fs

from genre_core.errors import ErrorCode, InputError
from genre_core.system.addresses import readable, root_of
from genre_core.system.storage import CHUNK_BYTES, STORAGE_ERRORS, file_system, reason

FileVersion = tuple[int, int]
"""Size in bytes and modification time in ns: identifies the state of a file."""
MISSING: FileVersion = (-1, -1)
"""The version of a file that does not exist or cannot be accessed."""

_SECOND_NS = 10**9
_NETWORK = re.compile(r"NETWORK_CONNECTION|curlCode|UNAVAILABLE|timed out|timeout", re.IGNORECASE)


def list_files(address: str) -> dict[str, FileVersion]:
    """All files below a folder by their names relative to it, in order, from a single recursive listing.

    Raises:
        One of STORAGE_ERRORS: the folder does not exist or cannot be listed.
    """
    system, path = _opened(address)
    infos = system.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    base = f"{path.rstrip('/')}/"
    found = {info.path.removeprefix(base): _version(info) for info in infos if info.is_file}
    return dict(sorted(found.items()))


def is_file(address: str) -> bool:
    """Whether there is a file at an address; raises one of STORAGE_ERRORS if that cannot be found out."""
    system, path = _opened(address)
    found: bool = system.get_file_info(path).is_file
    return found


def version(address: str) -> FileVersion:
    """The version of a file, from a request of its own; MISSING if it is not accessible.

    Raises:
        InputError: the storage cannot be reached.
    """
    try:
        system, path = _opened(address)
        return _version(system.get_file_info(path))
    except STORAGE_ERRORS as error:
        require_reachable(address, error)
        return MISSING


def chunks(address: str) -> Iterator[bytes]:
    """The content of a file, a part at a time.

    Raises:
        FileNotFoundError: it does not exist.
        Another one of STORAGE_ERRORS: it cannot be read.
    """
    system, path = _opened(address)
    with system.open_input_stream(path) as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def require_reachable(address: str, error: Exception) -> None:
    """Raise InputError if the error of a storage is about the network or the server, and not about a file."""
    if _NETWORK.search(str(error)):
        raise InputError(
            f"audio must be readable, but the storage of {readable(address)} cannot be reached: {reason(error)}; "
            "run the command again once it can, and it continues",
            code=ErrorCode.AUDIO_STORAGE_UNREACHABLE,
        ) from error


def _opened(address: str) -> tuple[Any, str]:
    """The file system at an address, opened once per process, and the path in it."""
    root, path = root_of(address)
    system, base = _system(root)
    return system, f"{base.rstrip('/')}/{path}".rstrip("/")


@cache
def _system(address: str) -> tuple[Any, str]:
    return file_system(address)


def _version(info: Any) -> FileVersion:
    """Times in whole seconds, because listings and single requests may have different precisions."""
    if not info.is_file:
        return MISSING
    return int(info.size), (info.mtime_ns or 0) // _SECOND_NS * _SECOND_NS
