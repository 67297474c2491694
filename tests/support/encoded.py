"""Audio files in formats that libsndfile cannot read, encoded by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

# name of a file -> container and codec, as FFmpeg calls them
ENCODED = {
    "aac.m4a": ("ipod", "aac"),
    "alac.m4a": ("ipod", "alac"),
    "video-name.mp4": ("mp4", "aac"),
    "quick.mov": ("mov", "aac"),
    "raw.aac": ("adts", "aac"),
    "windows.wma": ("asf", "wmav2"),
    "opus.webm": ("webm", "libopus"),
    "vorbis.webm": ("webm", "vorbis"),
    "flac.mka": ("matroska", "flac"),
    "film.mkv": ("matroska", "ac3"),
    "dolby.ac3": ("ac3", "ac3"),
    "pack.wv": ("wv", "wavpack"),
    "true.tta": ("tta", "tta"),
    "alac.caf": ("caf", "alac"),
    "renamed.wav": ("ipod", "aac"),
}


def encode(
    path: Path, samples: npt.NDArray[np.float64], rate: int, container: str, codec: str, **options: str
) -> Path:
    """Encode samples, [frames] or [frames, 2] with full scale 1, to a file."""
    channels = np.atleast_2d(samples.T)
    layout = "mono" if len(channels) == 1 else "stereo"
    integers = np.round(np.clip(channels, -1, 1) * 32_767).astype(np.int16)
    with av.open(path, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate, stream.options = 192_000, {"strict": "experimental"}
        offered = [form.name for form in stream.codec_context.codec.audio_formats or []]
        stream.format = next(form for form in ("s16p", "s16", "fltp", "flt") if form in offered)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(integers), format="s16p", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return path
