"""Music at an address: what a single listing of its folder says, with copies of the tables in it."""

import posixpath
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genre_core.errors import ErrorCode, InputError
from genre_core.system.addresses import child, has_credentials, normalized, parent, readable
from genre_core.system.remote_files import MISSING, FileVersion, chunks, is_file, list_files
from genre_core.system.storage import STORAGE_ERRORS, answer, reason

LISTING_SECONDS = 3600.0
"""Time limit for a listing, with a request for each 1000 files; requests without an answer fail much sooner."""


@dataclass(frozen=True)
class RemoteMusic:
    """The files in a folder at an address."""

    address: str
    """Of the folder."""
    versions: Mapping[str, FileVersion]
    """Name relative to the folder -> version, in order."""
    manifest: str | None = None
    """Name of the manifest that the user named; None if the user named the folder."""

    def place(self, folder: str, written: str) -> "RemotePlace":
        """The file that a path in a manifest means.

        Args:
            folder: of the manifest, relative to this one.
            written: relative to that folder, in any Unicode form and with either kind of slash.
        """
        readings = dict.fromkeys([written, written.strip(), written.replace("\\", "/").strip()])
        names = [posixpath.normpath(posixpath.join(folder, reading)) for reading in readings]
        found = (self._by_nfc.get(unicodedata.normalize("NFC", name)) for name in names)
        name = next((name for name in names if name in self.versions), None) or next(
            filter(None, found), names[-1]
        )
        if name.startswith("../"):
            return RemotePlace.of(child(self.address, name))
        return RemotePlace(
            name=name, location=child(self.address, name), version=self.versions.get(name, MISSING)
        )

    @cached_property
    def _by_nfc(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", name): name for name in self.versions}


@dataclass(frozen=True, kw_only=True)
class RemotePlace:
    """A file at an address."""

    name: str
    """Its track id: relative to the folder of the music, or the address for people."""
    location: str
    version: FileVersion | None
    """None if it was not listed."""

    @classmethod
    def of(cls, address: str) -> "RemotePlace":
        """The file at an address that is not in the listed folder."""
        location = normalized(address)
        _require_no_credentials(location)
        return cls(name=readable(location), location=location, version=None)


def listed(address: str, manifest_suffixes: tuple[str, ...]) -> RemoteMusic:
    """List the folder at an address, or that of the manifest at an address.

    Raises:
        InputError: the address is invalid, contains credentials, or cannot be listed.
    """
    _require_no_credentials(address)
    named = address.partition("?")[0].lower().endswith(manifest_suffixes)
    with _explained(address):
        is_manifest = named and answer(lambda: is_file(address))
        folder, manifest = parent(address) if is_manifest else (address, None)
        try:
            return RemoteMusic(folder, answer(lambda: list_files(folder), LISTING_SECONDS), manifest)
        except FileNotFoundError as error:
            what = "is another file" if answer(lambda: is_file(address)) else "does not exist or is empty"
            raise InputError(
                f"a corpus is a folder or a manifest ({', '.join(manifest_suffixes)}), but {readable(address)} {what}; "
                "give a folder with one subfolder per genre",
                code=ErrorCode.CORPUS_NOT_FOUND,
            ) from error


@contextmanager
def with_copies(music: RemoteMusic, names: list[str]) -> Iterator[Path]:
    """A temporary folder with copies of some files; in error messages, the address replaces it.

    Raises:
        InputError: a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="genre-search-") as temporary:
        root = Path(temporary)
        for name in names:
            copy = root / name
            copy.parent.mkdir(exist_ok=True)
            with _explained(child(music.address, name)), copy.open("wb") as file:
                file.writelines(chunks(child(music.address, name)))
        try:
            yield root
        except InputError as error:
            shown = str(error).replace(temporary, readable(music.address).rstrip("/"))
            raise InputError(shown, code=error.code) from error


def _require_no_credentials(address: str) -> None:
    if has_credentials(address):
        raise InputError(
            "the address of audio must not contain credentials, which would be stored with the corpus, but got one "
            f"with @ for {readable(address)}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with your "
            "cloud's tools",
            code=ErrorCode.CORPUS_ADDRESS_WITH_CREDENTIALS,
        )


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Explain errors of a storage."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise InputError(
            f"the address of a corpus must be readable (s3://BUCKET/…, gs://…), but got {readable(address)}: "
            f"{reason(error)}; check the address, and the credentials in this environment",
            code=ErrorCode.CORPUS_ADDRESS_UNREADABLE,
        ) from error
