"""Download of one file from a list of mirrors: resumed, verified, and complete or absent."""

# Written by hand: pooch and fsspec neither resume nor try the next mirror, huggingface_hub serves the Hub only.

import hashlib
import http
import http.client
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from genre_core.errors import ErrorCode, InputError
from genre_core.system.atomic import PARTIAL, atomic_file
from genre_core.system.progress import ProgressCallback

HASH_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}
"""Supported checksums and their number of hexadecimal digits."""
BLOCK_BYTES = 2**20
"""Bytes read at a time."""
MEBIBYTE = 2**20
"""Bytes."""
TIMEOUT_SECONDS = 30.0
"""Longest wait for the next byte."""
MAX_ATTEMPTS = 3
"""Consecutive attempts without a new byte before the next mirror is tried."""
RETRY_SECONDS = 1.0
"""Pause before the second of these attempts; it doubles before the third."""
RETRYABLE = (408, 425, 429, *range(500, 600))
"""HTTP status codes that may be temporary."""
USER_AGENT = "genre-search/0.1"
"""Some hosts reject urllib's default."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that every mirror has with the same bytes.

    Raises:
        InputError: the name is not a plain file name, a URL is not http(s), or a checksum has the wrong length.
    """

    name: str
    urls: tuple[str, ...]
    """Mirrors, in the order in which they are tried."""
    size: int | None = None
    """Bytes; None if unknown."""
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None

    @property
    def checksums(self) -> dict[str, str]:
        """The known checksums by algorithm."""
        return {name: digits for name in HASH_DIGITS if (digits := getattr(self, name))}

    def __post_init__(self) -> None:
        plain = isinstance(self.name, str) and re.fullmatch(r"[\w-][\w.-]*", self.name)
        _require(bool(plain), "name", "a plain file name", self.name)
        _require(bool(self.urls), "urls", "a list of one or more URLs", self.urls)
        for url in self.urls:
            public = re.fullmatch(r"https?://[^/@]+/[!-~]*", str(url))
            _require(bool(public), "urls", "http:// or https:// without a password", url)
        positive = self.size is None or (type(self.size) is int and self.size > 0)
        _require(positive, "size", "a positive number of bytes", self.size)
        for name, digits in HASH_DIGITS.items():
            given = getattr(self, name)
            valid = given is None or re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", str(given))
            _require(bool(valid), name, f"{digits} hexadecimal digits", given)


def _require(holds: bool, key: str, rule: str, value: object) -> None:
    if not holds:
        raise InputError(
            f"an archive's {key} must be {rule}, but got {key}={value!r}",
            code=ErrorCode.INVALID_ARCHIVE_ENTRY,
        )


class DownloadFailed(InputError):
    """No mirror provided the file."""


class _Interrupted(Exception):
    """The transfer stopped early; another attempt may succeed."""


class _MirrorFailed(Exception):
    """The mirror cannot provide the file."""


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where the bytes of a partial file come from; stored next to it."""

    url: str
    """The mirror of the last bytes."""
    validator: str | None
    """The value for If-Range: the mirror's file is unchanged as long as it matches."""
    size: int | None
    """Bytes of the complete file."""
    mixed: bool
    """Whether earlier bytes come from another mirror."""


def download(
    remote: Remote,
    folder: Path,
    *,
    progress: ProgressCallback | None = None,
    retry_seconds: float = RETRY_SECONDS,
) -> Path:
    """Return the file in `folder`, downloaded from the first mirror that provides it completely.

    Bytes from an earlier call or another mirror are kept in a partial file, and only the rest is requested. A file
    with the wrong size or checksum is deleted, and the next mirror starts from the beginning.

    Args:
        remote: the file.
        folder: where to store it; created if necessary.
        progress: called with the downloaded and the total MiB.
        retry_seconds: pause before the first retry.

    Raises:
        DownloadFailed: no mirror provides the file; the message has the reason for each.
        InputError: the disk has too little free space.
    """
    target = folder / remote.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    failures = []
    for url in remote.urls:
        try:
            _fetch_verified(url, remote, partial, progress or (lambda done, total: None), retry_seconds)
        except _MirrorFailed as error:
            failures.append(f"{urlsplit(url).netloc}: {error}")
            continue
        partial.replace(target)
        _origin_path(partial).unlink()
        return target
    raise DownloadFailed(
        f"{remote.name} could not be downloaded ({'; '.join(failures)})", code=ErrorCode.DOWNLOAD_FAILED
    )


def _fetch_verified(
    url: str, remote: Remote, partial: Path, progress: ProgressCallback, retry_seconds: float
) -> None:
    """Complete and verify the file; if parts of two mirrors do not match, download it from this mirror alone."""
    _fetch(url, remote, partial, progress, retry_seconds)
    fault, origin = _verify(remote, partial), _read_origin(partial)
    if fault and origin and origin.mixed:
        _discard(partial)
        _fetch(url, remote, partial, progress, retry_seconds)
        fault = _verify(remote, partial)
    if fault:
        _discard(partial)
        raise _MirrorFailed(fault)


