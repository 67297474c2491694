"""Frozen blocks of kept models: stored once, sent once, checked when loaded, and deleted with the last model."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_runs import make_run, resume
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from genre_core.audio import mel
from genre_core.errors import ErrorCode, InputError
from genre_core.models.artifact import SHARED_BLOCKS, block_digest, is_complete, read_card, read_tensors
from genre_core.models.network import Network, ToImage, build
from genre_core.models.registry import block_of
from genre_core.predict import Model
from genre_core.system.disk_cache import NodeCache
from search.run.model_store import ModelStore, kept_models, write_model

Arrays = dict[str, NDArray[Any]]

CONV = {"conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "conv.count": np.array(7)}
POOL = {"pool.weight": np.full(5, 0.25, np.float32)}
HEAD = {"head.bias": np.zeros(2, np.float32)}
BLOCKS = {"conv": block_digest(CONV), "pool": block_digest(POOL)}
WHOLE = CONV | POOL | HEAD


def _card(trial: int, f1: float, blocks: Mapping[str, str] = BLOCKS) -> dict[str, Any]:
    return {"trial": trial, "epoch": 1, "validation": {"f1": f1}, SHARED_BLOCKS: dict(blocks)}


def _shared(models: Path) -> set[str]:
    return {path.stem for path in (models / "shared").glob("*")}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _network(frozen: int, *, seed: int = 0) -> Network:
    return build(
        "resnet18",
        weights="random",
        n_genres=3,
        frozen_blocks=frozen,
        image=ToImage(torch.tensor([-40.0]), torch.tensor([20.0])),
        seed=seed,
        node_cache=NodeCache(Path(), budget_bytes=0),
    )


def _state(network: Network) -> Arrays:
    return {name: value.detach().numpy() for name, value in network.flat_state().items()}


def _offer(store: ModelStore, network: Network, trial: int) -> None:
    """Offer a model as a worker does: with the blocks that the store lacks."""
    card = _card(trial, 0.5, network.frozen_contents)
    lacking = store.lacks(network.frozen_contents)
    left_out = network.frozen_contents.keys() - set(lacking)
    sent = {name: value for name, value in _state(network).items() if block_of(name) not in left_out}
    assert store.offer(trial, 0.5, sent, card) == ()


def test_models_with_all_blocks_frozen_take_the_bytes_of_one_copy_and_their_heads(tmp_path: Path) -> None:
    store, networks = ModelStore(tmp_path / "models", keep=4), [_network(6) for _ in range(4)]
    for trial, network in enumerate(networks):
        with torch.no_grad():
            network.head.weight += trial
        _offer(store, network, trial)
    whole = sum(value.nbytes for value in _state(networks[0]).values())
    assert _bytes(tmp_path) < 1.01 * whole
    for folder, network in zip(kept_models(tmp_path), networks, strict=True):
        loaded, expected = read_tensors(folder, read_card(folder)), _state(network)
        assert loaded.keys() == expected.keys()
        assert all(loaded[name].tobytes() == value.tobytes() for name, value in expected.items())


def test_models_with_other_depths_share_the_blocks_that_both_freeze(tmp_path: Path) -> None:
    store, networks = ModelStore(tmp_path / "models", keep=3), [_network(2), _network(4), _network(0)]
    for trial, network in enumerate(networks):
        _offer(store, network, trial)
    assert _shared(tmp_path / "models") == set(networks[1].frozen_contents.values())
    assert networks[0].frozen_contents.items() < networks[1].frozen_contents.items()


def test_blocks_of_other_weights_are_other_blocks() -> None:
    first, second = _network(6).frozen_contents, _network(6, seed=1).frozen_contents
    assert not set(first.values()) & set(second.values())


def test_a_model_without_the_blocks_that_the_store_lacks_is_not_stored(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=1)
    assert store.lacks(BLOCKS) == ("conv", "pool")
    assert store.offer(0, 0.5, HEAD | POOL, _card(0, 0.5)) == ("conv",)
    assert not list(tmp_path.iterdir())
    assert store.offer(0, 0.5, WHOLE, _card(0, 0.5)) == ()
    assert store.lacks(BLOCKS) == ()
    assert store.offer(0, 0.6, HEAD, _card(0, 0.6) | {"epoch": 2}) == ()
    (folder,) = tmp_path.glob("trial-*")
    assert load_file(folder / "model.safetensors").keys() == HEAD.keys()
    assert read_tensors(folder, read_card(folder)).keys() == WHOLE.keys()


def test_a_block_is_deleted_with_the_last_model_that_has_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=2)
    conv = {"conv": BLOCKS["conv"]}
    store.offer(0, 0.1, WHOLE, _card(0, 0.1))
    store.offer(1, 0.2, WHOLE, _card(1, 0.2, conv))
    assert _shared(tmp_path) == set(BLOCKS.values())
    store.offer(2, 0.3, WHOLE, _card(2, 0.3, {}))
    assert _shared(tmp_path) == {BLOCKS["conv"]}
    store.offer(3, 0.4, WHOLE, _card(3, 0.4, {}))
    assert not (tmp_path / "shared").exists()


def test_a_block_of_a_model_that_was_never_written_is_deleted_by_the_next_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search.run.model_store.atomic_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            ModelStore(tmp_path, keep=1).offer(0, 0.5, WHOLE, _card(0, 0.5))
    assert _shared(tmp_path) == set(BLOCKS.values())
    (tmp_path / "shared" / ".abc.safetensors.123.partial").touch()
    ModelStore(tmp_path, keep=1)
    assert not list(tmp_path.iterdir())


def test_no_block_is_deleted_while_a_card_cannot_be_read(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, keep=1)
    store.offer(0, 0.5, WHOLE, _card(0, 0.5))
    (tmp_path / "trial-00007-epoch-001").mkdir()
    (tmp_path / "trial-00007-epoch-001" / "model.json").write_text("{")
    store.offer(1, 0.6, HEAD, _card(1, 0.6, {}))
    assert _shared(tmp_path) == set(BLOCKS.values())


def test_no_moment_has_a_model_without_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = []

    def look(_: int) -> None:
        cards = [json.loads(path.read_text()) for path in tmp_path.glob("trial-*/model.json")]
        needed = {digest for card in cards for digest in card[SHARED_BLOCKS].values()}
        moments.append(needed <= _shared(tmp_path))

    monkeypatch.setattr(os, "fsync", look)
    store = ModelStore(tmp_path, keep=1)
    for trial in range(3):
        store.offer(trial, 0.1 * trial + 0.1, WHOLE, _card(trial, 0.1 * trial + 0.1))
    assert moments
    assert all(moments)


def test_the_deletion_of_a_model_is_on_the_disk_before_its_blocks_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path, keep=1)
    store.offer(0, 0.5, WHOLE, _card(0, 0.5))
    events: list[str] = []
    unlink = Path.unlink

    def note_sync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino:
            events.append(f"synced with {sorted(p.name for p in tmp_path.glob('trial-*'))}")

    def note_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "shared":
            events.append("block deleted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    store.offer(1, 0.6, HEAD, _card(1, 0.6, {}))
    assert events[-3:] == ["synced with ['trial-00001-epoch-001']", "block deleted", "block deleted"]


def test_tensors_that_are_not_those_of_their_digest_are_not_stored(tmp_path: Path) -> None:
    changed = WHOLE | {"conv.weight": CONV["conv.weight"] + 1}
    with pytest.raises(ValueError, match="conv"):
        ModelStore(tmp_path, keep=1).offer(0, 0.5, changed, _card(0, 0.5))
    assert not list(tmp_path.glob("trial-*"))


DIGEST_CHANGES: dict[str, Arrays] = {
    "a value": CONV | {"conv.weight": CONV["conv.weight"] + 1},
    "a name": {"conv.weights": CONV["conv.weight"], "conv.count": CONV["conv.count"]},
    "a shape": CONV | {"conv.weight": CONV["conv.weight"].reshape(4, 3)},
    "a type": CONV | {"conv.weight": CONV["conv.weight"].view(np.int32)},
    "a missing tensor": {"conv.weight": CONV["conv.weight"]},
}


@pytest.mark.parametrize("change", DIGEST_CHANGES)
def test_a_digest_depends_on(change: str) -> None:
    assert block_digest(DIGEST_CHANGES[change]) != block_digest(CONV)


def test_a_digest_does_not_depend_on_order_and_memory_layout() -> None:
    other = {name: np.asfortranarray(CONV[name]) for name in reversed(CONV)}
    assert block_digest(other) == block_digest(CONV)


def _real_model(folder: Path) -> tuple[Path, Network]:
    """A kept model of ResNet-18 that predicts."""
    network = _network(6)
    front_end = asdict(mel.front_end("mel64"))
    card = _card(0, 0.5, network.frozen_contents) | {
        "genres": ["blues", "jazz", "soul"],
        "front_end": front_end,
        "segment_frames": 64,
        "segments_per_track": 1,
        "recipe": {"backbone": "resnet18", "precision": "float32"},
    }
    write_model(folder / "models" / "trial-00000-epoch-001", _state(network), card)
    return folder / "models" / "trial-00000-epoch-001", network


def test_a_model_with_shared_blocks_gives_the_logits_of_its_network(tmp_path: Path) -> None:
    folder, network = _real_model(tmp_path)
    mels = torch.linspace(-80, 0, 2 * 64 * 64).reshape(2, 1, 64, 64)
    with torch.no_grad():
        expected = network.eval()(mels)
        assert torch.equal(Model.load(folder, device="cpu").network(mels), expected)
    whole = tmp_path / "whole"
    card = {key: value for key, value in read_card(folder).items() if key != SHARED_BLOCKS}
    write_model(whole, _state(network), card)
    with torch.no_grad():
        assert torch.equal(Model.load(whole, device="cpu").network(mels), expected)


def test_a_damaged_block_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    folder, network = _real_model(tmp_path)
    path = tmp_path / "models" / "shared" / f"{network.frozen_contents['layer4']}.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, path)
    with pytest.raises(InputError) as error:
        Model.load(folder)
    assert error.value.code is ErrorCode.MODEL_INCONSISTENT
    assert str(path) in str(error.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError) as error:
        Model.load(folder)
    assert error.value.code is ErrorCode.MODEL_INCONSISTENT


def test_a_model_that_was_copied_without_its_blocks_is_incomplete(tmp_path: Path) -> None:
    folder, network = _real_model(tmp_path)
    alone = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "model"))
    assert is_complete(folder)
    assert not is_complete(alone)
    with pytest.raises(InputError) as error:
        Model.load(alone)
    assert error.value.code is ErrorCode.MODEL_INCOMPLETE
    assert network.frozen_contents["layer4"] in str(error.value)
    assert "genre-search export" in str(error.value)


def test_a_model_that_is_moved_to_unclaimed_keeps_its_blocks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    stranger = run / "models" / "trial-00099-epoch-001"
    write_model(stranger, WHOLE, _card(99, 0.9))
    (run / "models" / "shared" / "notes.txt").write_text("mine")
    resume(run)
    (home,) = (run / "unclaimed").iterdir()
    moved = home / "models" / stranger.name
    assert read_tensors(moved, read_card(moved)).keys() == WHOLE.keys()
    assert (home / "models" / "shared" / "notes.txt").read_text() == "mine"
    assert not stranger.exists()


def test_resuming_leaves_models_with_shared_blocks_as_they_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    (kept, *_) = kept_models(run)
    card = read_card(kept) | {SHARED_BLOCKS: BLOCKS}
    shutil.rmtree(kept)
    write_model(kept, WHOLE, card)
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for folder in (run, copy):
        resume(folder)
        assert not (folder / "unclaimed").exists()
        model = folder / "models" / kept.name
        assert read_tensors(model, read_card(model)).keys() == WHOLE.keys()
