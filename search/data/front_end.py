"""The front end of a search."""

from dataclasses import replace
from typing import TYPE_CHECKING

from genre_core.audio import mel
from genre_core.audio.mel import FrontEnd
from search.config.front_end import check_fits, needed_front_end

if TYPE_CHECKING:  # a worker needs no pydantic
    from search.config.schema import SearchConfig


def front_end_of(config: "SearchConfig") -> FrontEnd:
    """The front end that the search's backbones need, or else that of its settings, with the level of its settings.

    Raises:
        InputError: there is no such front end, or a backbone cannot use it.
    """
    needed = needed_front_end(config.backbones)
    front_end = (
        replace(needed, level=config.level) if needed else mel.front_end(config.front_end, level=config.level)
    )
    check_fits(front_end, config.backbones)
    return front_end
