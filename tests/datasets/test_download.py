"""A file is downloaded completely from unreliable mirrors, and no byte is requested twice without need."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrors import File, serving

from genre_core.datasets.download import MAX_ATTEMPTS, DownloadFailed, Remote, download
from genre_core.errors import ErrorCode, InputError

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
CHECKSUMS = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha1", "sha256")}


def fetched(folder: Path, url: str, *paths: str, **known: Any) -> Path:
    return download(
        Remote(name="a.zip", urls=tuple(f"{url}/{p}" for p in paths), **known), folder, retry_seconds=0
    )


def good(**changes: Any) -> File:
    return File(CONTENT, **changes)


# the mirrors' files in order; what is known about the file; the expected requests: path, Range, If-Range
CASES: list[tuple[list[File], dict[str, Any], list[tuple[str, str | None, str | None]]]] = [
    ([good()], CHECKSUMS, [("m0", None, None)]),
    ([good()], {}, [("m0", None, None)]),
    (
        [good(cuts=[1_000_000, 500_000])],
        CHECKSUMS,
        [("m0", None, None), ("m0", "bytes=1000000-", '"1"'), ("m0", "bytes=1500000-", '"1"')],
    ),
    (
        [good(cuts=[1_000_000], etag=None)],
        CHECKSUMS,
        [("m0", None, None), ("m0", "bytes=1000000-", None)],
    ),
    (
        [good(cuts=[1_000_000], etag='W/"1"')],
        {},
        [("m0", None, None), ("m0", "bytes=1000000-", None)],
    ),
    (
        [good(cuts=[9, 0, 0, 0]), good(etag='"b"')],
        CHECKSUMS,
        [("m0", None, None), *[("m0", "bytes=9-", '"1"')] * 3, ("m1", "bytes=9-", None)],
    ),
    ([good(cuts=[9], ranges=False)], CHECKSUMS, [("m0", None, None), ("m0", "bytes=9-", '"1"')]),
    ([good(status=404), good()], {}, [("m0", None, None), ("m1", None, None)]),
    ([good(status=503), good()], {}, [*[("m0", None, None)] * MAX_ATTEMPTS, ("m1", None, None)]),
    ([File(OTHER), good()], CHECKSUMS, [("m0", None, None), ("m1", None, None)]),
    ([File(OTHER[:-1]), good()], {"size": len(CONTENT)}, [("m0", None, None), ("m1", None, None)]),
    (
        [File(OTHER + b"x", length=False), good()],
        {"size": len(CONTENT)},
        [("m0", None, None), ("m1", None, None)],
    ),
    (
        [good(cuts=[9], length=False)],
        {"size": len(CONTENT)},
        [("m0", None, None), ("m0", "bytes=9-", '"1"')],
    ),
    # parts of two mirrors that do not match: the second mirror's file alone is good
    (
        [File(OTHER, cuts=[9, 0, 0, 0]), good()],
        CHECKSUMS,
        [
            ("m0", None, None),
            *[("m0", "bytes=9-", '"1"')] * 3,
            ("m1", "bytes=9-", None),
            ("m1", None, None),
        ],
    ),
    # the first mirror was cut at the length of the second mirror's file
    (
        [File(OTHER + OTHER, cuts=[4_000_000, 0, 0, 0]), good()],
        CHECKSUMS,
        [
            ("m0", None, None),
            *[("m0", "bytes=4000000-", '"1"')] * 3,
            ("m1", "bytes=4000000-", None),
            ("m1", None, None),
        ],
    ),
    # the second mirror's file has another size, as its Content-Range shows
    (
        [File(OTHER + b"x", cuts=[9, 0, 0, 0]), good()],
        CHECKSUMS,
        [
            ("m0", None, None),
            *[("m0", "bytes=9-", '"1"')] * 3,
            ("m1", "bytes=9-", None),
            ("m1", None, None),
        ],
    ),
]


@pytest.mark.parametrize(("files", "known", "asked"), CASES)
def test_a_file_is_downloaded_completely_whatever_its_mirrors_do(
    tmp_path: Path,
    files: list[File],
    known: dict[str, Any],
    asked: list[tuple[str, str | None, str | None]],
) -> None:
    paths = {
        f"m{number}": File(**vars(file) | {"cuts": list(file.cuts)}) for number, file in enumerate(files)
    }
    with serving(**paths) as mirror:
        path = fetched(tmp_path / "new", mirror.url, *paths, **known)
    assert path.read_bytes() == CONTENT
    assert mirror.asked == asked
    assert list(path.parent.iterdir()) == [path]


# the only mirror's file, what is known about the file, what the message must contain
REJECTED: list[tuple[File, dict[str, Any], tuple[str, ...]]] = [
    (good(status=404), {}, ("404",)),
    (good(status=500), {}, ("500",)),
    (File(OTHER), {"md5": CHECKSUMS["md5"]}, (hashlib.md5(OTHER).hexdigest(), CHECKSUMS["md5"])),
    (File(OTHER), CHECKSUMS | {"md5": None}, (hashlib.sha1(OTHER).hexdigest(), CHECKSUMS["sha1"])),
    (File(OTHER[:-1]), {"size": len(CONTENT)}, ("2999999", "3000000")),
    (File(OTHER + b"x", length=False), {"size": len(CONTENT)}, ("3000000",)),
    (good(cuts=[0] * 9), {}, ("0 of 3000000",)),
]


@pytest.mark.parametrize(("file", "known", "values"), REJECTED)
def test_a_file_that_no_mirror_provides_is_an_error_that_names_mirror_and_reason(
    tmp_path: Path, file: File, known: dict[str, Any], values: tuple[str, ...]
) -> None:
    with serving(m0=file) as mirror, pytest.raises(DownloadFailed) as error:
        fetched(tmp_path, mirror.url, "m0", **known)
    assert error.value.code is ErrorCode.DOWNLOAD_FAILED
    assert all(value in str(error.value) for value in (*values, mirror.url.removeprefix("http://")))
    assert not list(tmp_path.glob("*.zip"))


def test_an_unreachable_host_is_skipped(tmp_path: Path) -> None:
    with serving() as gone:
        pass
    with serving(m0=good()) as mirror:
        urls = (f"{gone.url}/m0", f"{mirror.url}/m0")
        path = download(Remote(name="a.zip", urls=urls), tmp_path / "a", retry_seconds=0)
    assert path.read_bytes() == CONTENT
    with pytest.raises(DownloadFailed) as error:
        fetched(tmp_path, gone.url, "m0")
    assert gone.url.removeprefix("http://") in str(error.value)


def test_another_call_resumes_unless_the_file_has_changed(tmp_path: Path) -> None:
    with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
        with pytest.raises(DownloadFailed):
            fetched(tmp_path, mirror.url, "m0")
        assert (tmp_path / "a.zip.partial").read_bytes() == CONTENT[:9]
        mirror.files["m0"] = File(OTHER, etag='"2"')
        assert fetched(tmp_path, mirror.url, "m0").read_bytes() == OTHER
        assert mirror.asked[-1] == ("m0", "bytes=9-", '"1"')


def test_a_partial_file_of_unknown_origin_is_downloaded_again(tmp_path: Path) -> None:
    for spoil in (
        lambda: (tmp_path / "a.zip.partial.json").write_text("{}"),
        (tmp_path / "a.zip.partial.json").unlink,
    ):
        with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
            with pytest.raises(DownloadFailed):
                fetched(tmp_path, mirror.url, "m0")
            spoil()
            assert fetched(tmp_path, mirror.url, "m0").read_bytes() == CONTENT
            assert mirror.asked[-1] == ("m0", None, None)
        (tmp_path / "a.zip").unlink()


def test_a_complete_partial_file_is_only_verified(tmp_path: Path) -> None:
    with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
        with pytest.raises(DownloadFailed):
            fetched(tmp_path, mirror.url, "m0")
        (tmp_path / "a.zip.partial").write_bytes(CONTENT)
        asked = len(mirror.asked)
        assert fetched(tmp_path, mirror.url, "m0", **CHECKSUMS).read_bytes() == CONTENT
        assert fetched(tmp_path, mirror.url, "m0", **CHECKSUMS).read_bytes() == CONTENT
        assert len(mirror.asked) == asked


def test_a_file_larger_than_the_free_space_is_rejected_before_the_transfer(tmp_path: Path) -> None:
    with serving(m0=good(claims=10**18)) as mirror, pytest.raises(InputError) as error:
        fetched(tmp_path, mirror.url, "m0")
    assert error.value.code is ErrorCode.NO_SPACE
    assert "953674316407 MiB" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_progress_counts_mebibytes_and_continues_after_an_interruption(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with serving(m0=good(cuts=[2_500_000])) as mirror:
        remote = Remote(name="a.zip", urls=(f"{mirror.url}/m0",))
        download(
            remote, tmp_path, progress=lambda done, total: reported.append((done, total)), retry_seconds=0
        )
    assert reported == sorted(reported)
    assert reported[-1] == (3, 3)


# a wrong setting and the value that the message must name
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"name": "../a.zip"}, "name='../a.zip'"),
    ({"name": ".lock"}, "name='.lock'"),
    ({"name": 3}, "name=3"),
    ({"urls": ()}, "urls=()"),
    ({"urls": ("file:///etc/passwd",)}, "urls='file:///etc/passwd'"),
    ({"urls": ("http://a/b c",)}, "urls='http://a/b c'"),
    ({"urls": ("http://me:secret@a/b",)}, "urls='http://me:secret@a/b'"),
    ({"size": "7 GB"}, "size='7 GB'"),
    ({"size": True}, "size=True"),
    ({"sha1": "abc"}, "sha1='abc'"),
    ({"md5": 5}, "md5=5"),
]


@pytest.mark.parametrize(("changes", "value"), INVALID)
def test_an_invalid_archive_entry_is_rejected(changes: dict[str, Any], value: str) -> None:
    make: Callable[..., Remote] = Remote
    with pytest.raises(InputError) as error:
        make(**{"name": "a.zip", "urls": ("http://a/b",)} | changes)
    assert error.value.code is ErrorCode.INVALID_ARCHIVE_ENTRY
    assert value in str(error.value)
