"""Spectrograms in the storage of a search, from which other nodes fetch them instead of from the head through Ray.

The driver uploads a shard when a node asks for it, because only then is it known that a node lacks the shard and can
read the storage: a cluster with a shared file system uploads nothing. It uploads, and not an actor on the head, because
credentials may be set in its environment only. Shards are named by their content, so searches with one storage share
them, and what an interrupted search has uploaded is used by the next one. Nothing is deleted from the storage.
"""

import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_core.system.addresses import masked
from genre_core.system.storage import STORAGE_ERRORS, answer, reason
from genre_core.training.frames import FrameFiles
from search.engine.ports import RemoteError
from search.run.remote_folder import RemoteFolder

FOLDER = ".spectrograms"
"""Folder of the shards in a storage, next to the copies of runs."""
POLL_SECONDS = 1.0
"""Interval at which the driver looks for requests, and a node for their answers."""
PATIENCE_SECONDS = 300.0
"""How long a node waits for the upload of a shard before it reads the shard through Ray.

Less than the time after which the other workers of the node take the waiting one for suspended
(`genre_core.system.disk_cache.IDLE_SECONDS`).
"""
AHEAD_SHARDS = 4
"""Shards that a node requests at a time, so that the next ones are uploaded while it fetches one."""
GIVE_UP_SHARDS = 3
"""After this many shards that could not be uploaded, the driver uploads no others."""


class Head(Protocol):
    """What nodes and the driver call on the head: see `search.tune.frame_shipping.StoreShards`."""

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a shard."""

    def request(self, names: Sequence[str]) -> None:
        """Ask for the upload of shards, in this order."""

    def is_uploaded(self, name: str) -> bool | None:
        """Whether a requested shard is in the storage; None if that is not known yet."""

    def requested(self) -> list[str]:
        """The requested shards that were not answered, in order."""

    def answer(self, name: str, *, uploaded: bool) -> None:
        """Record whether a shard is in the storage."""

    def fetched(self, size: int) -> None:
        """Count bytes that a node has read from the storage."""

    def complain(self, text: str) -> None:
        """Record why a node cannot read the storage."""

    def complaints(self) -> list[str]:
        """What was recorded since the last call."""


def _opened(address: str) -> tuple[RemoteFolder, dict[str, int]]:
    """The folder of the shards in a storage, and the bytes of those that it has."""
    folder = RemoteFolder(address, FOLDER)
    return folder, folder.sizes()


class StoredFrames:
    """A worker's source of shards: the storage, or the head if the storage lacks a shard or cannot be used."""

    def __init__(
        self,
        head: Head,
        address: str,
        *,
        waiting: Callable[[], AbstractContextManager[None]],
        poll_seconds: float = POLL_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            head: reads shards, and passes requests on to the driver.
            address: of the storage.
            waiting: a context to enter while waiting.
            poll_seconds: see POLL_SECONDS.
            patience_seconds: see PATIENCE_SECONDS.
        """
        self._head = head
        self._address = address
        self._waiting = waiting
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._folder: RemoteFolder | None = None
        """None before `expect`, and if the storage cannot be used."""
        self._sizes: Mapping[str, int] = {}
        self._lacking: list[str] = []
        """The expected shards that the storage lacked, in order."""

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Announce shards that will be read, in order, with their bytes."""
        self._sizes = sizes
        try:
            with self._waiting():
                self._folder, stored = answer(lambda: _opened(self._address))
        except STORAGE_ERRORS as error:
            self._give_up(error)
            return
        self._lacking = [name for name, size in sizes.items() if stored.get(name) != size]

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a shard."""
        with self._waiting():
            if self._folder and (name not in self._lacking or self._is_uploaded(name)):
                try:
                    return self._fetched(self._folder, name)
                except STORAGE_ERRORS as error:
                    self._give_up(error)
            return self._head.read(name)

    def _fetched(self, folder: RemoteFolder, name: str) -> NDArray[np.uint8]:
        content = folder.read(name)
        if len(content) != self._sizes[name]:
            raise OSError(f"{FOLDER}/{name} must have {self._sizes[name]} bytes, but has {len(content)}")
        self._head.fetched(len(content))
        return np.frombuffer(content, np.uint8)

    def _is_uploaded(self, name: str) -> bool:
        """Wait for the upload of a shard; False if it fails or takes too long."""
        place = self._lacking.index(name)
        end = time.monotonic() + self._patience_seconds
        while True:
            # again each time, because a restarted actor knows no requests
            self._head.request(self._lacking[place : place + AHEAD_SHARDS])
            uploaded = self._head.is_uploaded(name)
            if uploaded is not None or time.monotonic() > end:
                return bool(uploaded)
            time.sleep(self._poll_seconds)

    def _give_up(self, error: Exception) -> None:
        self._folder = None
        self._head.complain(
            f"--storage {masked(self._address)} cannot be read on {platform.node()}, which gets its spectrograms "
            f"through Ray: {reason(error)}"
        )


class ShardUploads:
    """Uploads the shards that nodes request, in the background while the context lasts. Used by the driver."""

    def __init__(
        self,
        head: Head,
        frames: FrameFiles,
        address: str,
        *,
        say: Callable[[str], None],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Set up.

        Args:
            head: passes the requests on.
            frames: whose shards are uploaded.
            address: of the storage.
            say: called with a line when the storage fails, here or on a node; once each.
            poll_seconds: see POLL_SECONDS.
        """
        self._head = head
        self._shards = {shard.name: shard for shard in frames.shards}
        self._frame_bytes = frames.frame_bytes
        self._address = address
        self._say = say
        self._poll_seconds = poll_seconds
        self._said = set[str]()
        self._failures = 0
        self._remote: tuple[RemoteFolder, dict[str, int]] | None = None
        """See `_opened`; None before the first request."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._answer_until_stopped, name="spectrograms", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(RemoteError):
            self._relay_complaints()

    def _answer_until_stopped(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                for name in self._head.requested():
                    if self._stop.is_set():
                        return
                    self._relay_complaints()
                    self._head.answer(name, uploaded=self._upload(name))
                self._relay_complaints()
            except RemoteError:
                continue  # the actor is being restarted, or the cluster is lost, which the search reports

    def _upload(self, name: str) -> bool:
        """Upload a shard unless the storage has it; False if that fails."""
        if self._failures >= GIVE_UP_SHARDS:
            return False
        shard = self._shards[name]
        size = shard.frames * self._frame_bytes
        try:
            self._remote = self._remote or _opened(self._address)
            folder, stored = self._remote
            if stored.get(name) != size:
                content = np.fromfile(shard.path, np.uint8, count=size, offset=shard.offset)
                folder.upload(name, pa.BufferReader(content))
                stored[name] = size
        except Exception as error:  # noqa: BLE001  # reported; the search must not fail
            self._failures += 1
            self._say_once(
                "driver",
                f"--storage {masked(self._address)} takes no spectrograms, so they reach other nodes through Ray: "
                f"{reason(error)}",
            )
            return False
        return True

    def _relay_complaints(self) -> None:
        for text in self._head.complaints():
            self._say_once("node", text)

    def _say_once(self, whose: str, text: str) -> None:
        """Say the first error of any node, and the first of the driver."""
        if whose not in self._said:
            self._said.add(whose)
            self._say(text)
