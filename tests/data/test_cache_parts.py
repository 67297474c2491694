"""The parts of the cache folder: their sizes, and what `cache --clean` deletes."""

from pathlib import Path

import pytest
from refusals import refused

from search.data.cache_parts import clean_cache, parts
from search.errors import SearchErrorCode

FILES = {
    "spectrograms/a/mels.npy": 1000,
    "shared/features-1.npy": 300,
    "nodes/host/shared/weights.safetensors": 70,
    "synthetic/key/rock/0.wav": 20,
    "audit-4.parquet": 5,
    "costs.json": 2,
    "notes.txt": 9,
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name, size in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path


def test_the_parts_have_the_sizes_of_their_files(cache: Path) -> None:
    assert [part.size_bytes for part in parts(cache)] == [1000, 370, 20, 5, 2]
    assert [part.size_bytes for part in parts(cache / "missing")] == [0] * 5


def test_cleaning_leaves_measured_costs_and_files_of_others(cache: Path) -> None:
    clean_cache(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["costs.json", "notes.txt"]
    clean_cache(cache)


def test_a_cache_in_use_is_not_cleaned(cache: Path) -> None:
    with (
        (cache / "shared/features-1.npy").open("rb"),
        refused(SearchErrorCode.CACHE_IN_USE, str(cache)),
    ):
        clean_cache(cache)
    assert (cache / "shared/features-1.npy").exists()
