"""Activations at the cut: made once on a node and shared by epochs, trials and workers where that pays."""

import hashlib
import json
import time
from collections.abc import Iterator
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

from genre_core.models.network import CHUNK, Network
from genre_core.system.disk_cache import NodeCache
from genre_core.training.segments import Segments

FORMAT_VERSION = 1
"""Changes when the bytes of a features file would: it is part of the name that one is found by."""
MEMORY_SHARE = 0.5
"""Most of the free memory that one set of features may take: read from disk, sharing seldom pays."""
TRIALS_SERVED = 2
"""Trials that a set of features is taken to serve when its worth is judged: this one and one that comes later."""

HEADER_BYTES = 128
"""Of a features file, before its rows."""
GPU_SHARE = 0.4
"""Most of a GPU's free memory that one set of features may take."""


class ActivationCache:
    """What the trained part of a network sees of each segment.

    The frozen blocks never change, so their activations are constants of (backbone, weights, cut, corpus,
    front end): a file in the node's cache, in the type they were computed in, mapped by every worker that
    wants them. One worker computes them, the others wait. A pass starts from the deepest shallower cut that
    is in the cache, and leaves behind the cuts that it passes where there is room to spare.
    """

    def __init__(
        self, network: Network, segments: Segments, *, node_cache: NodeCache, epochs: int, keep: bool = True
    ) -> None:
        """Find or make what is to be looked up.

        Args:
            network: cut, on the device that works.
            segments: of which the activations are wanted.
            node_cache: where they are kept.
            epochs: how often each will be looked up.
            keep: whether the segments are the same at each look-up.
        """
        self._network = network
        self._segments = segments
        self._cache = node_cache
        self._epochs = epochs
        started = time.perf_counter()
        sharing = keep and len(network.frozen) > 0 and node_cache.budget_bytes > 0
        self._rows = self._kept() if sharing else None
        self.seconds = time.perf_counter() - started

    @property
    def kind(self) -> str:
        """`none` without frozen blocks, `shared` where they are kept, else `computed` at each look-up."""
        if not len(self._network.frozen):
            return "none"
        return "computed" if self._rows is None else "shared"

    def __getitem__(self, segments: Tensor) -> Tensor:
        """Activations at the cut of the segments with these indices, int64 [batch] -> [batch, ...]."""
        if self._rows is None:
            return self._network.frozen_forward(self._segments.mels_of(segments))
        rows = self._rows[segments.to(self._rows.device)].to(self._network.device)
        return self._network.from_contiguous(rows)

    def _kept(self) -> Tensor | None:
        """Rows of all segments at the cut; None where keeping them does not pay, or the cache cannot be used."""
        names = self._names()
        try:
            with self._cache.lock(f"pass-{names[0]}"):  # all cuts of one network: one pass serves them
                rows = self._find(names[-1])
                if rows is None and self._compute(names):
                    rows = self._find(names[-1])
        except OSError as error:  # such as a full disk: nothing is shared then
            self._cache.record_error(error)
            return None
        return None if rows is None else _resident(rows, self._network.device)

    def _names(self) -> list[str]:
        """The files' names, for 1 up to all frozen blocks."""
        network, device = self._network, self._network.device
        kernels = (
            [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
            if device.type == "cpu"
            else [torch.cuda.get_device_name(device)]
        )
        levels = [network.image.mean.tolist(), network.image.std.tolist()]
        same: list[Any] = [FORMAT_VERSION, torch.__version__, kernels, CHUNK[device.type], network.precision]
        same += [levels, self._segments.digest, network.channels_last]
        keys = [json.dumps([*same, network.digests[:cut]]) for cut in range(1, len(network.digests) + 1)]
        return [f"features-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy" for key in keys]

    def _find(self, name: str) -> Tensor | None:
        """The rows in a file of the cache, mapped."""
        path = self._cache.find(name)
        try:
            return None if path is None else _mapped(path)
        except (FileNotFoundError, ValueError):  # dropped in this moment, or cut short when the power failed
            return None

    def _compute(self, names: list[str]) -> bool:
        """Pass all segments through the frozen blocks into files; False where that does not pay."""
        size, device = CHUNK[self._network.device.type], self._network.device
        start, source = self._source(names)
        chunks = iter(torch.split(source, size))
        # two, for the first also pays for the kernels' preparation
        measured = [self._measure(chunk, start) for chunk in islice(chunks, 2)]
        second = measured[-1]
        with ExitStack() as stack:
            files = self._new_files(names, start, second, stack)
            if not files:
                return False
            for cut, file in files.items():
                for passed in measured:
                    file.write(passed[cut].rows.data)
            for chunk in chunks:
                for cut, rows in self._network.forward_by_block(chunk.to(device), start=start):
                    if cut in files:
                        files[cut].write(_to_numpy(rows).data)
        return True

    def _source(self, names: list[str]) -> tuple[int, Tensor]:
        """How deep the pass can start, and the rows to start from."""
        for cut in range(len(names) - 1, 0, -1):
            if (rows := self._find(names[cut - 1])) is not None:
                return cut, rows
        return 0, self._segments.mels

    def _measure(self, chunk: Tensor, start: int) -> dict[int, "_BlockOutput"]:
        """A chunk's activations after each block, and what they cost."""
        device = self._network.device
        seconds, costs = 0.0, {}
        rows = chunk.to(device)
        passing = self._network.forward_by_block(rows, start=start)
        for cut in range(start + 1, len(self._network.frozen) + 1):
            began = _now(device)
            _, rows = next(passing)
            seconds += _now(device) - began
            began = _now(device)
            array = _to_numpy(rows.to("cpu", copy=True))
            costs[cut] = _BlockOutput(compute=seconds, copy=_now(device) - began, rows=array)
        return costs

    def _new_files(
        self, names: list[str], start: int, costs: "dict[int, _BlockOutput]", stack: ExitStack
    ) -> dict[int, BinaryIO]:
        """A file for each cut to keep: the one that is wanted, then those on the way while there is room to spare."""
        wanted = len(names)
        memory = MEMORY_SHARE * psutil.virtual_memory().available
        files: dict[int, BinaryIO] = {}
        for cut in range(wanted, start, -1):
            size = len(self._segments) * costs[cut].rows[0].nbytes
            # where a shallower cut is kept its activations were worth it, and these cost more to compute
            worth = start > 0 or caching_is_faster(costs[cut].compute, costs[cut].copy, epochs=self._epochs)
            if worth and size <= memory and self._find(names[cut - 1]) is None:
                new = self._new_file(names[cut - 1], costs[cut], evict=cut == wanted)
                if (file := stack.enter_context(new)) is not None:
                    files[cut] = file
                    memory -= size
            if wanted not in files:
                break
        return files

    @contextmanager
    def _new_file(self, name: str, cost: "_BlockOutput", *, evict: bool) -> Iterator[BinaryIO | None]:
        """A file in the cache, to be filled with all segments' rows in order; None where it has no room for it."""
        shape = (len(self._segments), *cost.rows.shape[1:])
        header = {"descr": cost.rows.dtype.str, "fortran_order": False, "shape": shape}
        size = HEADER_BYTES + len(self._segments) * cost.rows[0].nbytes
        with self._cache.reserve(name, size, evict=evict) as partial:
            if partial is None:
                yield None
                return
            with partial.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                yield file


@dataclass(frozen=True, kw_only=True)
class _BlockOutput:
    """A chunk at a cut: its activations, and what they cost."""

    compute: float
    """Seconds from the pass's start."""
    copy: float
    """Seconds to copy the activations to the host's memory."""
    rows: NDArray[Any]
    """The chunk's activations."""


def caching_is_faster(compute: float, copy: float, *, epochs: int) -> bool:
    """Whether keeping activations costs less than computing them at each look-up.

    Kept, they are computed and written once and read at each look-up; writing and reading are taken to
    cost one copy. Look-ups are the epochs of the trials that they serve.

    Args:
        compute: seconds to compute a chunk's activations, as measured.
        copy: seconds to copy them to the host's memory, as measured.
        epochs: look-ups by one trial.
    """
    look_ups = TRIALS_SERVED * epochs
    return compute + copy + look_ups * copy < look_ups * compute


def _now(device: torch.device) -> float:
    """Seconds on a clock that waits for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _to_numpy(rows: Tensor) -> NDArray[Any]:
    """On the host; bfloat16, which numpy does not know, as the 16-bit integers of the same bits."""
    array: NDArray[Any] = (rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows).cpu().numpy()
    return array


def _mapped(path: Path) -> Tensor:
    """Rows in a file, read as they are used and shared by all processes that map it."""
    rows = torch.from_numpy(np.load(path, mmap_mode="c"))  # "c": torch asks for writable memory
    return rows.view(torch.bfloat16) if rows.dtype == torch.int16 else rows


def _resident(rows: Tensor, device: torch.device) -> Tensor:
    """On the device where it has room for them; else they stay on the host, and batches are sent."""
    if device.type == "cuda" and rows.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return rows
    return rows.to(device)
