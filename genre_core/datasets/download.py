"""One file from a list of mirrors: it goes on where it broke off, is checked, and appears whole or not at all."""

import hashlib
import http
import http.client
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from genre_core.errors import InputError
from genre_core.system.atomic import PARTIAL, atomic_file
from genre_core.system.progress import ProgressCallback

HASH_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}  # hexadecimal digits of what publishers give
BLOCK = 2**20  # bytes read at a time
MEBIBYTE = 2**20  # bytes
SILENCE = 30.0  # s without a byte after which a connection is taken to be dead
ATTEMPTS = 3  # in a row that bring nothing new, before the next mirror is asked
PAUSE = 1.0  # s before the second of those, twice as long before the third
BUSY = (408, 425, 429, *range(500, 600))  # HTTP statuses that another attempt may change
USER_AGENT = "genre-search/0.1"  # some hosts turn urllib's own away


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that each of several mirrors holds, the same bytes on all.

    Raises:
        InputError: a name is no plain file name, an address is not http, or a checksum has not its length.
    """

    name: str
    urls: tuple[str, ...]
    """Asked in this order."""
    size: int | None = None
    """Bytes; None where nobody says."""
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None

    @property
    def checksums(self) -> dict[str, str]:
        """Those that are published."""
        return {name: digits for name in HASH_DIGITS if (digits := getattr(self, name))}

    def __post_init__(self) -> None:
        plain = isinstance(self.name, str) and re.fullmatch(r"[\w-][\w.-]*", self.name)
        _require(bool(plain), "name", "a plain file name", self.name)
        _require(bool(self.urls), "urls", "one address or more", self.urls)
        for url in self.urls:
            public = re.fullmatch(r"https?://[^/@]+/[!-~]*", str(url))
            _require(bool(public), "urls", "http:// or https:// without a password", url)
        whole = self.size is None or (type(self.size) is int and self.size > 0)
        _require(whole, "size", "a number of bytes", self.size)
        for name, digits in HASH_DIGITS.items():
            given = getattr(self, name)
            right = given is None or re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", str(given))
            _require(bool(right), name, f"{digits} hexadecimal digits", given)


def _require(holds: bool, key: str, rule: str, value: object) -> None:
    if not holds:
        raise InputError(f"an archive's {key} must be {rule}, but got {key}={value!r}")


class DownloadFailed(InputError):
    """No mirror could give the file."""


class _Cut(Exception):
    """The connection ended too early: another attempt may bring the rest."""


class _Useless(Exception):
    """This mirror has nothing for us."""


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where a partial file's bytes come from; kept beside it."""

    url: str
    validator: str | None  # what If-Range takes: as long as it holds, the mirror has the same file
    size: int | None  # bytes of the whole file
    mixed: bool  # whether bytes of another mirror stand before


def download(
    remote: Remote, folder: Path, *, report: ProgressCallback | None = None, pause: float = PAUSE
) -> Path:
    """The file in `folder`, from the first mirror that can give it whole.

    What an earlier call or another mirror has brought stays, in a partial file, and only the rest is asked for; a
    file whose size or checksum is wrong goes, and the next mirror begins anew.

    Raises:
        DownloadFailed: no mirror could give it, each with its reason.
        InputError: the disk has no room for it.
    """
    target = folder / remote.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    complaints = []
    for url in remote.urls:
        try:
            _fetch_right(url, remote, partial, report or (lambda done, total: None), pause)
        except _Useless as error:
            complaints.append(f"{urlsplit(url).netloc}: {error}")
            continue
        partial.replace(target)
        _note_of(partial).unlink()
        return target
    raise DownloadFailed(f"{remote.name} could not be downloaded ({'; '.join(complaints)})")


def _fetch_right(url: str, remote: Remote, partial: Path, report: ProgressCallback, pause: float) -> None:
    """The whole file, checked. Of parts from two mirrors that do not fit, this mirror's alone are tried as well."""
    _fetch(url, remote, partial, report, pause)
    fault, origin = _fault(remote, partial), _origin(partial)
    if fault and origin and origin.mixed:
        _discard(partial)
        _fetch(url, remote, partial, report, pause)
        fault = _fault(remote, partial)
    if fault:
        _discard(partial)
        raise _Useless(fault)


