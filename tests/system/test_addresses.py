"""Addresses as text: what is one, its normal form, its children, and what people are shown of it."""

from pathlib import Path

import pytest

from genre_core.system.addresses import (
    absolute,
    child,
    has_credentials,
    is_address,
    normalized,
    parent,
    readable,
    root_of,
    source_of,
)


@pytest.mark.parametrize(
    "text", ["music", "/music", "./s3/x", "C:\\music", "C:/music", "a: b/c", "", "~/a:/b"]
)
def test_paths_are_no_addresses(text: str) -> None:
    assert not is_address(text)
    assert source_of(text) == Path(text)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("s3://bucket/music/", "s3://bucket/music"),
        ("S3://bucket//a/./b/../c", "s3://bucket/a/c"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/my music/é#1", "s3://bucket/my%20music/%C3%A9%231"),
        ("s3://bucket/my%20music", "s3://bucket/my%20music"),
        ("gs://bucket/x?a=b/c&d=e f", "gs://bucket/x?a=b/c&d=e f"),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("file:///music", "file:///music"),
        ("file:/music", "file:///music"),
    ],
)
def test_spellings_of_an_address_have_one_normal_form(given: str, normal: str) -> None:
    assert is_address(given)
    assert normalized(given) == normal
    assert normalized(normal) == normal
    assert source_of(given) == normal
    assert absolute(given) == normal


def test_an_address_that_has_been_a_path_is_still_one() -> None:
    assert source_of(Path("s3://bucket/music")) == "s3://bucket/music"
    assert absolute(Path("file:///music")) == "file:///music"


@pytest.mark.parametrize("name", ["one.wav", "a b/c#1?.wav", "100%25.wav", "é/ü.wav", "a@b+c&d=e.wav"])
@pytest.mark.parametrize("folder", ["s3://bucket/my%20music?region=r", "s3://bucket/", "file:///music"])
def test_a_child_has_the_options_of_its_folder_and_the_name_that_was_given(folder: str, name: str) -> None:
    address = child(folder, name)
    assert address == normalized(address)
    assert address.partition("?")[2] == folder.partition("?")[2]
    root, path = root_of(address)
    assert path == f"{root_of(folder)[1]}/{name}".lstrip("/")
    assert root == root_of(folder)[0]
    assert readable(address).endswith(f"/{name}")
    assert parent(address)[1] == name.rpartition("/")[2]


def test_a_name_may_lead_out_of_its_folder() -> None:
    assert child("s3://bucket/a/b?x=1", "../c.wav") == "s3://bucket/a/c.wav?x=1"


@pytest.mark.parametrize(
    ("address", "has"),
    [
        ("s3://key:secret@bucket/x", True),
        ("s3://anonymous@bucket/x", False),
        ("abfs://container@account.dfs.core.windows.net/x", False),
        ("abfs://:secret@account.dfs.core.windows.net/x", True),
        ("s3://bucket/a@b", False),
        ("s3://bucket/x?a=@", False),
    ],
)
def test_credentials_are_found_and_never_shown(address: str, has: bool) -> None:
    assert has_credentials(address) is has
    assert "secret" not in readable(address)
