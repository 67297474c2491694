"""Where a node keeps what its trials share: in the driver's cache if no other node has it, else in a local folder."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

NETWORK = frozenset(
    [
        "afp",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cephfs",
        "cifs",
        "coda",
        "davfs",
        "fhgfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "wekafs",
    ]
)
"""Types of file systems that several machines may share."""
NETWORK_FUSE = (
    "azure",
    "blob",
    "ceph",
    "curl",
    "dav",
    "gcs",
    "gluster",
    "goofys",
    "juice",
    "moose",
    "mount-s3",
    "quobyte",
    "rclone",
    "s3",
    "sea",
    "ssh",
    "weka",
)
"""How the name after `fuse.` begins of those that are programs."""


class Mount(NamedTuple):
    """Where a file system is seen, and of which type it is."""

    mountpoint: str
    fstype: str


@dataclass(frozen=True, kw_only=True)
class NodeFolder:
    """A folder that no other node writes to."""

    path: Path
    note: str | None = None
    """Why it is not the driver's cache, for the user; None where it is."""


def node_folder(
    cache: Path,
    *,
    mounts: Callable[[], Iterable[Mount]] | None = None,
    local: Iterable[Path] | None = None,
    host: str | None = None,
) -> NodeFolder:
    """Choose a node's folder.

    Args:
        cache: the driver's, which need not be a path that this node has.
        mounts: the node's file systems, this machine's where None is given.
        local: folders for temporary files, the best first; this machine's where None is given.
        host: the node's name, this machine's where None is given.
    """
    seen = list((mounts or _mounts)())
    temporary = [Path(tempfile.gettempdir()), Path("/tmp")] if local is None else list(local)
    own = f"genre-search-cache-{os.getuid()}"
    choices = [folder / own for folder in temporary if network_type(folder, seen) is None]
    if kind := network_type(cache, seen):
        choices.append(cache / "nodes" / (host or platform.node()))
        return NodeFolder(
            path=(path := _first_usable(choices)),
            note=f"the cache {cache} is on {kind}, which other nodes may share: trials share files in {path}",
        )
    path = _first_usable([cache, *choices])
    note = None if path == cache else f"the cache {cache} cannot be made here: trials share files in {path}"
    return NodeFolder(path=path, note=note)


def network_type(path: Path, mounts: Iterable[Mount]) -> str | None:
    """The type of the file system that a path is or would be on, where machines may share it; else None."""
    place = Path(os.path.realpath(path))
    above = [mount for mount in mounts if place.is_relative_to(mount.mountpoint)]
    if not above:
        return None
    kind = max(reversed(above), key=lambda mount: len(Path(mount.mountpoint).parts)).fstype.lower()
    program = kind.removeprefix("fuse.")
    shared = kind in NETWORK or program in NETWORK
    return kind if shared or (program != kind and program.startswith(NETWORK_FUSE)) else None


def _mounts() -> list[Mount]:
    return [Mount(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def _first_usable(folders: list[Path]) -> Path:
    """The first of these that can be made; the last one where none can, since trials do without what they share."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        return folder
    return folders[-1]
