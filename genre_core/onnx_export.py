"""A finished model as ONNX: its network from log-mel segments to logits, held against PyTorch by ONNX Runtime."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from genre_core.errors import InputError
from genre_core.predict import Model

ONNX = "model.onnx"
INPUT, OUTPUT = "mels", "logits"
CHECKED_BATCHES = (1, 5)
"""Segments that both are given at a time to be held against each other."""
TOLERANCE = 1e-4
"""Most that probabilities may differ by; what float32 leaves uncertain after a deep network is a tenth of it."""
_EXTRA = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Raise InputError where the packages that write and run ONNX are not installed."""
    if missing := [package for package in _EXTRA if importlib.util.find_spec(package) is None]:
        raise InputError(
            f"--onnx needs {', '.join(missing)}, which are not installed; pip install 'genre-search[onnx]'"
        )


def write_onnx(folder: Path) -> float:
    """Write model.onnx beside a model's tensors: float32, for any number of segments.

    Its input is log-mels in dB, [segments, channels, mels, frames], its output logits, [segments, genres].

    Returns:
        The largest difference of a probability between ONNX Runtime and PyTorch, over random segments at the
        levels of the training segments.

    Raises:
        InputError: the folder holds no model.
    """
    model = Model.load(folder, device="cpu")
    model.network.precision = "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about its own parts
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
