"""The shelf keeps the best models, whole, one a trial."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from search.models import ModelShelf

TENSORS = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1]}


def _card(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "genres": ["jazz", "soul"]}


def _kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_best_stay_and_the_worst_goes(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path, keep=2)
    for trial, f1 in enumerate([0.5, 0.3, 0.4, 0.2]):
        shelf.offer(trial, f1, TENSORS, _card(1))
    assert _kept(tmp_path) == ["trial-00000-epoch-001", "trial-00002-epoch-001"]


def test_a_later_epoch_takes_the_place_of_the_trials_earlier_one(tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path, keep=2)
    shelf.offer(3, 0.5, TENSORS, _card(1))
    shelf.offer(3, 0.6, TENSORS, _card(4))
    assert _kept(tmp_path) == ["trial-00003-epoch-004"]
    folder = tmp_path / "trial-00003-epoch-004"
    assert np.array_equal(load_file(folder / "model.safetensors")["head.weight"], TENSORS["head.weight"])
    assert json.loads((folder / "model.json").read_text()) == _card(4)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_worse_model_is_not_wanted(keep: int, tmp_path: Path) -> None:
    shelf = ModelShelf(tmp_path, keep=keep)
    shelf.offer(0, 0.5, TENSORS, _card(1))
    assert not shelf.wants(1, 0.4)
    shelf.offer(1, 0.4, TENSORS, _card(1))
    assert len(_kept(tmp_path)) == keep


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=12), keep=st.integers(0, 4))
def test_what_is_kept_are_the_best_scores(
    scores: list[float], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    shelf = ModelShelf(folder, keep=keep)
    for trial, f1 in enumerate(scores):
        shelf.offer(trial, f1, TENSORS, _card(1))
    kept = sorted((scores[int(name.split("-")[1])] for name in _kept(folder)), reverse=True)
    assert kept == sorted(scores, reverse=True)[:keep]
