"""An exported model: the right one, whole, honestly described, and the same in ONNX Runtime as in PyTorch."""

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
from scipy.special import softmax

from genre_core.audio.mel import front_end
from genre_core.corpus.tracks import load_corpus
from genre_core.errors import InputError
from genre_core.models.network import ToImage, build
from genre_core.onnx_export import write_onnx
from genre_core.predict import Model
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from search.export.chosen_model import chosen
from search.export.export import export
from search.run.model_store import final_model, write_model
from search.run.tables import write_finish, write_test_tracks

TENSORS = {"head.bias": np.zeros(2, np.float32)}
SCORES = ("accuracy", "precision", "recall", "f1")


def _session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def _finish(run: Path, *models: tuple[int, int, int]) -> None:
    """Final models of (rank, trial, seed), their tables written as a finish does; the winner is a kept model."""
    kept = min((run / "models").iterdir())
    card = json.loads((kept / "model.json").read_text())
    for _, trial, seed in models:
        final = final_model(run, trial, seed)
        shutil.copytree(kept, final)
        own = {
            "trial": trial,
            "recipe": card["recipe"] | {"seed": seed},
            "trained_on": ["train", "validation"],
        }
        del own["recipe"]
        changed = {name: value for name, value in card.items() if not name.startswith("validation")} | own
        changed["recipe"] = card["recipe"] | {"seed": seed}
        (final / "model.json").write_text(json.dumps(changed))
    ends = {"": 0.0, "_low": -0.125, "_high": 0.125}
    write_test_tracks(run, [])
    write_finish(
        run,
        [
            {"rank": rank, "trial": trial, "seed": seed, "epochs": 3, "val_f1": 0.75}
            | {f"test_{name}{end}": 0.5 + off + seed / 100 for name in SCORES for end, off in ends.items()}
            for rank, trial, seed in models
        ],
    )


@pytest.mark.parametrize(
    ("kept", "finals", "trial", "winner"),
    [
        ({3: 0.5, 5: 0.7, 8: 0.7}, [], None, "models/trial-00005-epoch-001"),
        ({3: 0.5, 5: 0.7}, [], 3, "models/trial-00003-epoch-001"),
        ({3: 0.5, 5: 0.7}, [(2, 5, 1), (1, 3, 2), (1, 3, 1)], None, "finish/trial-00003-seed-1"),
        ({3: 0.5, 5: 0.7}, [(1, 3, 1), (2, 5, 1)], 5, "finish/trial-00005-seed-1"),
        ({3: 0.5, 5: 0.7}, [(1, 3, 1)], 5, "models/trial-00005-epoch-001"),
        ({3: 0.5, 5: 0.7}, [], 4, "keeps none of trial 4, only of 3, 5; give one of these"),
        ({}, [], None, "keeps none of any trial; set keep_models"),
    ],
)
def test_the_winner_is_the_first_final_model_else_the_best_that_was_kept(
    kept: dict[int, float],
    finals: Sequence[tuple[int, int, int]],
    trial: int | None,
    winner: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "results").mkdir()
    for number, f1 in kept.items():
        card = {"trial": number, "validation": {"f1": f1}}
        write_model(tmp_path / "models" / f"trial-{number:05d}-epoch-001", TENSORS, card)
    for _, number, seed in finals:
        write_model(final_model(tmp_path, number, seed), TENSORS, {"trial": number})
    if finals:
        write_finish(tmp_path, [{"rank": rank, "trial": n, "seed": seed} for rank, n, seed in finals])
    if "keeps none" in winner:
        with pytest.raises(InputError, match=winner):
            chosen(tmp_path, trial=trial)
    else:
        assert chosen(tmp_path, trial=trial) == tmp_path / winner


@pytest.fixture(scope="module")
def exported(run: Path, genre_search: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared search's winner, with ONNX."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    done = genre_search("export", run, folder, "--onnx")
    assert done.returncode == 0, done.stderr
    assert "model.onnx: probabilities differ from PyTorch's by " in done.stdout
    return folder


def test_an_exported_folder_is_whole_and_says_what_it_is(exported: Path, run: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "model.json",
        "model.onnx",
        "model.safetensors",
    ]
    assert [path.name for path in exported.parent.iterdir()] == ["model"]
    winner = chosen(run)
    for name in ("model.json", "model.safetensors"):
        assert (exported / name).read_bytes() == (winner / name).read_bytes()
    text = (exported / "README.md").read_text()
    front_matter = yaml.safe_load(text.split("---")[1])
    assert front_matter["pipeline_tag"] == "audio-classification"
    card, corpus = json.loads((winner / "model.json").read_text()), load_corpus(run / "corpus.parquet")
    scores = " | ".join(f"{card['validation'][name]:.3f}" for name in SCORES)
    parts = {part: len(corpus.part(part)) for part in ("train", "validation", "test")}
    assert f"| validation, {parts['validation']} tracks | {scores} |" in text
    assert f"out of {TRIALS} trials: it looks better here than it\nis" in text
    assert ", ".join(f"{count} {part}" for part, count in parts.items()) in text
    assert f"corpus: {corpus.fingerprint}" in text
    assert all(f"\n- {genre}\n" in text for genre in corpus.genres)
    assert str(run.parent) not in text, "whoever reads it need not know where it was made"


def test_the_readmes_front_end_and_onnx_are_all_that_another_program_needs(
    exported: Path, music: Path
) -> None:
    """What the README says, step by step, by librosa and ONNX Runtime."""
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
    said = dict(zip(card["genres"], softmax(logits.mean(axis=0)), strict=True))
    assert said == pytest.approx(Model.load(exported).predict(file).probabilities, abs=2e-3)


QUICK, SLOW = ("alexnet",), ("densenet121", "resnet34", "vgg16")  # resnet18 is what the search exports


@pytest.mark.parametrize("backbone", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in SLOW)])
def test_every_family_says_the_same_in_onnx_for_any_number_of_segments(backbone: str, tmp_path: Path) -> None:
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


def test_a_finished_runs_readme_tells_the_test_scores_and_how_they_came_about(
    run: Path, tmp_path: Path
) -> None:
    finished = Path(shutil.copytree(run, tmp_path / "tiny"))
    _finish(finished, (1, 4, 1), (1, 4, 2), (2, 0, 1))
    exported = export(finished, tmp_path / "out", trial=None, onnx=False)
    assert exported.model == "trial-00004-seed-1"
    text = (tmp_path / "out" / "README.md").read_text()
    scores = " | ".join(["0.510 (0.385 to 0.635)"] * len(SCORES))
    tests = len(load_corpus(run / "corpus.parquet").part("test"))
    assert f"| test, {tests} tracks | {scores} |" in text
    assert "chosen by its validation F1 of 0.750, the best of\n8 trials" in text
    assert "Over the seeds, 2 of them, its test F1 goes\nfrom 0.510 to 0.520" in text
    assert "looks better" not in text


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_filled(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="DIR must be new or empty, but got "):
        export(run, tmp_path / "full", trial=None, onnx=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(run, tmp_path / "empty", trial=None, onnx=False)
    assert (tmp_path / "empty" / "README.md").exists()


def test_an_export_that_fails_leaves_nothing(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "tiny"))
    weights = chosen(damaged) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="must belong together and be whole"):
        export(damaged, tmp_path / "out" / "model", trial=None, onnx=True)
    assert not [*(tmp_path / "out").iterdir()]


def test_onnx_without_its_packages_names_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"--onnx needs onnxscript, .*; pip install 'genre-search\[onnx\]'"):
        export(run, tmp_path / "out", trial=None, onnx=True)
    assert not (tmp_path / "out").exists()
