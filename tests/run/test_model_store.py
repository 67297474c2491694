"""The model store: the best models, complete, one per trial."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file

from search.run.checkpoints import RunFolderFull, is_full
from search.run.model_store import ModelStore, kept_models

TENSORS = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1]}


def _card(epoch: int, trial: int = 0, f1: float = 0.0) -> dict[str, Any]:
    return {"trial": trial, "epoch": epoch, "genres": ["jazz", "soul"], "validation": {"f1": f1}}


def _kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_best_models_are_kept_and_the_worst_is_deleted(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    for trial, f1 in enumerate([0.5, 0.3, 0.4, 0.2]):
        store.offer(trial, f1, TENSORS, _card(1))
    assert _kept(tmp_path) == ["trial-00000-epoch-001", "trial-00002-epoch-001"]


def test_a_later_epoch_replaces_the_earlier_one_of_its_trial(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    store.offer(3, 0.5, TENSORS, _card(1))
    store.offer(3, 0.6, TENSORS, _card(4))
    assert _kept(tmp_path) == ["trial-00003-epoch-004"]
    folder = tmp_path / "trial-00003-epoch-004"
    assert np.array_equal(load_file(folder / "model.safetensors")["head.weight"], TENSORS["head.weight"])
    assert json.loads((folder / "model.json").read_text()) == _card(4)


def test_a_trial_that_starts_over_keeps_its_better_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    for epoch, f1 in ((1, 0.5), (2, 0.6), (1, 0.5)):
        store.offer(3, f1, TENSORS, _card(epoch, 3, f1))
    assert _kept(tmp_path) == ["trial-00003-epoch-002"]


@pytest.mark.parametrize("keep", [0, 1])
def test_a_worse_model_is_not_wanted(keep: int, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=keep)
    store.offer(0, 0.5, TENSORS, _card(1))
    assert not store.wants(1, 0.4)
    store.offer(1, 0.4, TENSORS, _card(1))
    assert len(_kept(tmp_path)) == keep


def test_after_the_end_of_the_search_no_model_is_accepted(
    tmp_path: Path,
) -> None:
    store = ModelStore(tmp_path, keep=2)
    store.offer(0, 0.5, TENSORS, _card(1))
    assert store.wants(0, 0.6)
    store.close()
    assert not store.wants(0, 0.6)
    store.offer(0, 0.6, TENSORS, _card(2))
    assert _kept(tmp_path) == ["trial-00000-epoch-001"]


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=12), keep=st.integers(0, 4))
def test_the_models_with_the_best_scores_are_kept(
    scores: list[float], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(folder, keep=keep)
    for trial, f1 in enumerate(scores):
        store.offer(trial, f1, TENSORS, _card(1))
    kept = sorted((scores[int(name.split("-")[1])] for name in _kept(folder)), reverse=True)
    assert kept == sorted(scores, reverse=True)[:keep]


@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=8), data=st.data())
def test_of_equal_trials_the_earlier_are_kept_whatever_the_order_and_the_interruptions(
    scores: list[float], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(folder, keep=2)
    for trial in data.draw(st.permutations(range(len(scores)))):
        if data.draw(st.booleans()):
            (folder / "trial-00099-epoch-001.partial").mkdir(exist_ok=True)
            store = ModelStore(folder, keep=2)
        store.offer(trial, scores[trial], TENSORS, _card(1, trial, scores[trial]))
        store.offer(trial, scores[trial], TENSORS, _card(1, trial, scores[trial]))
    best = sorted(range(len(scores)), key=lambda trial: (-scores[trial], trial))[:2]
    assert _kept(folder) == sorted(f"trial-{trial:05d}-epoch-001" for trial in best)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_an_incompletely_copied_model_is_ignored(missing: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", keep=2)
    for trial in range(2):
        store.offer(trial, 0.5, TENSORS, _card(1, trial, 0.5))
    (tmp_path / "models" / "trial-00000-epoch-001" / missing).unlink()
    whole = tmp_path / "models" / "trial-00001-epoch-001"
    assert kept_models(tmp_path) == [whole]
    assert kept_models(tmp_path, 0) == []
    store = ModelStore(tmp_path / "models", keep=2)
    assert store.wants(2, 0.1), "the incomplete model does not count"
    assert len(list((tmp_path / "models").iterdir())) == 2, (
        "a driver moves it aside; the store does not delete it"
    )


def test_an_interrupted_deletion_leaves_no_incomplete_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    store = ModelStore(folder, keep=1)
    store.offer(0, 0.5, TENSORS, _card(1, 0, 0.5))

    def killed(place: Path, **_: object) -> None:
        if "trial-00000" in place.name:
            next(place.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search.run.model_store.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.offer(1, 0.6, TENSORS, _card(1, 1, 0.6))
    better = folder / "trial-00001-epoch-001"
    assert kept_models(tmp_path) == [better]
    assert [path for path in folder.glob("trial-*") if path != better] == [], (
        "the rest of a model does not have the name of a model"
    )
    ModelStore(folder, keep=1).offer(1, 0.6, TENSORS, _card(1, 1, 0.6))
    assert list(folder.iterdir()) == [better]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_model_on_a_full_disk_raises_run_folder_full(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("search.run.model_store.write_model", fail)
    with pytest.raises(RunFolderFull) as caught:
        ModelStore(tmp_path / "models", keep=1).offer(0, 0.5, {}, {"epoch": 1})
    assert is_full(caught.value)
    assert caught.value.filename == str(tmp_path / "models" / "trial-00000-epoch-001")
