"""YAML files and values of the command line: rejected in one line if PyYAML would misread them or hang."""

from pathlib import Path

import pytest
from refusals import refused

from genre_core.errors import InputError
from search.config.schema import load
from search.config.yaml_reader import parse_override
from search.errors import SearchErrorCode

BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
UNREADABLE, NOT_YAML = SearchErrorCode.CONFIG_UNREADABLE, SearchErrorCode.CONFIG_NOT_YAML
UNKNOWN, INVALID = SearchErrorCode.SETTING_UNKNOWN, SearchErrorCode.SETTING_INVALID

FILES: dict[str, tuple[SearchErrorCode, str | bytes, list[str]]] = {
    "not YAML": (NOT_YAML, "space: [1, 2", ["line 1"]),
    "a list": (NOT_YAML, "- 1\n- 2\n", ["list"]),
    "a tab": (NOT_YAML, "space:\n\tmomentum: 1\n", ["line 2"]),
    "binary": (UNREADABLE, b"\xff\xfe\x00", []),
    "a control character": (NOT_YAML, "data: \x07", ["#x0007"]),
    "two documents": (NOT_YAML, "trials: 3\n---\ntrials: 4\n", ["line 2"]),
    "a key twice": (NOT_YAML, "trials: 3\nseed: 1\ntrials: 4\n", ["line 3", "trials", "keep one"]),
    "a key twice inside": (
        NOT_YAML,
        "space:\n  momentum: 0.1\n  'momentum': 0.2\n",
        ["line 3", "momentum", "keep one"],
    ),
    "a key that is a number": (INVALID, "1: 2", ["1:"]),
    "a null key": (INVALID, "~: 2", []),
    "a key that is a list": (NOT_YAML, "[1, 2]: 3", ["line 1"]),
    "an infinity": (
        INVALID,
        "space: {learning_rate: {low: 0.1, high: .inf}}",
        ["space.learning_rate.high", "inf"],
    ),
    "not a number": (
        INVALID,
        "space: {learning_rate: {low: .nan, high: 1}}",
        ["space.learning_rate.low", "nan"],
    ),
    "an alias bomb": (NOT_YAML, BOMB, ["line 2", "write the value out"]),
    "a list in itself": (NOT_YAML, "data: &a [*a]", ["line 1", "write the value out"]),
    "an undefined alias": (NOT_YAML, "data: *a", ["line 1", "write the value out"]),
    "nested without end": (NOT_YAML, "a: " + "[" * 10**4, []),
    "an impossible date": (NOT_YAML, "data: 2026-99-99", ["1..12"]),
    "an integer with 10,000 digits": (NOT_YAML, "trials: " + "9" * 10**4, []),
    "an integer with 10,000 hexadecimal digits": (
        INVALID,
        "trials: 0x" + "f" * 10**4,
        ["trials", "1e12041"],
    ),
    "an impossible boolean": (NOT_YAML, "data: !!bool perhaps", []),
    "code": (NOT_YAML, "data: !!python/object/apply:os.system [touch executed]", ["os.system"]),
}


@pytest.mark.parametrize("case", FILES)
def test_an_unusable_file_is_rejected_in_one_line(case: str, tmp_path: Path) -> None:
    code, content, facts = FILES[case]
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(code, *facts, "" if code is INVALID else path):
        load(path, {})
    with pytest.raises(InputError) as caught:
        load(None, dict([parse_override(f"trials={path.read_text(errors='replace')}")]))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["", "nothing.yaml", "x" * 300, "a\0b", "itself.yaml"])
def test_a_path_without_a_readable_file_is_rejected_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "itself.yaml").symlink_to("itself.yaml")
    with refused(UNREADABLE, "--config"):
        load(tmp_path / name, {})


@pytest.mark.parametrize(
    ("text", "key", "value"), [("a.b=3", "a.b", 3), ("a=x=y", "a", "x=y"), ("a=", "a", None)]
)
def test_the_value_of_an_override_is_read_as_yaml(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a", SearchErrorCode.OVERRIDE_NOT_KEY_VALUE),
        ("=3", SearchErrorCode.OVERRIDE_NOT_KEY_VALUE),
        ("a=[1", SearchErrorCode.VALUE_NOT_YAML),
    ],
)
def test_an_unusable_override_is_rejected(text: str, code: SearchErrorCode) -> None:
    with refused(code, text.partition("=")[2]):
        parse_override(text)
