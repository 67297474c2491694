"""A finished search: its best trained anew on train and validation, and the test part read once, after that."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import noise
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Command
from rich.console import Console
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)
from without_ray import finishes_in_process
from workers import dying_train, hanging_train

from genre_core.audio.mel import front_end
from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.spectrogram_store import open_or_build
from genre_core.corpus.tracks import Corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.models.artifact import read_tensors
from genre_core.predict import Model
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import FineTune
from genre_core.training.segments import Segments
from search.config.schema import load
from search.display.progress import Display
from search.errors import SearchErrorCode
from search.evaluate import final_worker
from search.evaluate.finish import FinishFailed, finish
from search.evaluate.verdict import configurations
from search.report.finished import verdict
from search.run import ranking
from search.run.commands import command
from search.run.lock import driving
from search.run.schemas import FINISH, SCHEMA_VERSION, TEST_TRACKS
from search.run.tables import read_finish, read_test_tracks, read_trials


class CutOff(Display):
    """A display during which Ctrl-C is pressed when the first model is reported."""

    def say(self, text: str) -> None:
        super().say(text)
        if " epochs " in text:
            raise KeyboardInterrupt


def _finish(
    folder: Path,
    cache: Path,
    *,
    reporter: type[Display] = Display,
    change: dict[str, Any] | None = None,
    **asked: Any,
) -> str:
    """Finishes a run, and gives what was said meanwhile."""
    said = StringIO()
    shown = reporter(Console(file=said, width=160))
    finish(load(folder / "config.yaml", change or {}), folder=folder, cache=cache, reporter=shown, **asked)
    return said.getvalue()


def _moments(folder: Path, files: str = "*") -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob(files) if path.is_file()}


@pytest.fixture(scope="module")
def finished(run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shared search, its best two finished with two seeds each; tests leave it as it is."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("finished") / "tiny"))
    with finishes_in_process():
        said = _finish(folder, cache, top=2, seeds=2)
    assert said.count(" epochs ") == 4
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A search of its own to finish, or to fail at it."""
    return Path(shutil.copytree(run, tmp_path / "tiny"))


def test_nothing_is_known_about_the_test_set_before_finish(run: Path) -> None:
    assert read_finish(run).empty
    assert read_test_tracks(run).empty
    test = {track.track_id for track in load_corpus(run / "corpus.parquet").part("test")}
    for file in (run / "results").rglob("*.parquet"):
        assert not [name for name in pq.read_schema(file).names if "test" in name]
    for file in (run / "models").rglob("model.json"):
        card = json.loads(file.read_text())
        assert set(card["split"].pop("test")) == test, "which tracks are in it, and no more"
        assert not [track for track in test if track in json.dumps(card)]


def test_the_best_configurations_are_trained_with_new_seeds_and_not_on_test_tracks(
    finished: Path,
) -> None:
    ranked = ranking.select(read_trials(finished)).head(2)
    rows = read_finish(finished)
    assert rows["rank"].tolist() == [1, 1, 2, 2]
    assert rows["trial"].tolist() == np.repeat(ranked["trial"], 2).tolist()
    assert rows["seed"].tolist() == [1, 2, 1, 2]
    assert rows["epochs"].tolist() == np.repeat(ranked["best_epoch"], 2).tolist()
    assert rows["val_f1"].tolist() == np.repeat(ranked["val_f1"], 2).tolist()
    test = {track.track_id for track in load_corpus(finished / "corpus.parquet").part("test")}
    kept = json.loads(next((finished / "models").rglob("model.json")).read_text())
    for row in rows.itertuples():
        card = json.loads((finished / f"finish/trial-{row.trial:05d}-seed-{row.seed}/model.json").read_text())
        assert card["trained_on"] == ["train", "validation"]
        assert not test & {track for part in card["trained_on"] for track in card["split"][part]}
        assert kept.keys() - card.keys() == {"validation", "validation_probabilities"}
        assert card["recipe"]["epochs"] == 4, "the learning rate follows the search's schedule"


