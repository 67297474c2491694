"""What a decoder gives of an open file: its samples, and what its bytes say of its length and damage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

LENGTH_TOLERANCE = 0.2
"""Seconds by which two lengths may differ: encoders pad, and some headers round."""
_PLACES_NAMED = 3


@dataclass(frozen=True)
class Claim:
    """A length that something in the file states."""

    what: str
    """A clause without its object: "its header says"."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open file, ready to be decoded once."""

    sample_rate: int
    """Hz."""
    channels: int
    blocks: Iterator[Samples]
    """All samples, float32 [frames, channels], full scale = 1, each block valid until the next."""
    claims: tuple[Claim, ...] = ()
    damage: Sequence[float] = ()
    """Seconds near which the sound is damaged or missing; complete when all blocks were decoded."""
    cut: bool = False
    """Whether the last part of the file is known to be missing."""

    def warnings(self, seconds: float) -> list[str]:
        """What speaks against a file of which so many seconds were decoded, one line each."""
        said = [
            f"{seconds:.2f} s are heard, but {claim.what} {claim.seconds:.2f} s"
            for claim in self.claims
            if abs(claim.seconds - seconds) > LENGTH_TOLERANCE
        ]
        if self.damage:
            more = len(self.damage) - _PLACES_NAMED
            places = ", ".join(f"{place:.2f} s" for place in self.damage[:_PLACES_NAMED])
            said.append(f"damaged or incomplete near {places}" + (f" and {more} more places" * (more > 0)))
        if self.cut:
            said.append(f"cut off: its stream does not end after {seconds:.2f} s")
        return said
