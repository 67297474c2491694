"""A file comes whole from mirrors that cut, lie, forget and refuse, and no byte is asked for twice without need."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrors import File, serving

from genre_core.datasets.download import ATTEMPTS, Remote, download
from genre_core.errors import InputError

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
CHECKSUMS = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha1", "sha256")}


def fetched(folder: Path, url: str, *paths: str, **known: Any) -> Path:
    return download(Remote(name="a.zip", urls=tuple(f"{url}/{p}" for p in paths), **known), folder, pause=0)


def good(**changes: Any) -> File:
    return File(CONTENT, **changes)


# what the mirrors hold, in the order they are asked; what is known of the file; what they must be asked for
WAYS: list[tuple[list[File], dict[str, Any], list[tuple[str, str | None, str | None]]]] = [
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
    ([good(status=503), good()], {}, [*[("m0", None, None)] * ATTEMPTS, ("m1", None, None)]),
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
    # parts of two mirrors that do not fit together: the second one's alone do
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
    # the second mirror's file is at its end where the first one's was cut
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
    # the second mirror's file has another size, which the range's answer tells
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


@pytest.mark.parametrize(("files", "known", "asked"), WAYS)
def test_a_file_comes_whole_whatever_its_mirrors_do(
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


# what the only mirror holds, what is known of the file, what is said of it
REFUSED = [
    (good(status=404), {}, "404 Not Found"),
    (good(status=500), {}, "500 Internal Server Error"),
    (
        File(OTHER),
        {"md5": CHECKSUMS["md5"]},
        f"md5 {hashlib.md5(OTHER).hexdigest()} instead of {CHECKSUMS['md5']}",
    ),
    (File(OTHER), CHECKSUMS | {"md5": None}, f"sha1 {hashlib.sha1(OTHER).hexdigest()} instead of"),
    (File(OTHER[:-1]), {"size": len(CONTENT)}, "2999999 bytes instead of 3000000"),
    (File(OTHER + b"x", length=False), {"size": len(CONTENT)}, "sends more than the 3000000 bytes"),
    (good(cuts=[0] * 9), {}, "ended the connection after 0 of 3000000 bytes"),
]


@pytest.mark.parametrize(("file", "known", "words"), REFUSED)
def test_a_file_that_no_mirror_has_is_refused_in_one_line(
    tmp_path: Path, file: File, known: dict[str, Any], words: str
) -> None:
    with serving(m0=file) as mirror, pytest.raises(InputError) as caught:
        fetched(tmp_path, mirror.url, "m0", **known)
    assert words in str(caught.value)
    assert mirror.url.removeprefix("http://") in str(caught.value)
    assert not list(tmp_path.glob("*.zip"))


def test_a_host_that_does_not_answer_is_passed_over(tmp_path: Path) -> None:
    with serving() as gone:
        pass
    with pytest.raises(InputError, match=r"\(127.0.0.1:\d+: Connection refused\)"):
        fetched(tmp_path, gone.url, "m0")


def test_another_call_goes_on_and_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path) -> None:
    with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
        with pytest.raises(InputError):
            fetched(tmp_path, mirror.url, "m0")
        assert (tmp_path / "a.zip.partial").read_bytes() == CONTENT[:9]
        mirror.files["m0"] = File(OTHER, etag='"2"')
        assert fetched(tmp_path, mirror.url, "m0").read_bytes() == OTHER
        assert mirror.asked[-1] == ("m0", "bytes=9-", '"1"')


def test_a_partial_file_that_cannot_be_told_from_another_begins_anew(tmp_path: Path) -> None:
    for spoil in (
        lambda: (tmp_path / "a.zip.partial.json").write_text("{}"),
        (tmp_path / "a.zip.partial.json").unlink,
    ):
        with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
            with pytest.raises(InputError):
                fetched(tmp_path, mirror.url, "m0")
            spoil()
            assert fetched(tmp_path, mirror.url, "m0").read_bytes() == CONTENT
            assert mirror.asked[-1] == ("m0", None, None)
        (tmp_path / "a.zip").unlink()


def test_what_came_whole_before_an_interruption_is_only_checked(tmp_path: Path) -> None:
    with serving(m0=good(cuts=[9, 0, 0, 0])) as mirror:
        with pytest.raises(InputError):
            fetched(tmp_path, mirror.url, "m0")
        (tmp_path / "a.zip.partial").write_bytes(CONTENT)
        asked = len(mirror.asked)
        assert fetched(tmp_path, mirror.url, "m0", **CHECKSUMS).read_bytes() == CONTENT
        assert fetched(tmp_path, mirror.url, "m0", **CHECKSUMS).read_bytes() == CONTENT
        assert len(mirror.asked) == asked


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_it_comes(tmp_path: Path) -> None:
    with (
        serving(m0=good(claims=10**18)) as mirror,
        pytest.raises(InputError, match=r"has room for \d+ MiB, but 953674316407 MiB are to come: make room"),
    ):
        fetched(tmp_path, mirror.url, "m0")


def test_progress_is_told_in_mebibytes_from_where_it_goes_on(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with serving(m0=good(cuts=[2_500_000])) as mirror:
        remote = Remote(name="a.zip", urls=(f"{mirror.url}/m0",))
        download(remote, tmp_path, report=lambda done, total: told.append((done, total)), pause=0)
    assert told == sorted(told)
    assert told[-1] == (3, 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "../a.zip"}, "name must be a plain file name, but got name='../a.zip'"),
    ({"name": ".lock"}, "name must be a plain file name"),
    ({"name": 3}, "name must be a plain file name, but got name=3"),
    ({"urls": ()}, "urls must be one address or more"),
    (
        {"urls": ("file:///etc/passwd",)},
        "urls must be http:// or https:// without a password, but got urls='file:///etc/passwd'",
    ),
    ({"urls": ("http://a/b c",)}, "urls must be http:// or https://"),
    ({"urls": ("http://me:secret@a/b",)}, "urls must be http:// or https:// without a password"),
    ({"size": "7 GB"}, "size must be a number of bytes, but got size='7 GB'"),
    ({"size": True}, "size must be a number of bytes"),
    ({"sha1": "abc"}, "sha1 must be 40 hexadecimal digits, but got sha1='abc'"),
    ({"md5": 5}, "md5 must be 32 hexadecimal digits"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_an_archive_that_cannot_be_one_is_refused(changes: dict[str, Any], words: str) -> None:
    make: Callable[..., Remote] = Remote
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        make(**{"name": "a.zip", "urls": ("http://a/b",)} | changes)