def _fetch(url: str, remote: Remote, partial: Path, report: ProgressCallback, pause: float) -> None:
    """The whole file, in as many attempts as it takes while each brings something new."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            return _go_on(url, remote, partial, report)
        except _Cut as cut:
            failures = 0 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS:
                raise _Useless(str(cut)) from cut
            time.sleep(pause * failures)


def _go_on(url: str, remote: Remote, partial: Path, report: ProgressCallback) -> None:
    """One request for what is missing."""
    origin = _origin(partial)
    total = remote.size or (origin.size if origin else None)
    if not _trusted(origin, url) or (total and _size(partial) > total):
        _discard(partial)
        origin = None
    start = _size(partial)
    if start and start == total:
        return
    with _opened(_request(url, start, origin), partial) as response:
        first, size = _extent(response)
        if remote.size and size not in (None, remote.size):
            raise _Useless(f"its file has {size} bytes instead of {remote.size}")
        if first not in (0, start) or (first and None not in (size, total) and size != total):
            _discard(partial)
            raise _Cut("its file is another one than before")
        size = size or remote.size
        _require_room(partial, (size or 0) - first)
        mixed = bool(first and origin and (origin.mixed or origin.url != url))
        _note(partial, _Origin(url=url, validator=_validator(response), size=size, mixed=mixed))
        _append(response, partial, first, size, report)


def _trusted(origin: _Origin | None, url: str) -> bool:
    """Whether more of the same file can be told from more of another one, by its size or by If-Range."""
    return origin is not None and bool(origin.size or (origin.url == url and origin.validator))


def _request(url: str, start: int, origin: _Origin | None) -> Request:
    """For the bytes from `start`; where the mirror's file has changed since, for all of them."""
    headers = {"User-Agent": USER_AGENT}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and origin and origin.url == url and origin.validator:
        headers["If-Range"] = origin.validator
    return Request(url, headers=headers)


def _opened(request: Request, partial: Path) -> http.client.HTTPResponse:
    """The answer's head; what keeps it away, as _Cut or _Useless."""
    try:
        response: http.client.HTTPResponse = urlopen(request, timeout=SILENCE)
    except HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(partial)
            raise _Cut("it has no such part of the file") from error
        raise (_Cut if error.code in BUSY else _Useless)(f"{error.code} {error.reason}") from error
    except URLError as error:
        again = isinstance(error.reason, TimeoutError | ConnectionResetError)
        words = getattr(error.reason, "strerror", None) or error.reason
        raise (_Cut if again else _Useless)(str(words)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(error) or type(error).__name__) from error
    return response


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Which byte of the file the answer begins with, and the size of the whole."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found:
            raise _Useless("it does not say which part of the file it sends")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """The strong ETag; a weak one is no promise that the bytes are the same."""
    tag: str | None = response.headers.get("ETag")
    return None if tag is None or tag.startswith("W/") else tag


def _append(
    response: http.client.HTTPResponse, partial: Path, first: int, size: int | None, report: ProgressCallback
) -> None:
    """The answer's body from byte `first` on; what came before an end too early is kept."""
    done = first
    with partial.open("ab" if first else "wb") as file:
        for block in _blocks(response):
            done += len(block)
            if size is not None and done > size:
                _discard(partial)
                raise _Useless(f"it sends more than the {size} bytes of the file")
            file.write(block)
            report(mebibytes(done), mebibytes(size or done))
    if size is not None and done < size:
        raise _Cut(f"it ended the connection after {done} of {size} bytes")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Errors of the network become _Cut, so that others are known to be the disk's."""
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def _require_room(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise InputError(
            f"{partial.parent} has room for {mebibytes(free)} MiB, but {mebibytes(needed)} MiB are to come: "
            "make room, or name a folder on another disk"
        )


def _fault(remote: Remote, partial: Path) -> str | None:
    """What speaks against a file that came to its end."""
    if remote.size not in (None, _size(partial)):
        return f"its file has {_size(partial)} bytes instead of {remote.size}"
    with partial.open("rb") as file:
        for name, expected in remote.checksums.items():
            if (found := digest(file, name)) != expected.lower():
                return f"its file has the {name} {found} instead of {expected.lower()}"
    return None


def digest(file: IO[bytes], name: str) -> str:
    """A checksum of a whole file, hexadecimal."""
    file.seek(0)
    state = hashlib.new(name, usedforsecurity=False)
    while block := file.read(BLOCK):
        state.update(block)
    return state.hexdigest()


def mebibytes(count: int) -> int:
    """Bytes in whole MiB, rounded up."""
    return -(-count // MEBIBYTE)


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _note_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _note(partial: Path, origin: _Origin) -> None:
    with atomic_file(_note_of(partial), durable=False) as path:
        path.write_text(json.dumps(asdict(origin)))


def _origin(partial: Path) -> _Origin | None:
    """None where it is not known: then the bytes cannot be trusted either."""
    try:
        values: dict[str, Any] = json.loads(_note_of(partial).read_text())
        return _Origin(**values)
    except (OSError, ValueError, TypeError):
        return None


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note_of(partial).unlink(missing_ok=True)
