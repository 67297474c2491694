"""What is sometimes stored in a file's place: a web page or a Git LFS pointer, recognised by how it begins."""

from pathlib import Path

BEGINNING_BYTES = 512
"""Enough of a file's beginning to recognise a stand-in by."""
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def stand_in(beginning: bytes) -> str | None:
    """What a file with this beginning is, and the way out; None where it is no known stand-in."""
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_GIT_LFS):
        return "it is a Git LFS pointer, not the file itself; fetch the file with: git lfs pull"
    if text.startswith(_WEB_PAGE):
        return "it is a web page, not the file itself; download the file that the page links to"
    return None


def stand_in_at(path: Path) -> str | None:
    """As `stand_in`, of a regular file."""
    with path.open("rb") as file:
        return stand_in(file.read(BEGINNING_BYTES))
