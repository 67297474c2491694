"""The store keeps the best models, whole, one a trial."""

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


def test_the_best_stay_and_the_worst_goes(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    for trial, f1 in enumerate([0.5, 0.3, 0.4, 0.2]):
        store.offer(trial, f1, TENSORS, _card(1))
    assert _kept(tmp_path) == ["trial-00000-epoch-001", "trial-00002-epoch-001"]


def test_a_later_epoch_takes_the_place_of_the_trials_earlier_one(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    store.offer(3, 0.5, TENSORS, _card(1))
    store.offer(3, 0.6, TENSORS, _card(4))
    assert _kept(tmp_path) == ["trial-00003-epoch-004"]
    folder = tmp_path / "trial-00003-epoch-004"
    assert np.array_equal(load_file(folder / "model.safetensors")["head.weight"], TENSORS["head.weight"])
    assert json.loads((folder / "model.json").read_text()) == _card(4)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_worse_model_is_not_wanted(keep: int, tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=keep)
    store.offer(0, 0.5, TENSORS, _card(1))
    assert not store.wants(1, 0.4)
    store.offer(1, 0.4, TENSORS, _card(1))
    assert len(_kept(tmp_path)) == keep


def test_when_the_search_is_over_no_later_model_takes_the_place_of_one_whose_scores_are_known(
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
def test_what_is_kept_are_the_best_scores(
    scores: list[float], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(folder, keep=keep)
    for trial, f1 in enumerate(scores):
        store.offer(trial, f1, TENSORS, _card(1))
    kept = sorted((scores[int(name.split("-")[1])] for name in _kept(folder)), reverse=True)
    assert kept == sorted(scores, reverse=True)[:keep]


@given(scores=st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=8), data=st.data())
def test_of_equal_trials_the_earlier_stay_whatever_the_order_and_the_interruptions(
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
def test_a_model_that_was_copied_in_part_is_none(missing: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", keep=2)
    for trial in range(2):
        store.offer(trial, 0.5, TENSORS, _card(1, trial, 0.5))
    (tmp_path / "models" / "trial-00000-epoch-001" / missing).unlink()
    whole = tmp_path / "models" / "trial-00001-epoch-001"
    assert kept_models(tmp_path) == [whole]
    assert kept_models(tmp_path, 0) == []
    store = ModelStore(tmp_path / "models", keep=2)
    assert store.wants(2, 0.1), "it counts as none"
    assert len(list((tmp_path / "models").iterdir())) == 2, "a driver moves it aside; nothing here deletes it"


def test_a_deletion_that_is_interrupted_leaves_nothing_to_explain(
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
        "half a model has no model's name"
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
def test_a_model_that_has_no_room_says_that_the_run_folder_is_full(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("search.run.model_store.write_model", fail)
    with pytest.raises(RunFolderFull) as caught:
        ModelStore(tmp_path / "models", keep=1).offer(0, 0.5, {}, {"epoch": 1})
    assert is_full(caught.value)
    assert caught.value.filename == str(tmp_path / "models" / "trial-00000-epoch-001")
