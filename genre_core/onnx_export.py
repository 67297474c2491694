"""Export a saved model's network, from log-mel segments to logits, to ONNX; ONNX Runtime checks it against PyTorch."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from genre_core.errors import ErrorCode, InputError
from genre_core.predict import Model

ONNX = "model.onnx"
INPUT, OUTPUT = "mels", "logits"
CHECKED_BATCHES = (1, 5)
"""Batch sizes at which ONNX Runtime and PyTorch are compared."""
TOLERANCE = 1e-4
"""Largest allowed difference of a probability; float32 rounding in a deep network causes a tenth of it."""
_EXTRA = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Check that the packages that write and run ONNX are installed.

    Raises:
        InputError: some are not.
    """
    if missing := [package for package in _EXTRA if importlib.util.find_spec(package) is None]:
        raise InputError(
            f"--onnx needs packages that are not installed: {', '.join(missing)}; "
            "pip install 'genre-search[onnx]'",
            code=ErrorCode.ONNX_NOT_INSTALLED,
        )


def write_onnx(folder: Path) -> float:
    """Write model.onnx to a model's folder, in float32 and for any number of segments.

    The input is log-mels in dB, [segments, channels, mels, frames]; the output is logits, [segments, genres].

    Returns:
        The largest difference of a probability between ONNX Runtime and PyTorch, over random segments with the
        levels of the training segments.

    Raises:
        InputError: the folder contains no model.
    """
    model = Model.load(folder, device="cpu")
    model.network.precision = "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about its own internals
        torch.onnx.export(
            model.network,
            (_segments(model, 2),),
            folder / ONNX,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: "segments"}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    difference = _difference(model, folder / ONNX)
    assert difference < TOLERANCE, f"ONNX differs from PyTorch by {difference:.1e}"
    return difference


@torch.inference_mode()
def _difference(model: Model, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for segments in (_segments(model, count) for count in CHECKED_BATCHES):
        [logits] = session.run([OUTPUT], {INPUT: segments.numpy()})
        expected = model.network(segments).numpy()
        differences.append(np.abs(softmax(logits, axis=1) - softmax(expected, axis=1)).max())
    return float(max(differences))


def _segments(model: Model, count: int) -> Tensor:
    """Random log-mel segments in dB, [segments, channels, mels, frames]."""
    image, front_end = model.network.image, model.front_end
    shape = (count, len(front_end.windows), front_end.n_mels, model.segment_frames)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(count))
    return noise * image.std + image.mean