def _fetch(url: str, remote: Remote, partial: Path, progress: ProgressCallback, retry_seconds: float) -> None:
    """Complete the file, in as many attempts as needed while each brings new bytes."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            return _fetch_rest(url, remote, partial, progress)
        except _Interrupted as interrupted:
            failures = 0 if _size(partial) > before else failures + 1
            if failures == MAX_ATTEMPTS:
                raise _MirrorFailed(str(interrupted)) from interrupted
            time.sleep(retry_seconds * failures)


def _fetch_rest(url: str, remote: Remote, partial: Path, progress: ProgressCallback) -> None:
    """Send one request for the missing bytes."""
    origin = _read_origin(partial)
    total = remote.size or (origin.size if origin else None)
    if not _resumable(origin, url) or (total and _size(partial) > total):
        _discard(partial)
        origin = None
    start = _size(partial)
    if start and start == total:
        return
    with _open(_request(url, start, origin), partial) as response:
        first, size = _extent(response)
        if remote.size and size not in (None, remote.size):
            raise _MirrorFailed(f"the file has {size} bytes instead of {remote.size}")
        if first not in (0, start) or (first and None not in (size, total) and size != total):
            _discard(partial)
            raise _Interrupted("the file has changed")
        size = size or remote.size
        _require_space(partial, (size or 0) - first)
        mixed = bool(first and origin and (origin.mixed or origin.url != url))
        _write_origin(partial, _Origin(url=url, validator=_validator(response), size=size, mixed=mixed))
        _append(response, partial, first, size, progress)


def _resumable(origin: _Origin | None, url: str) -> bool:
    """Whether the file's size or If-Range would reveal that a mirror now has a different file."""
    return origin is not None and bool(origin.size or (origin.url == url and origin.validator))


def _request(url: str, start: int, origin: _Origin | None) -> Request:
    """A request for the bytes from `start`, or for all of them if the mirror's file has changed."""
    headers = {"User-Agent": USER_AGENT}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and origin and origin.url == url and origin.validator:
        headers["If-Range"] = origin.validator
    return Request(url, headers=headers)


def _open(request: Request, partial: Path) -> http.client.HTTPResponse:
    """Return the response, its body unread; raise _Interrupted for temporary errors, _MirrorFailed for others."""
    try:
        response: http.client.HTTPResponse = urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(partial)
            raise _Interrupted("the file is shorter than before") from error
        raise (_Interrupted if error.code in RETRYABLE else _MirrorFailed)(
            f"{error.code} {error.reason}"
        ) from error
    except URLError as error:
        temporary = isinstance(error.reason, TimeoutError | ConnectionResetError)
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise (_Interrupted if temporary else _MirrorFailed)(str(reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error
    return response


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The index of the response's first byte in the file, and the size of the complete file in bytes."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found:
            raise _MirrorFailed("partial content without a valid Content-Range")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """The strong ETag; a weak one does not promise the same bytes."""
    tag: str | None = response.headers.get("ETag")
    return None if tag is None or tag.startswith("W/") else tag


def _append(
    response: http.client.HTTPResponse,
    partial: Path,
    first: int,
    size: int | None,
    progress: ProgressCallback,
) -> None:
    """Write the response's body from byte `first` on; bytes received before an interruption are kept."""
    done = first
    with partial.open("ab" if first else "wb") as file:
        for block in _read_blocks(response):
            done += len(block)
            if size is not None and done > size:
                _discard(partial)
                raise _MirrorFailed(f"it sent more than the file's {size} bytes")
            file.write(block)
            progress(mebibytes(done), mebibytes(size or done))
    if size is not None and done < size:
        raise _Interrupted(f"it closed the connection after {done} of {size} bytes")


def _read_blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body; network errors become _Interrupted, so that any OSError is the disk's."""
    while True:
        try:
            block = response.read(BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def _require_space(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise InputError(
            f"{partial.parent} needs {mebibytes(needed)} MiB of free space, but has {mebibytes(free)} MiB: free "
            "some, or choose a folder on another disk",
            code=ErrorCode.NO_SPACE,
        )


def _verify(remote: Remote, partial: Path) -> str | None:
    """Return what is wrong with a complete file, if anything."""
    if remote.size not in (None, _size(partial)):
        return f"the file has {_size(partial)} bytes instead of {remote.size}"
    with partial.open("rb") as file:
        for name, expected in remote.checksums.items():
            if (found := _checksum(file, name)) != expected.lower():
                return f"the file's {name} is {found} instead of {expected.lower()}"
    return None


def _checksum(file: BufferedReader, name: str) -> str:
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def mebibytes(count: int) -> int:
    """Bytes in MiB, rounded up."""
    return -(-count // MEBIBYTE)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _origin_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _write_origin(partial: Path, origin: _Origin) -> None:
    with atomic_file(_origin_path(partial), durable=False) as path:
        path.write_text(json.dumps(asdict(origin)))


def _read_origin(partial: Path) -> _Origin | None:
    """Return None if it is unknown: then the partial file cannot be resumed."""
    try:
        values: dict[str, Any] = json.loads(_origin_path(partial).read_text())
        return _Origin(**values)
    except (OSError, ValueError, TypeError):
        return None


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _origin_path(partial).unlink(missing_ok=True)
