"""Reasons why an audio file cannot be used."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a file cannot be used."""

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    SILENT = "silent"
    NOT_FINITE = "not-a-number samples"
    TOO_LOUD = "impossibly loud"
    CHANGED = "changed"


class BadAudio(Exception):
    """A file that cannot be used: its `reason`, and in `detail` what is known beyond it. Its text is one line."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = " ".join(detail.split())

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
