"""Reads YAML files and command-line values, and rejects what PyYAML would accept silently."""

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from genre_core.errors import InputError
from search.config.mistakes import shown
from search.errors import SearchErrorCode

_UNPARSABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""Exceptions of PyYAML: also for impossible dates, numbers with thousands of digits and too deep nesting."""


def read_file(path: Path) -> dict[str, Any]:
    """Read the settings of a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"--config must be a YAML file, but {path} cannot be read: {reason}; give another file",
            code=SearchErrorCode.CONFIG_UNREADABLE,
        ) from error
    try:
        settings = _parse(text)
    except _UNPARSABLE as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise InputError(
            f"--config must be valid YAML, but {path} has an error{place}: {getattr(error, 'problem', error)}",
            code=SearchErrorCode.CONFIG_NOT_YAML,
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(
            f"--config must contain keys and values, but {path} contains a {type(settings).__name__}; "
            "genre-search config show prints an example",
            code=SearchErrorCode.CONFIG_NOT_YAML,
        )
    return settings


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `key=value` into the dotted key and the value, which is read as YAML.

    Raises:
        InputError: there is no key or no `=`, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(
            f"--set must be key=value, but got --set {text}; for example --set training.epochs=5",
            code=SearchErrorCode.OVERRIDE_NOT_KEY_VALUE,
        )
    return key.strip(), parse_value(value)


def parse_value(text: str) -> Any:
    """Parse the value of a setting on the command line as YAML.

    Raises:
        InputError: it is not YAML.
    """
    try:
        return _parse(text)
    except _UNPARSABLE as error:
        raise InputError(
            f"a setting must be a YAML value, but got {shown(text)}; quote it",
            code=SearchErrorCode.VALUE_NOT_YAML,
        ) from error


class _Loader(yaml.SafeLoader):
    """SafeLoader without duplicate keys and aliases.

    PyYAML would keep the last of two equal keys, and an error message would print a nested alias endlessly.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "aliases are not supported, write the value out", mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"{key.value} is given twice, keep one", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)
