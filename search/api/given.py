"""Settings given as keyword arguments, by the dotted keys of the command line's `--set`."""

from collections.abc import Mapping
from pathlib import Path

from search.config.schema import GROUPS

Setting = object
"""A value of docs/settings.md: a number, a text, a list, or a mapping such as a range or a group of settings."""


def by_dotted_key(given: Mapping[str, Setting]) -> dict[str, Setting]:
    """Dotted key -> value. A group, such as `space`, changes only the settings that are given in it."""
    settings: dict[str, Setting] = {}
    for name, value in given.items():
        if name in GROUPS and isinstance(value, Mapping):
            settings |= {f"{name}.{key}": _plain(inner) for key, inner in value.items()}
        else:
            settings[name] = _plain(value)
    return settings


def _plain(value: Setting) -> Setting:
    """The value as YAML stores it: paths as text, and NumPy's numbers as Python's."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value
