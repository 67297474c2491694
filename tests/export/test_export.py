"""Export: the right model is chosen, described correctly, and gives the same results in ONNX Runtime."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
import yaml
from conftest import TRIALS, Command
from made_runs import final_row, make_final_model, make_finish
from safetensors.numpy import load_file
from scipy.special import softmax

from genre_core.audio.mel import front_end
from genre_core.corpus.corpus_table import load_corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.models.artifact import SHARED_BLOCKS, read_card, read_tensors
from genre_core.models.network import ToImage, build
from genre_core.onnx_export import write_onnx
from genre_core.predict import Model
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from search.errors import SearchErrorCode
from search.export.chosen_model import chosen_model
from search.export.export import export
from search.run.folder import RunFolder
from search.run.model_store import write_model
from search.run.tables import read_trials, write_finish

TENSORS = {"head.bias": np.zeros(2, np.float32)}
SCORES = ("accuracy", "precision", "recall", "f1")


def _session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def _kept_and_final(run: Path, kept: dict[int, float], finals: Sequence[tuple[int, int, int]]) -> None:
    """A run with kept models, by trial and validation F1, and final models of (rank, trial, seed)."""
    (run / "config.yaml").touch()
    (run / "results").mkdir()
    for number, f1 in kept.items():
        card = {"trial": number, "validation": {"f1": f1}}
        write_model(run / "models" / f"trial-{number:05d}-epoch-001", TENSORS, card)
    for _, number, seed in finals:
        write_model(RunFolder(run).final_model(number, seed), TENSORS, {"trial": number})
    if finals:
        write_finish(run, [final_row(n, seed, rank=rank) for rank, n, seed in finals])


@pytest.mark.parametrize(
    ("kept", "finals", "trial", "expected"),
    [
        ({3: 0.5, 5: 0.7, 8: 0.7}, [], None, "models/trial-00005-epoch-001"),
        ({3: 0.5, 5: 0.7}, [], 3, "models/trial-00003-epoch-001"),
        ({3: 0.5, 5: 0.7}, [(2, 5, 1), (1, 3, 2), (1, 3, 1)], None, "finish/trial-00003-seed-1"),
        ({3: 0.5, 5: 0.7}, [(1, 3, 1), (2, 5, 1)], 5, "finish/trial-00005-seed-1"),
        ({3: 0.5, 5: 0.7}, [(1, 3, 1)], 5, "models/trial-00005-epoch-001"),
    ],
)
def test_the_winners_final_model_is_chosen_or_else_the_best_kept_one(
    kept: dict[int, float],
    finals: Sequence[tuple[int, int, int]],
    trial: int | None,
    expected: str,
    tmp_path: Path,
) -> None:
    _kept_and_final(tmp_path, kept, finals)
    assert chosen_model(tmp_path, trial=trial) == tmp_path / expected


@pytest.mark.parametrize(
    ("kept", "trial", "code", "parts"),
    [
        ({3: 0.5, 5: 0.7}, 4, SearchErrorCode.NO_KEPT_MODEL_OF_TRIAL, ("got 4", "--trial", "3, 5")),
        ({}, None, SearchErrorCode.NO_KEPT_MODEL, ("--set keep_models=1",)),
    ],
)
def test_a_model_that_was_not_kept_is_refused_with_the_way_to_get_one(
    kept: dict[int, float], trial: int | None, code: SearchErrorCode, parts: tuple[str, ...], tmp_path: Path
) -> None:
    _kept_and_final(tmp_path, kept, [])
    with pytest.raises(InputError) as error:
        chosen_model(tmp_path, trial=trial)
    assert error.value.code is code
    assert all(part in str(error.value) for part in (*parts, str(tmp_path)))


def _assert_whole_and_equal(exported: Path, kept: Path) -> None:
    """Compare an exported model, which must need no other file, with the kept one."""
    card, whole = read_card(kept), read_card(exported)
    assert SHARED_BLOCKS not in whole
    assert whole == {key: value for key, value in card.items() if key != SHARED_BLOCKS}
    expected, state = read_tensors(kept, card), load_file(exported / "model.safetensors")
    assert state.keys() == expected.keys()
    assert all(np.array_equal(state[name], value) for name, value in expected.items())


@pytest.fixture(scope="module")
def exported(run: Path, genre_search: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best model of the shared search, exported with ONNX."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    done = genre_search("export", run, folder, "--onnx")
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in done.stdout
    return folder


def test_an_exported_folder_has_the_model_and_a_readme_with_its_scores_and_data(
    exported: Path, run: Path
) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "model.json",
        "model.onnx",
        "model.safetensors",
    ]
    assert [path.name for path in exported.parent.iterdir()] == ["model"]
    winner = chosen_model(run)
    _assert_whole_and_equal(exported, winner)
    text = (exported / "README.md").read_text()
    front_matter = yaml.safe_load(text.split("---")[1])
    assert front_matter["pipeline_tag"] == "audio-classification"
    card, corpus = json.loads((winner / "model.json").read_text()), load_corpus(run / "corpus.parquet")
    scores = " | ".join(f"{card['validation'][name]:.3f}" for name in SCORES)
    parts = {part: len(corpus.part(part)) for part in ("train", "validation", "test")}
    assert f"| validation, {parts['validation']} tracks | {scores} |" in text
    assert f"out of {TRIALS} trials" in text
    assert f" on the {parts['test']} tracks of the test set" in text
    assert ", ".join(f"{count} {split}" for split, count in parts.items()) in text
    assert f"corpus: {corpus.fingerprint}" in text
    assert all(f"\n- {genre}\n" in text for genre in corpus.genres)
    assert str(run.parent) not in text, "the README must not reveal where it was written"


def test_the_readmes_preprocessing_and_onnx_suffice_to_reproduce_a_prediction(
    exported: Path, music: Path
) -> None:
    """Every step of the README, by librosa and ONNX Runtime."""
    file, card = music / "blues" / "blues.00001.wav", json.loads((exported / "model.json").read_text())
    samples, rate = soundfile.read(file, dtype="float32")
    assert rate == 22_050
    power = librosa.feature.melspectrogram(
        y=samples, sr=rate, n_fft=2048, win_length=2048, hop_length=1024, n_mels=64
    )
    mel = librosa.power_to_db(power, ref=np.max, amin=1e-20, top_db=80).astype(np.float16)
    start = (mel.shape[1] - card["segment_frames"]) // 2
    segment = mel[None, None, :, start : start + card["segment_frames"]].astype(np.float32)
    [logits] = _session(exported).run(["logits"], {"mels": segment})
    probabilities = dict(zip(card["genres"], softmax(logits.mean(axis=0)), strict=True))
    assert probabilities == pytest.approx(Model.load(exported).predict(file).probabilities, abs=2e-3)


QUICK, SLOW = (
    ("alexnet",),
    ("densenet121", "resnet34", "vgg16"),
)  # resnet18 is exported from the shared search


@pytest.mark.parametrize("backbone", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in SLOW)])
def test_every_family_has_the_same_logits_in_onnx_for_any_number_of_segments(
    backbone: str, tmp_path: Path
) -> None:
    network = build(
        backbone,
        weights="random",
        n_genres=5,
        frozen_blocks=0,
        image=ToImage(torch.tensor([-40.0]), torch.tensor([15.0])),
        seed=0,
        node_cache=NodeCache(tmp_path, budget_bytes=0),
    ).eval()
    torch.nn.init.normal_(
        network.trainable.get_submodule("head").get_parameter("weight")
    )  # so that logits differ
    card: dict[str, Any] = {
        "genres": [*"abcde"],
        "front_end": asdict(front_end("mel64")),
        "segment_frames": 64,
        "segments_per_track": 10,
        "recipe": asdict(
            Recipe(backbone=backbone, weights="random", frozen_blocks=0, learning_rate=0.1, momentum=0.9)
        ),
    }
    tensors = {name: value.detach().numpy() for name, value in network.flat_state().items()}
    write_model(tmp_path / "m", tensors, card)
    difference = write_onnx(tmp_path / "m")
    session = _session(tmp_path / "m")
    for segments in (1, 3):
        mels = torch.randn(segments, 1, 64, 64) * 15 - 40
        [logits] = session.run(["logits"], {"mels": mels.numpy()})
        with torch.no_grad():
            expected = network(mels).numpy()
        assert expected.std() > 1e-2
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert difference < 1e-4


def test_a_finished_runs_readme_has_the_test_scores_and_their_conditions(run: Path, tmp_path: Path) -> None:
    finished = Path(shutil.copytree(run, tmp_path / "tiny"))
    corpus = make_finish(finished, {(4, 1): 0.51, (4, 2): 0.52, (0, 1): 0.4})
    for trial, seed in ((4, 1), (4, 2), (0, 1)):
        make_final_model(finished, trial, seed)
    exported = export(finished, tmp_path / "out", trial=None, onnx=False)
    assert exported.model == "trial-00004-seed-1"
    text = " ".join((tmp_path / "out" / "README.md").read_text().split())
    scores = " | ".join(["0.510 (0.385 to 0.635)"] * len(SCORES))
    assert f"| test, {len(corpus.part('test'))} tracks | {scores} |" in text
    val_f1 = read_trials(finished).set_index("trial")["val_f1"][4]
    for value in (f"{val_f1:.3f}, the best of {TRIALS} trials", "2 seeds", "0.510 to 0.520", "seed 1"):
        assert value in text
    assert "| validation," not in text


def test_a_folder_with_files_is_refused_and_an_empty_one_filled(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError) as error:
        export(run, tmp_path / "full", trial=None, onnx=False)
    assert error.value.code is SearchErrorCode.EXPORT_FOLDER_NOT_EMPTY
    assert str(tmp_path / "full") in str(error.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(run, tmp_path / "empty", trial=None, onnx=False)
    assert (tmp_path / "empty" / "README.md").exists()


def test_a_failed_export_leaves_nothing(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "tiny"))
    weights = chosen_model(damaged) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError) as error:
        export(damaged, tmp_path / "out" / "model", trial=None, onnx=True)
    assert error.value.code is ErrorCode.MODEL_INCONSISTENT
    assert not [*(tmp_path / "out").iterdir()]


def test_onnx_without_its_packages_is_refused_with_the_command_that_installs_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InputError) as error:
        export(run, tmp_path / "out", trial=None, onnx=True)
    assert error.value.code is ErrorCode.ONNX_NOT_INSTALLED
    assert "onnxscript" in str(error.value)
    assert "pip install 'genre-search[onnx]'" in str(error.value)
    assert not (tmp_path / "out").exists()
