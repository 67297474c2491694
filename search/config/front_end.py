"""The front end that a search's backbones need, if any of them does."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from genre_core.errors import InputError
from genre_core.models.registry import find_backbone
from search.errors import SearchErrorCode

if TYPE_CHECKING:  # which needs torch
    from genre_core.audio.mel import FrontEnd


def needed_front_end(backbones: Iterable[str]) -> "FrontEnd | None":
    """The front end that some of the backbones need; None if they take any.

    Raises:
        InputError: they need different ones.
    """
    needed = {name: front_end for name in backbones if (front_end := find_backbone(name).front_end)}
    names = list(needed)
    for other in names[1:]:
        if needed[other] != needed[names[0]]:
            raise InputError(
                f"all backbones of a search must need the same front end, but {names[0]} needs "
                f"{needed[names[0]].name} and {other} {needed[other].name}; search them separately, and compare the "
                "runs with genre-search results",
                code=SearchErrorCode.FRONT_ENDS_DIFFER,
            )
    return needed[names[0]] if names else None


def check_fits(front_end: "FrontEnd", backbones: Iterable[str]) -> None:
    """Check that a front end's segments can be the input of all backbones.

    Raises:
        InputError: one needs more mel bands or another number of channels.
    """
    for name in backbones:
        backbone = find_backbone(name)
        if len(front_end.windows) not in (1, backbone.channels) or front_end.n_mels < backbone.min_side:
            raise InputError(
                f"the front end of {name} must have one window or {backbone.channels}, and {backbone.min_side} mel "
                f"bands or more, but {front_end.name} has {len(front_end.windows)} and {front_end.n_mels}; give "
                "another front_end, or leave the backbone out",
                code=SearchErrorCode.FRONT_END_DOES_NOT_FIT,
            )
