"""Caching activations changes only the time: bit-identical results, computed once, whichever worker dies."""

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from filelock import FileLock
from noise import RECIPE, TRAIN, VALIDATION, network, segments
from small_disks import small_disk
from small_models import models_of

from genre_core.models.network import Network
from genre_core.models.registry import BLOCKS
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache, caching_is_faster
from genre_core.training.fine_tune import EpochResult, FineTune
from genre_core.training.segments import Segments

SPAWN = multiprocessing.get_context("spawn")
PLENTY = 2**33


@pytest.fixture(autouse=True)
def always_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache activations, whatever is faster on this machine."""
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)


@pytest.fixture
def small_models() -> Iterator[None]:
    with models_of("small"):
        yield


def _epochs(recipe: Recipe, node_cache: NodeCache) -> tuple[str, list[EpochResult]]:
    """The value of `features`, and the results of all epochs without their times."""
    own = network(recipe, node_cache)
    fine_tune = FineTune(own, recipe, train=TRAIN, validation=VALIDATION, node_cache=node_cache)
    results = []
    while not fine_tune.finished:
        result = fine_tune.epoch()
        results.append(replace(result, seconds=0, arithmetic_seconds=0, samples_per_second=0))
    return fine_tune.features, results


def _cache(folder: Path, budget: int = PLENTY) -> NodeCache:
    return NodeCache(folder / "shared", budget_bytes=budget)


DEPTHS = [
    *[("resnet18", depth, "float32") for depth in (1, 2, 3, 4, 5)],
    *[("densenet121", depth, "float32") for depth in (1, 3, 5)],
    *[("alexnet", depth, "float32") for depth in (1, 4, 5, 7)],
    ("vgg11", 6, "float32"),
    ("resnet34", 3, "float32"),
    ("densenet121", 4, "bfloat16"),
]
WHOLE_BY_DEFAULT = ("resnet18", 3, "float32")


def _sized(depths: list[tuple[str, int, str]]) -> list[Any]:
    """All on small networks; one on torchvision's own network, and in the long form all."""
    small = [("small", *depth) for depth in depths]
    return small + [
        pytest.param("whole", *depth, marks=[pytest.mark.long] if depth != WHOLE_BY_DEFAULT else [])
        for depth in depths
    ]


@pytest.mark.parametrize(("size", "backbone", "depth", "precision"), _sized(DEPTHS))
def test_epochs_are_bit_identical_with_and_without_cached_activations(
    size: str, backbone: str, depth: int, precision: str, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, backbone=backbone, frozen_blocks=depth, precision=precision)
    with models_of(size):
        uncached = _epochs(recipe, _cache(tmp_path, 0))
        writing, reading = (_epochs(recipe, _cache(tmp_path)) for _ in range(2))
    assert [kind for kind, _ in (uncached, writing, reading)] == ["computed", "shared", "shared"]
    assert uncached[1] == writing[1] == reading[1]


@pytest.mark.parametrize(
    ("size", "backbone"),
    [
        *[("small", backbone) for backbone in ("resnet18", "densenet121", "alexnet")],
        ("whole", "resnet18"),
        *[pytest.param("whole", backbone, marks=pytest.mark.long) for backbone in ("densenet121", "alexnet")],
    ],
)
def test_a_pass_that_starts_from_shallower_activations_gives_the_same_bits(
    size: str, backbone: str, tmp_path: Path
) -> None:
    deep, part = len(BLOCKS[backbone]), segments(40)  # more than the two chunks that are measured
    with models_of(size):
        for depth in (2, deep):
            stepwise = _activations(backbone, depth, _cache(tmp_path / "stepwise"), part)
        at_once = _activations(backbone, deep, _cache(tmp_path / "at_once"), part)
    assert torch.equal(stepwise, at_once)


def _activations(backbone: str, depth: int, node_cache: NodeCache, part: Segments = TRAIN) -> torch.Tensor:
    recipe = replace(RECIPE, backbone=backbone, frozen_blocks=depth)
    activations = ActivationCache(network(recipe, node_cache), part, node_cache=node_cache, epochs=5)
    assert activations.kind == "shared"
    return activations[torch.arange(len(part))].clone()


