"""Shipping of weights to a node without the file: sent by the head, and stored once if the disk has space."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from noise import RECIPE
from numpy.typing import NDArray
from small_disks import small_disk

from genre_core.errors import ErrorCode, InputError
from genre_core.models.initial_weights import weights_identity
from genre_core.models.pretrained import imagenet_file
from genre_core.system.disk_cache import NodeCache
from search.tune import weight_shipping
from search.tune.torch_trainer import TorchTrainer

CONTENT = b"weights" * 1000
NAME = "weights-1234.pth"


class Head:
    """A source of weights in this process that counts how often it is read."""

    def __init__(self, path: Path) -> None:
        self._files = weight_shipping.WeightsFiles({"resnet18": path})
        self.reads = 0

    def read(self, backbone: str) -> NDArray[np.uint8]:
        self.reads += 1
        return self._files.read(backbone)


@pytest.fixture
def head(tmp_path: Path) -> Head:
    (tmp_path / "w.pth").write_bytes(CONTENT)
    return Head(tmp_path / "w.pth")


def _shipped(head: Head, cache: NodeCache) -> str | bytes:
    return weight_shipping.shipped("resnet18", name=NAME, source=head, cache=cache)


def _trainer(weights: dict[str, str], head: Head | None, cache: NodeCache) -> TorchTrainer:
    """A trainer that can do nothing but resolve weights."""
    working_set = SimpleNamespace(device="cpu", threads=1, weights=weights)
    return TorchTrainer(cast(Any, working_set), node_cache=cache, weights=head)


@pytest.mark.parametrize("budget", [10**6, 10, 0])
def test_a_node_reads_weights_once_and_stores_them_whatever_the_budget_of_the_cache(
    budget: int, head: Head, tmp_path: Path
) -> None:
    cache = NodeCache(tmp_path / "shared", budget_bytes=budget)
    for _ in range(2):
        assert _shipped(head, cache) == str(tmp_path / "shared" / NAME)
    assert (tmp_path / "shared" / NAME).read_bytes() == CONTENT
    assert head.reads == 1


def test_a_node_with_a_full_disk_uses_the_weights_without_storing_them(head: Head, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        cache = NodeCache(disk / "shared", budget_bytes=10**6)
        assert _shipped(head, cache) == CONTENT
        assert cache.pop_error()
    assert head.reads == 1


def test_a_node_without_a_folder_uses_the_weights_without_storing_them(head: Head, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "w.pth" / "shared", budget_bytes=10**6)
    assert _shipped(head, cache) == CONTENT
    assert cache.pop_error()


def test_a_file_that_is_missing_on_the_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        weight_shipping.WeightsFiles({"resnet18": tmp_path / "gone.pth"}).read("resnet18")
    assert error.value.code is ErrorCode.WEIGHTS_UNREADABLE
    assert "gone.pth" in str(error.value)


@pytest.mark.parametrize("has_the_file", [True, False])
def test_imagenet_weights_are_shipped_only_to_a_node_that_lacks_them(
    has_the_file: bool, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    if has_the_file:
        imagenet_file("resnet18").parent.mkdir(parents=True)
        imagenet_file("resnet18").write_bytes(CONTENT)
    identity = weights_identity("resnet18", "imagenet")
    cache = NodeCache(tmp_path / "shared", budget_bytes=10**6)
    trainer = _trainer({"resnet18": identity}, head, cache)
    weights = trainer._weights_of(replace(RECIPE, weights="imagenet"))
    copy = tmp_path / "shared" / f"weights-{identity}"
    assert weights == ("imagenet" if has_the_file else str(copy))
    assert copy.exists() == (not has_the_file)


def test_random_weights_are_not_shipped(tmp_path: Path) -> None:
    trainer = _trainer({"resnet18": "random"}, None, NodeCache(tmp_path, budget_bytes=0))
    assert trainer._weights_of(RECIPE) == "random"