def test_the_predictions_for_the_test_tracks_equal_those_for_their_audio_files(
    finished: Path,
) -> None:
    corpus, said = load_corpus(finished / "corpus.parquet"), read_test_tracks(finished)
    assert list(said.columns) == TEST_TRACKS.names
    for (trial, seed), own in said.groupby(["trial", "seed"]):
        assert own["track_id"].tolist() == [track.track_id for track in corpus.part("test")]
        assert own["genre"].tolist() == [track.genre for track in corpus.part("test")]
        model = Model.load(finished / f"finish/trial-{trial:05d}-seed-{seed}", device="cpu")
        for row, track in list(zip(own.itertuples(), corpus.part("test"), strict=True))[::4]:
            heard = model.predict(track.path)
            assert row.predicted == heard.genre
            np.testing.assert_allclose(
                np.array(row.probabilities), list(heard.probabilities.values()), atol=1e-4
            )


def test_scores_equal_those_of_scikit_learn_and_are_within_their_intervals(finished: Path) -> None:
    rows, said = read_finish(finished), read_test_tracks(finished)
    genres = list(load_corpus(finished / "corpus.parquet").genres)
    assert list(rows.columns) == FINISH.names
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0.0, "labels": genres}
    for _, row in rows.iterrows():
        own = said[(said["trial"] == row.trial) & (said["seed"] == row.seed)]
        truth, predicted = own["genre"], own["predicted"]
        probabilities = np.stack(own["probabilities"])
        expected = {
            "accuracy": accuracy_score(truth, predicted),
            "precision": precision_score(truth, predicted, **macro),
            "recall": recall_score(truth, predicted, **macro),
            "f1": f1_score(truth, predicted, **macro),
            "loss": log_loss(truth, probabilities / probabilities.sum(axis=1, keepdims=True), labels=genres),
        }
        assert {name: row[f"test_{name}"] for name in expected} == pytest.approx(expected)
        assert row.f1_per_genre == pytest.approx(f1_score(truth, predicted, **macro | {"average": None}))
        assert np.stack(row.confusion).tolist() == confusion_matrix(truth, predicted, labels=genres).tolist()
        for name in ("accuracy", "precision", "recall", "f1"):
            assert row[f"test_{name}_low"] <= row[f"test_{name}"] <= row[f"test_{name}_high"]
    schema = pq.read_schema(finished / "results" / "finish.parquet")
    assert schema.field("test_loss").metadata == {b"unit": b"nats"}
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()


def test_a_final_model_equals_a_plain_fine_tune_on_train_and_validation(finished: Path, cache: Path) -> None:
    place = sorted((finished / "finish").glob("trial-*"))[0]
    card = json.loads((place / "model.json").read_text())
    segments = _both_parts(finished, card, cache)
    recipe = Recipe(**card["recipe"])
    nothing_kept = NodeCache(cache, budget_bytes=0)
    network = noise.network(recipe, nothing_kept, segments)
    # an EpochResult is made here, and thrown away: to score or not to score changes nothing
    fine_tune = FineTune(network, recipe, train=segments, validation=segments, node_cache=nothing_kept)
    for _ in range(card["epoch"]):
        fine_tune.epoch()
    expected = network.flat_state()
    state = {name: torch.from_numpy(value) for name, value in read_tensors(place, card).items()}
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor.reshape(expected[name].shape), expected[name]), name


def _both_parts(run: Path, card: dict[str, Any], cache: Path) -> Segments:
    corpus = load_corpus(run / "corpus.parquet")
    store = open_or_build(corpus.usable, front_end("mel64"), cache=cache, workers=1)
    return store.segments(
        [*corpus.part("train"), *corpus.part("validation")],
        genres=corpus.genres,
        segment_frames=card["segment_frames"],
        segments_per_track=card["segments_per_track"],
    ).to(torch.device("cpu"))


