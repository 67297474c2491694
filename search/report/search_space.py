"""The values of a searched setting, in words."""

from search.config.space import DepthRange, FloatRange, IntRange


def searched_values(value: object) -> str:
    """The values that a setting may have; empty for a fixed one."""
    match value:
        case DepthRange() | IntRange():
            return f"{value.low} to {value.high}"
        case FloatRange():
            return f"{value.low:g} to {value.high:g}{', logarithmic' * value.log}"
        case tuple():
            return ", ".join(map(str, value))
        case _:
            return ""
