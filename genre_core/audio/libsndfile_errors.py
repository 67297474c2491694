"""Interpretation of libsndfile's errors, whose codes and texts are undocumented.

The canary tests in tests/audio/test_libsndfile_errors.py fail if a new libsndfile changes them.
"""

from enum import Enum, auto

import soundfile

_SFE_BAD_FILE = 7
""""Not a regular file", which libsndfile also reports for an .mp3 without MPEG frames."""
_UNSUPPORTED_CODEC = ("unimplemented", "unsupported encoding")
_INTERNAL_ERROR = "Unspecified internal error."
"""What libsndfile reports when libmpg123 gives up."""


class Refusal(Enum):
    """Why libsndfile cannot open a file."""

    NO_MPEG_FRAMES = auto()
    UNSUPPORTED_CODEC = auto()
    """It knows the container but not the codec."""
    OTHER = auto()


def refusal_of(error: soundfile.LibsndfileError) -> Refusal:
    """Classify the error with which libsndfile refused to open a regular file."""
    if error.code == _SFE_BAD_FILE:
        return Refusal.NO_MPEG_FRAMES
    if any(words in error.error_string for words in _UNSUPPORTED_CODEC):
        return Refusal.UNSUPPORTED_CODEC
    return Refusal.OTHER


def decoding_error_text(error: soundfile.LibsndfileError) -> str:
    """Return the text of an error during decoding, replaced if libsndfile's own is meaningless."""
    if error.error_string == _INTERNAL_ERROR:
        return "the MPEG decoder cannot skip it; repair the file or leave it out"
    return str(error.error_string)
