"""Addresses of files, such as s3://BUCKET/music/one.wav, as text; see `remote_files` for the files.

An address is a URI: other characters than letters, digits and a few signs are percent-encoded in its path, and options
of the file system follow a `?`, as in `s3://bucket/music?region=eu-west-1`.
"""

import posixpath
import re
from pathlib import Path
from urllib.parse import quote, unquote

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""A scheme of at least two letters: a single one is a drive of Windows."""
_LEGAL = "/%:@!$&'()*+,;=~"
"""Signs that need no encoding; % is one, because an address may be encoded already."""


def is_address(text: str) -> bool:
    """Whether a text is an address, not a path on this machine."""
    return _ADDRESS.match(text) is not None


def source_of(given: str | Path) -> str | Path:
    """What a user gave as an address in its normal form, or as a path."""
    text = str(given)  # a Path has lost one of the slashes of an address, which its normal form has again
    return normalized(text) if is_address(text) else Path(text)


def absolute(given: str | Path) -> str:
    """What a user gave as an address in its normal form, or as an absolute path.

    Raises:
        OSError, RuntimeError, ValueError: the path is invalid.
    """
    source = source_of(given)
    return source if isinstance(source, str) else str(source.expanduser().resolve())


def normalized(address: str) -> str:
    """An address with encoded signs, and without `.`, `..` and repeated or final slashes in its path."""
    server, path, options = _parts(address)
    clean = posixpath.normpath(f"/{quote(path, safe=_LEGAL)}").lstrip("/")
    return _joined(server, clean, options)


def child(address: str, name: str) -> str:
    """The address of a file in the folder at an address; `name` is not encoded and may contain folders and `..`."""
    server, path, options = _parts(address)
    return normalized(_joined(server, f"{path}/{quote(name)}", options))


def parent(address: str) -> tuple[str, str]:
    """The address of the folder of a file, and the file's name."""
    server, path, options = _parts(address)
    folder, _, name = path.rpartition("/")
    return _joined(server, folder, options), unquote(name)


def readable(address: str) -> str:
    """An address without encoding, options and credentials, for people."""
    server, path, _ = _parts(address)
    if has_credentials(address):
        scheme, _, host = server.partition("://")
        server = f"{scheme}://{host.rpartition('@')[2]}"
    return _joined(server, unquote(path), "")


def has_credentials(address: str) -> bool:
    """Whether an address names a user or a key; `anonymous` is none, nor is the container of `abfs://CONTAINER@…`."""
    scheme, _, server = _parts(address)[0].partition("://")
    user, at, _ = server.rpartition("@")
    return bool(at) and user != "anonymous" and (":" in user or not scheme.startswith("abfs"))


def masked(text: str) -> str:
    """Text without the key and the secret that an address may carry."""
    return re.sub(r"//[^@?\s]*@", "//", text)


def root_of(address: str) -> tuple[str, str]:
    """The address of the file system of a file, and the file's path in it, without encoding."""
    server, path, options = _parts(address)
    return _joined(server, "", options), unquote(path)


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme and server, path without its first slash, and options."""
    scheme, _, rest = address.partition(":")
    place, _, options = rest.partition("?")
    if scheme.lower() == "file" and not place.startswith("//"):
        place = f"//{place}"
    server, _, path = place.lstrip("/").partition("/") if not place.startswith("///") else ("", "", place)
    return f"{scheme.lower()}://{server}", path.lstrip("/"), options


def _joined(server: str, path: str, options: str) -> str:
    return f"{server}/{path}".rstrip("/" if path else "") + (f"?{options}" if options else "")
