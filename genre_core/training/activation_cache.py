"""Activations at the freeze depth, cached on a node and shared by epochs, trials and workers if that is faster."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from genre_core.models.block_costs import CHUNK
from genre_core.models.network import Network
from genre_core.system.disk_cache import NodeCache
from genre_core.system.memory import ACTIVATIONS_GPU_SHARE
from genre_core.training.frames import TensorRows, in_batches, in_order
from genre_core.training.segments import Segments

FORMAT_VERSION = 1
"""Part of the cached files' names; increase it when their bytes would change."""
MEMORY_SHARE = 0.5
"""Maximum fraction of free memory for one set of activations: reading from disk is rarely faster than computing."""
TRIALS_SERVED = 2
"""Number of trials assumed to use a set of activations: the current one and one later."""

HEADER_BYTES = 128
"""Size of a cached file's header."""


class ActivationCache:
    """Activations at the freeze depth by segment, the input of a network's trainable part.

    Frozen blocks never change, so their activations are constants of (backbone, weights, freeze depth, corpus,
    front end). They are stored in a file of the node's cache, in the type they were computed in, which every
    worker that needs them maps into its memory. One worker computes them while the others wait. It starts from
    the deepest shallower activations in the cache, and also stores those of the blocks it passes if there is
    room to spare.
    """

    def __init__(
        self, network: Network, segments: Segments, *, node_cache: NodeCache, epochs: int, keep: bool = True
    ) -> None:
        """Find or compute the activations.

        Args:
            network: its frozen blocks compute the activations, on the segments' device.
            segments: the input of the frozen blocks.
            node_cache: where activations are stored.
            epochs: how often each segment will be looked up.
            keep: whether segments are the same at each lookup, so that activations can be stored.
        """
        self._network = network
        self._segments = segments
        self._cache = node_cache
        self._epochs = epochs
        started, waited = time.perf_counter(), node_cache.waited_seconds
        cacheable = keep and len(network.frozen) > 0 and node_cache.budget_bytes > 0
        self._stored = self._find_or_compute() if cacheable else None
        self.seconds = time.perf_counter() - started - (node_cache.waited_seconds - waited)

    @property
    def kind(self) -> str:
        """`none` without frozen blocks, `shared` if activations are cached, `computed` if each lookup computes them."""
        if not len(self._network.frozen):
            return "none"
        return "computed" if self._stored is None else "shared"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all activations as they are stored, [segments, ...]. Needs activations that are `shared`."""
        assert self._stored is not None
        return tuple(self._stored.shape)

    @property
    def identity(self) -> str:
        """A string that is equal for equal activations: their file name in the cache. Needs a frozen block."""
        return self._names()[-1]

    def __getitem__(self, segments: Tensor) -> Tensor:
        """Activations of the segments with these indices, int64 [batch] -> [batch, ...]."""
        return next(self.batches([segments]))

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Activations of each batch of segments; the next ones are read while one is used."""
        if self._stored is None:
            return map(self._network.frozen_forward, self._segments.batches(batches))
        return map(self._network.from_contiguous, _looked_up(self._stored, batches, self._network.device))

    def _find_or_compute(self) -> Tensor | None:
        """Activations of all segments; None if caching is not faster, or the cache cannot be used."""
        names = self._names()
        try:
            with self._cache.lock(f"pass-{names[0]}"):  # the first depth's name: one pass serves all depths
                stored = self._find(names[-1])
                if stored is None and self._compute(names):
                    stored = self._find(names[-1])
        except OSError as error:  # such as a full disk: continue without the cache
            self._cache.record_error(error)
            return None
        return None if stored is None else _resident(stored, self._network.device)

    def _names(self) -> list[str]:
        """File names of the activations after each frozen block."""
        network, device = self._network, self._network.device
        kernels = (
            [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
            if device.type == "cpu"
            else [torch.cuda.get_device_name(device)]
        )
        levels = [network.image.mean.tolist(), network.image.std.tolist()]
        shared: list[Any] = [
            FORMAT_VERSION,
            torch.__version__,
            kernels,
            CHUNK[device.type],
            network.precision,
        ]
        shared += [levels, self._segments.digest, network.channels_last]
        depths = range(1, len(network.digests) + 1)
        keys = [json.dumps([*shared, network.digests[:depth]]) for depth in depths]
        return [f"features-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy" for key in keys]

    def _find(self, name: str) -> Tensor | None:
        """The activations in a file of the cache, memory-mapped."""
        path = self._cache.find(name)
        try:
            return None if path is None else _mapped(path)
        except (FileNotFoundError, ValueError):  # evicted just now, or truncated by a power failure
            return None

    def _compute(self, names: list[str]) -> bool:
        """Pass all segments through the frozen blocks into files; False if caching them is not faster."""
        size = CHUNK[self._network.device.type]
        start, chunks = self._source(names, size)
        # two, because the first one's time includes the initialization of kernels
        measured = [self._measure(chunk, start) for chunk in islice(chunks, 2)]
        with ExitStack() as stack:
            files = self._new_files(names, start, measured[-1], stack)
            if not files:
                return False
            for depth, file in files.items():
                for outputs in measured:
                    file.write(outputs[depth].activations.data)
            for chunk in chunks:
                for depth, activations in self._network.forward_by_block(chunk, start=start):
                    if depth in files:
                        files[depth].write(_to_numpy(activations).data)
        return True

    def _source(self, names: list[str], size: int) -> tuple[int, Iterator[Tensor]]:
        """The deepest cached depth below the freeze depth, and its activations; without one, 0 and the segments.

        Both are in chunks of `size` on the device.
        """
        for depth in range(len(names) - 1, 0, -1):
            if (stored := self._find(names[depth - 1])) is not None:
                return depth, in_order(TensorRows(tensor=stored), size, self._network.device)
        return 0, self._segments.in_order(size)

    def _measure(self, chunk: Tensor, start: int) -> dict[int, "_BlockOutput"]:
        """Depth -> a chunk's activations and their costs."""
        device = self._network.device
        seconds, outputs = 0.0, {}
        blocks = self._network.forward_by_block(chunk, start=start)
        for depth in range(start + 1, len(self._network.frozen) + 1):
            began = _now(device)
            _, activations = next(blocks)
            seconds += _now(device) - began
            began = _now(device)
            array = _to_numpy(activations.to("cpu", copy=True))
            outputs[depth] = _BlockOutput(compute=seconds, copy=_now(device) - began, activations=array)
        return outputs

    def _new_files(
        self, names: list[str], start: int, outputs: "dict[int, _BlockOutput]", stack: ExitStack
    ) -> dict[int, BinaryIO]:
        """Depth -> file to write; the freeze depth first, then shallower ones while there is room to spare."""
        wanted = len(names)
        memory = MEMORY_SHARE * psutil.virtual_memory().available
        files: dict[int, BinaryIO] = {}
        for depth in range(wanted, start, -1):
            output = outputs[depth]
            size = len(self._segments) * output.activations[0].nbytes
            # caching the shallower activations was faster, and these cost more to compute
            faster = start > 0 or caching_is_faster(output.compute, output.copy, epochs=self._epochs)
            if faster and size <= memory and self._find(names[depth - 1]) is None:
                new = self._new_file(names[depth - 1], output, evict=depth == wanted)
                if (file := stack.enter_context(new)) is not None:
                    files[depth] = file
                    memory -= size
            if wanted not in files:
                break
        return files

    @contextmanager
    def _new_file(self, name: str, output: "_BlockOutput", *, evict: bool) -> Iterator[BinaryIO | None]:
        """A file of the cache to write all segments' activations to, in order; None if there is no room for it."""
        shape = (len(self._segments), *output.activations.shape[1:])
        header = {"descr": output.activations.dtype.str, "fortran_order": False, "shape": shape}
        size = HEADER_BYTES + len(self._segments) * output.activations[0].nbytes
        with self._cache.reserve(name, size, evict=evict) as partial:
            if partial is None:
                yield None
                return
            with partial.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                yield file


@dataclass(frozen=True, kw_only=True)
class _BlockOutput:
    """A chunk's activations after a block, and their costs."""

    compute: float
    """Seconds since the start of the pass."""
    copy: float
    """Seconds to copy the activations to host memory."""
    activations: NDArray[Any]


def caching_is_faster(compute: float, copy: float, *, epochs: int) -> bool:
    """Whether caching activations is faster than computing them at each lookup.

    Cached activations are computed and written once and read at each lookup; writing and reading are assumed to
    take as long as one copy. The number of lookups is that of the epochs of `TRIALS_SERVED` trials.

    Args:
        compute: measured seconds to compute a chunk's activations.
        copy: measured seconds to copy them to host memory.
        epochs: lookups per trial.
    """
    lookups = TRIALS_SERVED * epochs
    return compute + copy + lookups * copy < lookups * compute


def _now(device: torch.device) -> float:
    """Seconds on a monotonic clock, read after a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _to_numpy(activations: Tensor) -> NDArray[Any]:
    """On the host; bfloat16, which numpy lacks, as 16-bit integers with the same bits."""
    is_bfloat16 = activations.dtype == torch.bfloat16
    array: NDArray[Any] = (activations.view(torch.int16) if is_bfloat16 else activations).cpu().numpy()
    return array


def _mapped(path: Path) -> Tensor:
    """Activations in a memory-mapped file, which is read on access and shared by all processes."""
    stored = torch.from_numpy(
        np.load(path, mmap_mode="c")
    )  # copy-on-write, as torch requires writable memory
    return stored.view(torch.bfloat16) if stored.dtype == torch.int16 else stored


def _resident(stored: Tensor, device: torch.device) -> Tensor:
    """On the device if it has room; otherwise on the host, from which batches are copied."""
    if device.type == "cuda" and stored.nbytes > ACTIVATIONS_GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return stored
    return stored.to(device)


def _looked_up(stored: Tensor, batches: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Batches of stored activations on the device."""
    if stored.device == device:
        return (stored[batch] for batch in batches)
    return in_batches(TensorRows(tensor=stored), batches, device)
