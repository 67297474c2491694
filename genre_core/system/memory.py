"""The memory of this machine, or of the container that limits this process."""

from pathlib import Path

import psutil

GIB = 2**30
"""Bytes."""
ACTIVATIONS_GPU_SHARE = 0.4
"""Maximum fraction of a GPU's free memory for one set of activations of frozen blocks."""

_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Files of a control group, of version 2 and 1: its limit, its usage, its statistics, and which of those to read."""


def free_and_total(groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes of memory that are available without swapping, and bytes of memory in all.

    Args:
        groups: folder of this process's control group; in a container it is that of the container.
    """
    machine = psutil.virtual_memory()
    free, total = int(machine.available), int(machine.total)
    for limit_file, used_file, statistics_file, droppable in _GROUPS:
        try:
            limit, used = (int((groups / name).read_text()) for name in (limit_file, used_file))
            statistics = dict(line.split() for line in (groups / statistics_file).read_text().splitlines())
        except (OSError, ValueError):  # another version, or no limit, which version 2 writes as "max"
            continue
        # usage includes pages of files that can be dropped
        free, total = min(free, limit - used + int(statistics.get(droppable, 0))), min(total, limit)
    return free, total
