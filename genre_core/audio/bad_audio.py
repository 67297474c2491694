"""BadAudio, the exception for an audio file that cannot be used."""

from enum import StrEnum


class Reason(StrEnum):
    """Reasons why a file cannot be used, as they are counted and stored in corpus.parquet."""

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    SILENT = "silent"
    NOT_FINITE = "not-a-number samples"
    TOO_LOUD = "impossibly loud"
    CHANGED = "changed"


class Fault(StrEnum):
    """Kinds of faults within `Reason.UNREADABLE` and `Reason.SILENT`."""

    NOT_ACCESSIBLE = "not-accessible"
    """The file does not exist or cannot be opened."""
    NOT_A_FILE = "not-a-file"
    INVALID_NAME = "invalid-name"
    NOT_AUDIO = "not-audio"
    """Another kind of file, such as a web page or an archive."""
    UNKNOWN_FORMAT = "unknown-format"
    CUT_OFF = "cut-off"
    """The file ends before its audio."""
    DAMAGED = "damaged"
    UNDECODABLE = "undecodable"
    """A known format that no decoder can open."""
    NO_AUDIO_STREAM = "no-audio-stream"
    SAMPLE_RATE = "sample-rate"
    FORMAT_CHANGES = "format-changes"
    """The sample rate or the number of channels changes within the file."""
    PYAV_MISSING = "pyav-missing"
    PYAV_BROKEN = "pyav-broken"

    TOO_QUIET = "too-quiet"
    CHANNELS_CANCEL = "channels-cancel"
    CONSTANT_OFFSET = "constant-offset"
    INAUDIBLE_FREQUENCIES = "inaudible-frequencies"
    """Audio only above half the sample rate of the mono mix."""


class BadAudio(Exception):
    """An audio file that cannot be used.

    Attributes:
        reason: why the file cannot be used; the message is the reason and the detail on one line.
        detail: further details, or "".
        fault: the kind of fault, for reasons that have several.
    """

    def __init__(self, reason: Reason, detail: str = "", fault: Fault | None = None) -> None:
        super().__init__(reason, detail, fault)  # all arguments, so that it can be pickled
        self.reason = reason
        self.detail = " ".join(detail.split())
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


def unreadable(fault: Fault, detail: str) -> BadAudio:
    """The exception for a file that cannot be decoded."""
    return BadAudio(Reason.UNREADABLE, detail, fault)
