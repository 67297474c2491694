"""Storages: the file systems, local or object stores, at any address that pyarrow understands.

fsspec would take other addresses than the runs that exist have recorded, and needs a package per kind of storage.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs

from genre_core.system.addresses import masked

CHECK_SECONDS = 60.0
"""Time limit for the first answer of a storage; without credentials, half of it is spent looking for some."""
S3_ATTEMPTS = 3
"""Attempts per request to S3: an unresponsive server is given up after 10 s instead of pyarrow's 100 s."""
GCS_RETRY_SECONDS = 10
"""How long a request to Google Cloud Storage is retried; pyarrow's default is 15 minutes."""
CHUNK_BYTES = 1024**2
"""Bytes that are copied at a time."""
STORAGE_ERRORS = (OSError, ValueError, ImportError, pa.ArrowException)
"""What pyarrow raises, depending on the file system, for a bad address, server or network."""

_T = TypeVar("_T")


def file_system(address: str) -> tuple[Any, str]:
    """The file system at an address, which fails soon when it cannot be reached, and the path in it.

    Raises:
        One of STORAGE_ERRORS: the address is invalid.
    """
    if address.startswith(("gs:", "gcs:")) and "retry_limit_seconds=" not in address:
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    return (_with_few_attempts(system) if system.type_name == "s3" else system), path


def answer(question: Callable[[], _T], seconds: float = CHECK_SECONDS) -> _T:
    """Answer of a storage, in a thread because pyarrow cannot be interrupted.

    Raises:
        One of STORAGE_ERRORS: the storage failed, or did not answer within this time.
    """
    found: Future[_T] = Future()

    def run() -> None:
        try:
            found.set_result(question())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return found.result(seconds)
    except TimeoutError as error:
        if found.done():
            raise
        raise TimeoutError(f"no answer in {seconds:.0f} s") from error


def reason(error: BaseException) -> str:
    """An error in one line without secrets; with its type unless storages are known to raise it."""
    text, kind = masked(" ".join(str(error).split())), type(error).__name__
    return (text or kind) if isinstance(error, STORAGE_ERRORS) else f"{kind}: {text}"


def _with_few_attempts(system: pyarrow.fs.S3FileSystem) -> pyarrow.fs.S3FileSystem:
    """The same S3 file system with S3_ATTEMPTS, and without credentials if its user is `anonymous`.

    An address cannot carry a retry strategy and a file system does not show its settings: they are taken from what
    pickle would store of it, which pyarrow does not document.
    """
    _, (settings,) = system.__reduce__()
    given = {k: v for k, v in settings.items() if v not in ("", -1.0, None) and k != "proxy_options"}
    if given.get("access_key") == "anonymous" and "secret_key" not in given:  # s3://anonymous@…, as for gs://
        del given["access_key"]
        given["anonymous"] = True
    attempts = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
    return pyarrow.fs.S3FileSystem(**given, retry_strategy=attempts)