def test_one_pass_also_stores_shallower_activations_if_there_is_room(tmp_path: Path) -> None:
    roomy, tight = _cache(tmp_path / "roomy"), _cache(tmp_path / "tight", 48_000_000)
    for node_cache in (roomy, tight):
        _activations("resnet18", 5, node_cache)
    assert len(_files(tmp_path / "roomy")) == 5
    assert 1 <= len(_files(tmp_path / "tight")) < 5, "the initial weights take 45 of 48 MB"


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "shared").glob("features-*.npy"))


def test_activations_computed_in_16_bits_are_stored_in_16_bits(tmp_path: Path) -> None:
    """bfloat16 has 8 significant bits: after three blocks of ResNet-18 the error is below 2 % of the RMS level."""
    node_cache = _cache(tmp_path)
    sizes, activations = [], []
    for precision in ("float32", "bfloat16"):
        recipe = replace(RECIPE, frozen_blocks=3, precision=precision)
        cached = ActivationCache(network(recipe, node_cache), TRAIN, node_cache=node_cache, epochs=5)
        activations.append(cached[torch.arange(len(TRAIN))].float())
        sizes.append(max(path.stat().st_size for path in _files(tmp_path)))
        for path in _files(tmp_path):
            path.unlink()
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.001)
    exact, rounded = activations
    error = (exact - rounded).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < float(error) < 0.02


@pytest.mark.usefixtures("small_models")
def test_activations_that_can_differ_have_files_of_different_names(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    torch.save(_convolutions("alexnet"), weights)  # the linear layers are random
    node_cache = _cache(tmp_path)
    base = replace(RECIPE, backbone="alexnet", weights=str(weights), frozen_blocks=5)
    names = [
        ActivationCache(network(recipe, node_cache), part, node_cache=node_cache, epochs=5)._names()[-1]
        for recipe, part in [
            (base, TRAIN),
            (base, VALIDATION),
            (replace(base, frozen_blocks=4), TRAIN),
            (replace(base, precision="bfloat16"), TRAIN),
            (replace(base, weights="random"), TRAIN),
            (replace(base, weights="random", seed=1), TRAIN),
            (replace(base, learning_rate=1.0, seed=1), TRAIN),
        ]
    ]
    assert len(set(names)) == 6
    assert names[0] == names[-1], "layers with given weights depend on neither the seed nor the learning rate"


def _convolutions(backbone: str) -> dict[str, torch.Tensor]:
    import torchvision

    state = torchvision.models.get_model(backbone, weights=None).state_dict()
    return {key: value for key, value in state.items() if key.startswith("features")}


@pytest.mark.parametrize(
    ("compute", "copy", "epochs", "faster"),
    [
        (1.0, 0.01, 1, True),
        (1.0, 0.01, 20, True),
        (1.0, 1.0, 20, False),
        (1.0, 0.9, 5, False),
        (1.0, 0.9, 20, True),
        (1.0, 0.4, 1, False),
    ],
)
def test_caching_is_faster_if_copying_costs_less_than_computing(
    compute: float, copy: float, epochs: int, faster: bool
) -> None:
    """Two trials look up activations in each epoch; the first of them also computes and writes them."""
    assert caching_is_faster(compute, copy, epochs=epochs) is faster


@pytest.mark.usefixtures("small_models")
def test_activations_without_room_in_the_cache_are_computed_at_each_lookup(tmp_path: Path) -> None:
    recipe = replace(RECIPE, frozen_blocks=1)
    kind, results = _epochs(recipe, _cache(tmp_path, 2**20))
    assert kind == "computed"
    assert results == _epochs(recipe, _cache(tmp_path))[1]


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("fills_later", [False, True], ids=["full", "fills while activations are written"])
def test_a_full_disk_prevents_caching_and_nothing_else(
    fills_later: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, frozen_blocks=1)
    if fills_later:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=PLENTY))
    with small_disk(tmp_path / "disk", 2**18) as disk:
        node_cache = _cache(disk)
        kind, results = _epochs(recipe, node_cache)
        assert kind == "computed"
        assert str(disk) in str(node_cache.pop_error())
        assert not [path for path in (disk / "shared").iterdir() if path.suffix != ".lock"]
    monkeypatch.undo()
    assert results == _epochs(recipe, _cache(tmp_path))[1]


