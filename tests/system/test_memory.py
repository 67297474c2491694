"""The memory of the machine, or of the container whose limit is lower."""

from pathlib import Path

import psutil
import pytest

from genre_core.system.memory import free_and_total

MIB = 1024**2
LIMIT, USED, DROPPABLE = 400 * MIB, 300 * MIB, 100 * MIB
VERSION_2 = {
    "memory.max": LIMIT,
    "memory.current": USED,
    "memory.stat": f"anon 1\ninactive_file {DROPPABLE}\nslab 2",
}
VERSION_1 = {
    "memory/memory.limit_in_bytes": LIMIT,
    "memory/memory.usage_in_bytes": USED,
    "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {DROPPABLE}",
}
NO_LIMIT = {
    "memory/memory.limit_in_bytes": 2**63 - 4096,
    "memory/memory.usage_in_bytes": USED,
    "memory/memory.stat": "total_rss 1",
}


def _write(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{content}\n")
    return folder


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_a_containers_limit_counts_if_it_is_lower_than_the_machines_memory(
    files: dict[str, object], tmp_path: Path
) -> None:
    assert free_and_total(_write(tmp_path, files)) == (LIMIT - USED + DROPPABLE, LIMIT)


@pytest.mark.parametrize(
    "files", [{}, VERSION_2 | {"memory.max": "max"}, NO_LIMIT], ids=["none", "max", "largest number"]
)
def test_without_a_limit_it_is_the_machines_memory(files: dict[str, object], tmp_path: Path) -> None:
    free, total = free_and_total(_write(tmp_path, files))
    assert total == psutil.virtual_memory().total
    assert 0 < free <= total
