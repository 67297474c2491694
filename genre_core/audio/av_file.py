"""Decoding by PyAV, which brings FFmpeg: for the formats that libsndfile does not know. Needs the extra `av`."""

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

from genre_core.audio.bad_audio import BadAudio, Reason
from genre_core.audio.source import Claim, Samples, Source
from genre_core.formats.containers import asf_seconds

_BLOCK_VALUES = 2**16
"""Samples of all channels that are collected before they are passed on."""
_GAP_SECONDS = 0.1
"""Between the end of a frame and the beginning of the next by their own times; rounding makes less."""
_HOPELESS_PACKETS = 100
"""That are refused before anything was decoded."""
_STATES_ITS_LENGTH = {
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
"""Formats with a length in the header; of others FFmpeg estimates it."""


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file, decoded by FFmpeg.

    Raises:
        BadAudio: FFmpeg does not open it, or finds no sound in it.
        OSError: the system does not open it.
    """
    with path.open("rb") as file, _container(file) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise BadAudio(Reason.UNREADABLE, "no sound that FFmpeg can decode in it")
        damage: list[float] = []
        claims = _claims(path, container, stream)
        frames = _frames(container, stream, claims, damage)
        first = next(frames, None)
        if first is None:
            raise BadAudio(Reason.EMPTY)
        yield Source(
            sample_rate=first.sample_rate,
            channels=first.layout.nb_channels,
            blocks=_blocks(first, frames),
            claims=claims,
            damage=damage,
        )


@contextmanager
def _container(file: object) -> Iterator[InputContainer]:
    """From an open file, so that FFmpeg can open nothing else, whatever the name or the content says."""
    try:
        container = av.open(file, mode="r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise BadAudio(Reason.UNREADABLE, error.strerror or str(error)) from error
    with container:
        yield container


def _frames(
    container: InputContainer, stream: AudioStream, claims: tuple[Claim, ...], damage: list[float]
) -> Iterator[AudioFrame]:
    """All frames; `damage` is told the seconds decoded before each packet that FFmpeg refuses and each gap."""
    heard = passed = 0.0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    if frame.time is not None and passed and frame.time - passed > _GAP_SECONDS:
                        damage.append(heard)
                    length = frame.samples / frame.sample_rate
                    passed = length + (passed if frame.time is None else frame.time)
                    heard += length
                    yield frame
            except av.FFmpegError as error:
                damage.append(heard)
                if not heard and len(damage) > _HOPELESS_PACKETS:
                    raise BadAudio(
                        Reason.UNREADABLE, f"damaged from its beginning: {error.strerror}"
                    ) from error
    except av.FFmpegError as error:
        of = "".join(f" of {claim.seconds:.2f} s" for claim in claims)
        raise BadAudio(Reason.UNREADABLE, f"damaged at {heard:.2f} s{of}: {error.strerror}") from error
    if damage and not heard:
        raise BadAudio(Reason.UNREADABLE, "damaged: FFmpeg decodes none of its packets")


def _blocks(first: AudioFrame, others: Iterator[AudioFrame]) -> Iterator[Samples]:
    """The samples of all frames, a few frames at a time."""
    form = (first.sample_rate, first.layout.nb_channels)
    collected: list[Samples] = []
    values = frames = 0
    for frame in chain([first], others):
        if (now := (frame.sample_rate, frame.layout.nb_channels)) != form:
            raise BadAudio(
                Reason.UNREADABLE,
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
    """A frame as float32 [frames, channels], full scale = 1."""
    values: npt.NDArray[Any] = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(128) - 1
    if values.dtype.kind == "i":
        return (values / 2.0 ** (8 * values.itemsize - 1)).astype(np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
        return np.ascontiguousarray(values, np.float32)


def _claims(path: Path, container: InputContainer, stream: AudioStream) -> tuple[Claim, ...]:
    if container.format.name == "asf":  # whose length FFmpeg takes from the file's size
        with path.open("rb") as file:
            seconds = asf_seconds(file)
        return () if seconds is None else (Claim("its header says", seconds),)
    if not _STATES_ITS_LENGTH & set(container.format.name.split(",")):
        return ()
    if stream.duration and stream.time_base:
        return (Claim("its header says", float(stream.duration * stream.time_base)),)
    if container.duration and container.duration > 0:
        return (Claim("its header says", container.duration / av.time_base),)
    return ()