@pytest.mark.usefixtures("small_models")
def test_an_unusable_cache_folder_prevents_caching_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    node_cache = _cache(tmp_path / "file")
    kind, results = _epochs(replace(RECIPE, frozen_blocks=1), node_cache)
    assert kind == "computed"
    assert "Not a directory" in str(node_cache.pop_error())
    assert results == _epochs(replace(RECIPE, frozen_blocks=1), _cache(tmp_path))[1]


def test_truncated_initial_weights_are_created_again(tmp_path: Path) -> None:
    whole = network(RECIPE, _cache(tmp_path)).flat_state()
    (file,) = (tmp_path / "shared").glob("*.safetensors")
    os.truncate(file, 1000)
    again = network(RECIPE, _cache(tmp_path)).flat_state()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_truncated_activations_are_computed_again(tmp_path: Path) -> None:
    node_cache = _cache(tmp_path)
    whole = _activations("resnet18", 3, node_cache)
    for path in _files(tmp_path):
        os.truncate(path, path.stat().st_size - 8)
    assert torch.equal(_activations("resnet18", 3, node_cache), whole)


def _inode(folder: Path) -> int:
    """Cache activations in this process and return the inode of their file."""
    recipe = replace(RECIPE, frozen_blocks=4)
    node_cache = _cache(folder)
    many = segments(200)
    with patch("genre_core.training.activation_cache.caching_is_faster", return_value=True):
        activations = ActivationCache(network(recipe, node_cache), many, node_cache=node_cache, epochs=5)
    path = node_cache.find(activations._names()[-1])
    assert activations.kind == "shared"
    assert path is not None
    return path.stat().st_ino


def _inode_at_once(folder: Path, start: Barrier, found: "SimpleQueue[int]") -> None:
    """Put the inode into the queue, found at the same time as by another process."""
    start.wait()
    found.put(_inode(folder))


def test_only_one_of_two_workers_computes_the_same_activations(tmp_path: Path) -> None:
    start, found = SPAWN.Barrier(2), SPAWN.SimpleQueue()
    worker = SPAWN.Process(target=_inode_at_once, args=(tmp_path, start, found))
    worker.start()
    start.wait(100)
    assert _inode(tmp_path) == found.get(), "a second computation would have replaced the file"
    worker.join()


def _hang_while_computing(folder: Path, reached: Event) -> None:
    """Cache activations, and hang when half of their file is written."""
    forward_by_block = Network.forward_by_block

    def hanging(self: Network, *given: Any, **named: Any) -> Any:
        if _partial_files(folder):
            reached.set()
            threading.Event().wait()
        return forward_by_block(self, *given, **named)

    with patch.object(Network, "forward_by_block", hanging):
        _inode(folder)


def _partial_files(folder: Path) -> list[Path]:
    return list((folder / "shared").glob(".features-*.partial"))


def test_a_worker_that_dies_while_computing_does_not_block_others(tmp_path: Path) -> None:
    reached = SPAWN.Event()
    worker = SPAWN.Process(target=_hang_while_computing, args=(tmp_path, reached))
    worker.start()
    assert reached.wait(100)
    worker.kill()
    worker.join()
    assert _partial_files(tmp_path)
    assert not _files(tmp_path), "the worker was killed while writing"
    _inode(tmp_path)
    assert _files(tmp_path)


def test_waiting_for_another_worker_is_no_time_of_the_features(tmp_path: Path) -> None:
    own = network(RECIPE, NodeCache(tmp_path, budget_bytes=0))
    names = ActivationCache(own, TRAIN, node_cache=_cache(tmp_path / "other"), epochs=1)._names()
    (tmp_path / "shared").mkdir()
    other = FileLock(tmp_path / "shared" / f".pass-{names[0]}.lock")

    @contextmanager
    def waiting() -> Iterator[None]:
        time.sleep(0.5)
        other.release()
        yield

    cache = NodeCache(tmp_path / "shared", budget_bytes=PLENTY, waiting=waiting)
    began = time.perf_counter()
    with other:
        fine_tune = FineTune(own, RECIPE, train=TRAIN, validation=VALIDATION, node_cache=cache)
    passed = time.perf_counter() - began
    assert fine_tune.features == "shared"
    assert cache.waited_seconds >= 0.5
    assert 0 < fine_tune.features_seconds <= passed - cache.waited_seconds