def test_a_finished_search_is_not_finished_again(finished: Path, cache: Path) -> None:
    before = _moments(finished)
    assert _finish(finished, cache) == _finish(finished, cache, top=2, seeds=2) == ""
    options: list[tuple[str, Any]] = [("top", 3), ("seeds", 1)]
    for option, asked in options:
        with pytest.raises(InputError) as refused:
            _finish(finished, cache, **{option: asked})
        assert refused.value.code is SearchErrorCode.FINISHED_DIFFERENTLY
        assert all(
            part in str(refused.value) for part in (f"--{option} must be 2", f"got {asked}", str(finished))
        )
    with pytest.raises(InputError) as refused:
        _finish(finished, cache, data=finished / "nowhere")
    assert refused.value.code is ErrorCode.CORPUS_NOT_FOUND
    assert "nowhere" in str(refused.value)
    before.pop(finished / ".driver", None)
    assert before.items() <= _moments(finished).items()


@pytest.fixture
def without_ray() -> Iterator[None]:
    """Models are trained in this process."""
    with finishes_in_process():
        yield


@pytest.mark.usefixtures("without_ray")
def test_an_interrupted_finish_continues_with_the_missing_models(copy: Path, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _finish(copy, cache, reporter=CutOff, top=2, seeds=1)
    assert len(first := _moments(copy / "finish", "model.*")) == 2, "the tensors and the card of one model"
    assert read_test_tracks(copy).empty
    assert _finish(copy, cache, top=2, seeds=1).count(" epochs ") == 1
    after = _moments(copy / "finish", "model.*")
    assert len(after) == 4
    assert first.items() <= after.items()

    rows, said = read_finish(copy), copy / "results" / "test_tracks.parquet"
    (copy / "results" / "finish.parquet").unlink()
    read = said.stat().st_mtime_ns
    assert _finish(copy, cache) == ""
    assert read_finish(copy).equals(rows)
    assert said.stat().st_mtime_ns == read


@pytest.mark.usefixtures("without_ray")
def test_a_model_of_a_trial_that_has_changed_since_is_trained_again(copy: Path, cache: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _finish(copy, cache, reporter=CutOff, top=1, seeds=2)
    [card] = (copy / "finish").rglob("model.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"epoch": 99}))
    assert _finish(copy, cache, top=1, seeds=2).count(" epochs ") == 2


@pytest.mark.usefixtures("without_ray")
def test_all_configurations_are_used_if_top_exceeds_their_number(copy: Path, cache: Path) -> None:
    trials = pq.read_table(copy / "results" / "trials.parquet").slice(0, 1)
    pq.write_table(trials, copy / "results" / "trials.parquet")
    said = _finish(copy, cache, top=5, seeds=1)
    assert any("--top 5" in line and " 1 " in line for line in said.splitlines())
    assert said.count(" epochs ") == 1
    assert _finish(copy, cache, top=5) == ""
    [row] = configurations(
        read_finish(copy), read_test_tracks(copy), load_corpus(copy / "corpus.parquet").genres
    ).to_dict("records")
    assert row["test_f1_sd"] is None, "one seed has no spread"


def test_a_search_without_a_scored_trial_cannot_be_finished(copy: Path, cache: Path) -> None:
    (copy / "results" / "trials.parquet").unlink()
    with pytest.raises(InputError) as refused:
        _finish(copy, cache)
    assert refused.value.code is SearchErrorCode.NO_SCORED_TRIAL
    assert command("results", copy) in str(refused.value)


def test_finishing_an_interrupted_search_names_the_command_that_completes_it(copy: Path, cache: Path) -> None:
    table = pq.read_table(copy / "results" / "trials.parquet")
    *rows, last = table.to_pylist()
    last.update(state="RUNNING", finished=None)
    pq.write_table(
        pa.Table.from_pylist([*rows, last], schema=table.schema), copy / "results" / "trials.parquet"
    )
    said = StringIO()
    config = load(copy / "config.yaml", {"cpus_per_trial": 10_000})
    with pytest.raises(InputError):  # before anything is trained
        finish(config, folder=copy, cache=cache, reporter=Display(Console(file=said, width=400)))
    assert [
        line for line in said.getvalue().splitlines() if "1 trial" in line and command("resume", copy) in line
    ]


def test_a_search_without_a_test_set_cannot_be_finished(copy: Path, cache: Path) -> None:
    corpus = load_corpus(copy / "corpus.parquet")
    write_corpus(Corpus(tuple(t for t in corpus.tracks if t.split != "test")), copy / "corpus.parquet")
    with pytest.raises(InputError) as refused:
        _finish(copy, cache)
    assert refused.value.code is SearchErrorCode.NO_TEST_SET
    assert str(copy / "corpus.parquet") in str(refused.value)


def test_a_running_search_cannot_be_finished(copy: Path, cache: Path) -> None:
    with driving(copy), pytest.raises(InputError) as refused:
        _finish(copy, cache)
    assert refused.value.code is SearchErrorCode.RUN_IS_DRIVEN
    assert str(os.getpid()) in str(refused.value)
    assert not (copy / "finish").exists()


@pytest.mark.usefixtures("small_ray")
def test_a_dead_worker_is_replaced(
    copy: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_worker, "train", dying_train(tmp_path / "died"))
    assert _finish(copy, cache, top=1, seeds=1).count(" epochs ") == 1
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("small_ray")
def test_a_model_whose_worker_keeps_dying_is_told_of_and_the_test_part_stays_unread(
    copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_worker, "train", hanging_train)
    with pytest.raises(FinishFailed, match=r"trial \d with seed 1 .* died 2 times.*epoch_limit, 0\.2 s"):
        _finish(copy, cache, change={"epoch_limit": "0.2s", "retries": 1}, top=1, seeds=1)
    assert read_test_tracks(copy).empty


def test_the_verdict_gives_means_spread_and_intervals_over_seeds_and_says_what_is_no_longer_honest(
    finished: Path,
) -> None:
    rows, screen = read_finish(finished), StringIO()
    for part in verdict(finished):
        Console(file=screen, width=200).print(part, soft_wrap=True)
    text, own = screen.getvalue(), rows[rows["rank"] == 1]["test_f1"]
    answer, promise = text.splitlines()[:2]
    assert f"trial {rows['trial'][0]}: resnet18" in answer
    assert f"{own.mean():.3f}" in answer
    assert f"{rows['val_f1'][0]:.3f}" in promise
    for number in (own.mean(), own.std(), own.min(), own.max()):
        assert f"{number:.3f}" in text
    titles, first = (line.split() for line in text.splitlines()[3:5])
    assert titles[:2] == ["trial", "backbone"]
    assert first[:2] == [str(rows["trial"][0]), "resnet18"]
    assert f"{own.mean():.3f}" in first
    assert "seeds 1, 2 for each" in text
    assert "2000 resamples" in text
    for genre, f1 in zip(
        load_corpus(finished / "corpus.parquet").genres,
        np.stack(rows[rows["rank"] == 1]["f1_per_genre"].tolist()).mean(axis=0),
        strict=True,
    ):
        assert any(line.split()[:2] == [genre, f"{f1:.3f}"] for line in text.splitlines())


def test_the_command_shows_a_finished_search_and_the_next_commands(
    finished: Path, genre_search: Command, tmp_path: Path
) -> None:
    shown = genre_search("finish", finished)
    assert shown.returncode == 0, shown.stderr
    assert str(finished) in shown.stdout
    assert shown.stdout.splitlines()[-2:] == [
        f"genre-search report {finished}",
        f"genre-search export {finished}",
    ]
    refused = genre_search("finish", tmp_path)
    assert refused.returncode == 2
    assert str(tmp_path) in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(("setting", "other"), [("head_init", "probe"), ("optimizer", "adamw")])
def test_a_final_model_of_a_version_without_a_setting_has_its_default(setting: str, other: str) -> None:
    recipe = noise.RECIPE
    older = {name: value for name, value in asdict(recipe).items() if name != setting}
    card = {"trial": 3, "epoch": 2, "recipe": older}
    model = final_worker.FinalModel(trial=3, epochs=2, recipe=recipe)
    assert model.is_of(card)
    changes: dict[str, Any] = {setting: other}
    assert not replace(model, recipe=replace(recipe, **changes)).is_of(card)
