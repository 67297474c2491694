"""Source, an open audio file as a decoder presents it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

LENGTH_TOLERANCE = 0.2
"""Seconds by which two lengths may differ without a warning: encoders pad, and some headers round."""
_PLACES_NAMED = 3
"""Number of damaged places listed in a warning."""


@dataclass(frozen=True)
class StatedLength:
    """A length that some part of a file states."""

    where: str
    """The part: "header" or "MPEG frames"."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open audio file that can be decoded once."""

    sample_rate: int
    """Hz."""
    channels: int
    blocks: Iterator[Samples]
    """All samples, float32 [frames, channels], full scale = 1; a block is valid until the next one is read."""
    stated_lengths: tuple[StatedLength, ...] = ()
    damage: Sequence[float] = ()
    """Positions in seconds near which audio is damaged or missing; complete once all blocks are decoded."""
    cut: bool = False
    """Whether the end of the file is known to be missing."""

    def warnings(self, seconds: float) -> list[str]:
        """Describe the file's faults, each as "kind: detail", given the decoded length in seconds."""
        found = [
            f"length: {seconds:.2f} s decoded, but {stated.seconds:.2f} s according to its {stated.where}"
            for stated in self.stated_lengths
            if abs(stated.seconds - seconds) > LENGTH_TOLERANCE
        ]
        if self.damage:
            more = len(self.damage) - _PLACES_NAMED
            places = ", ".join(f"{place:.2f} s" for place in self.damage[:_PLACES_NAMED])
            found.append(f"damaged: near {places}" + (f" and {more} more places" * (more > 0)))
        if self.cut:
            found.append(f"cut off: no end-of-stream mark after {seconds:.2f} s")
        return found
