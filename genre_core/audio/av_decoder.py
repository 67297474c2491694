"""Decoding with PyAV (FFmpeg), for formats that libsndfile does not support. Needs the extra `av`."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from genre_core.audio.bad_audio import BadAudio, Fault, Reason, unreadable
from genre_core.audio.source import Samples, Source, StatedLength
from genre_core.formats.asf import asf_seconds

_BLOCK_VALUES = 2**16
"""Minimum size of a block, in samples of all channels."""
_GAP_SECONDS = 0.1
"""A longer time between the end of a frame and the start of the next is damage; rounding causes less."""
_MAX_REJECTED_PACKETS = 100
"""Number of rejected packets after which a file counts as damaged if nothing has been decoded."""
_FORMATS_WITH_LENGTH = {
    "mov",
    "mp4",
    "asf",
    "matroska",
    "webm",
    "ape",
    "wv",
    "tta",
    "mpc",
    "mpc8",
    "dsf",
    "caf",
}
"""FFmpeg's names of the formats with a length in the header; for others it returns an estimate."""


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file to decode it with FFmpeg.

    Raises:
        BadAudio: FFmpeg cannot open it or finds no audio in it.
        OSError: the system cannot open it.
    """
    with path.open("rb") as file, _container(file) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise unreadable(Fault.NO_AUDIO_STREAM, "it has no audio that FFmpeg can decode")
        damage: list[float] = []
        stated = _stated_lengths(path, container, stream)
        frames = _frames(container, stream, stated, damage)
        first = next(frames, None)
        if first is None:
            raise BadAudio(Reason.EMPTY)
        yield Source(
            sample_rate=first.sample_rate,
            channels=first.layout.nb_channels,
            blocks=_blocks(first, frames),
            stated_lengths=stated,
            damage=damage,
        )


@contextmanager
def _container(file: object) -> Iterator[InputContainer]:
    """Open an already open file, so that FFmpeg opens no other file that its name or content refers to."""
    try:
        container = av.open(file, mode="r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise unreadable(Fault.UNDECODABLE, error.strerror or str(error)) from error
    with container:
        yield container


def _frames(
    container: InputContainer, stream: AudioStream, stated: tuple[StatedLength, ...], damage: list[float]
) -> Iterator[AudioFrame]:
    """Iterate over all frames; the position in seconds of each rejected packet and gap is added to `damage`."""
    decoded = end = 0.0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    if frame.time is not None and end and frame.time - end > _GAP_SECONDS:
                        damage.append(decoded)
                    length = frame.samples / frame.sample_rate
                    end = length + (end if frame.time is None else frame.time)
                    decoded += length
                    yield frame
            except av.FFmpegError as error:
                damage.append(decoded)
                if not decoded and len(damage) > _MAX_REJECTED_PACKETS:
                    raise unreadable(
                        Fault.DAMAGED, f"damaged from its beginning: {error.strerror}"
                    ) from error
    except av.FFmpegError as error:
        of = "".join(f" of {length.seconds:.2f} s" for length in stated)
        raise unreadable(Fault.DAMAGED, f"damaged at {decoded:.2f} s{of}: {error.strerror}") from error
    if damage and not decoded:
        raise unreadable(Fault.DAMAGED, "damaged: FFmpeg cannot decode any of its packets")


def _blocks(first: AudioFrame, others: Iterator[AudioFrame]) -> Iterator[Samples]:
    """Iterate over the samples, a few frames at a time."""
    form = (first.sample_rate, first.layout.nb_channels)
    collected: list[Samples] = []
    values = frames = 0
    for frame in chain([first], others):
        if (now := (frame.sample_rate, frame.layout.nb_channels)) != form:
            raise unreadable(
                Fault.FORMAT_CHANGES,
                f"changes at {frames / form[0]:.2f} s from {form[1]} channels at {form[0]} Hz "
                f"to {now[1]} at {now[0]} Hz",
            )
        collected.append(_samples(frame))
        frames, values = frames + frame.samples, values + collected[-1].size
        if values >= _BLOCK_VALUES:
            yield np.ascontiguousarray(np.concatenate(collected))
            collected, values = [], 0
    if collected:
        yield np.ascontiguousarray(np.concatenate(collected))


def _samples(frame: AudioFrame) -> Samples:
    """Convert a frame to float32 [frames, channels], full scale = 1."""
    values: npt.NDArray[Any] = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(128) - 1
    if values.dtype.kind == "i":
        return (values / 2.0 ** (8 * values.itemsize - 1)).astype(np.float32)
    with np.errstate(over="ignore"):  # overflow becomes infinity, which is rejected later
        return np.ascontiguousarray(values, np.float32)


def _stated_lengths(path: Path, container: InputContainer, stream: AudioStream) -> tuple[StatedLength, ...]:
    seconds: float | None = None
    if container.format.name == "asf":  # FFmpeg computes its length from the file size
        with path.open("rb") as file:
            seconds = asf_seconds(file)
    elif not _FORMATS_WITH_LENGTH & set(container.format.name.split(",")):
        return ()
    elif stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration and container.duration > 0:
        seconds = container.duration / av.time_base
    return () if seconds is None else (StatedLength("header", seconds),)
