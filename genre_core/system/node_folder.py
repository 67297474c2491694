"""The folder for files that trials on a node share: the driver's cache if it is local, otherwise a local folder."""

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
"""Types of file systems that several machines may share, as named by the operating system."""
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
"""Prefixes of the type, after `fuse.`, of network file systems that run as FUSE programs."""


class Mount(NamedTuple):
    """The mount point and the type of a file system."""

    mountpoint: str
    fstype: str


@dataclass(frozen=True, kw_only=True)
class NodeFolder:
    """A folder that no other node writes to."""

    path: Path
    note: str | None = None
    """For the user: why this is not the driver's cache; None if it is."""


def node_folder(
    cache: Path,
    *,
    mounts: Callable[[], Iterable[Mount]] | None = None,
    local: Iterable[Path] | None = None,
    host: str | None = None,
) -> NodeFolder:
    """Choose the folder of a node.

    Args:
        cache: the cache folder of the driver, which need not exist on this node.
        mounts: the file systems of the node; those of this machine by default.
        local: folders for temporary files, the best first; those of this machine by default.
        host: the name of the node; this machine's by default.
    """
    mounted = list((mounts or _mounts)())
    temporary = [Path(tempfile.gettempdir()), Path("/tmp")] if local is None else list(local)
    name = f"genre-search-cache-{os.getuid()}"
    choices = [folder / name for folder in temporary if network_type(folder, mounted) is None]
    if kind := network_type(cache, mounted):
        choices.append(cache / "nodes" / (host or platform.node()))
        return NodeFolder(
            path=(path := _first_usable(choices)),
            note=f"the cache {cache} is on {kind}, which other nodes may share; trials share files in {path} instead",
        )
    path = _first_usable([cache, *choices])
    note = f"the cache {cache} cannot be created on this node; trials share files in {path} instead"
    return NodeFolder(path=path, note=None if path == cache else note)


def network_type(path: Path, mounts: Iterable[Mount]) -> str | None:
    """The type of the file system that holds a path, existing or not, if several machines may share it; else None."""
    real = Path(os.path.realpath(path))
    above = [mount for mount in mounts if real.is_relative_to(mount.mountpoint)]
    if not above:
        return None
    kind = max(reversed(above), key=lambda mount: len(Path(mount.mountpoint).parts)).fstype.lower()
    program = kind.removeprefix("fuse.")
    shared = kind in NETWORK or program in NETWORK
    return kind if shared or (program != kind and program.startswith(NETWORK_FUSE)) else None


def _mounts() -> list[Mount]:
    return [Mount(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def _first_usable(folders: list[Path]) -> Path:
    """The first folder that can be created; the last one if none can, because trials also work without sharing."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        return folder
    return folders[-1]
