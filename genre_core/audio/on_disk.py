"""Audio files on this machine, whatever their location: decoders need a path."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from genre_core.audio.bad_audio import Fault, unreadable
from genre_core.system.addresses import is_address, readable
from genre_core.system.remote_files import chunks, require_reachable
from genre_core.system.storage import STORAGE_ERRORS, reason


@contextmanager
def on_disk(location: str) -> Iterator[Path]:
    """The path of an audio file: of the file itself, or of a copy of one at an address, deleted with the context.

    Args:
        location: path or address.

    Raises:
        BadAudio: the file at an address cannot be read.
        InputError: the storage of an address cannot be reached.
        OSError: the copy cannot be written.
    """
    if not is_address(location):
        yield Path(location)
        return
    suffix = PurePosixPath(readable(location)).suffix
    with tempfile.NamedTemporaryFile(prefix="genre-search-", suffix=suffix) as copy:
        for chunk in _fetched(location):
            copy.write(chunk)
        copy.flush()
        yield Path(copy.name)


def _fetched(location: str) -> Iterator[bytes]:
    """The content of a file at an address, with errors of the storage explained."""
    try:
        yield from chunks(location)
    except FileNotFoundError as error:
        raise unreadable(Fault.NOT_ACCESSIBLE, "no such file in the storage") from error
    except STORAGE_ERRORS as error:
        require_reachable(location, error)
        raise unreadable(Fault.NOT_ACCESSIBLE, reason(error)) from error
