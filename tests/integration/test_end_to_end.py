"""The study, tables, models and output of a whole search through the command line agree with each other."""

import json
import re
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TRIALS, Command, sets
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from without_ray import by_torch, searches_in_process

from genre_core.audio.mel import front_end
from genre_core.corpus.corpus_table import load_corpus
from genre_core.corpus.spectrogram_store import open_or_build
from genre_core.models.artifact import read_tensors
from genre_core.models.network import ToImage, build
from genre_core.system.disk_cache import NodeCache
from genre_core.training.metrics import confusion_matrix, scores
from search.config.schema import load
from search.run.schemas import SCHEMA_VERSION
from search.run.tables import read_epochs, read_trials


@pytest.fixture(scope="module")
def study(run: Path) -> optuna.Study:
    """The study of the search, opened by Optuna alone."""
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return optuna.load_study(study_name="tiny", storage=storage)


def test_the_study_and_the_trials_table_agree_on_states_parameters_and_values(
    run: Path, study: optuna.Study
) -> None:
    trials = read_trials(run).set_index("trial")
    assert list(trials.index) == [trial.number for trial in study.trials] == list(range(TRIALS))
    assert trials["state"].tolist() == [trial.state.name for trial in study.trials]
    assert (trials["state"] == "PRUNED").any()
    for trial in study.trials:
        row = trials.loc[trial.number]
        assert row.learning_rate == trial.params["learning_rate"]
        assert row.momentum == trial.params["momentum"]
        assert row.frozen_blocks == trial.params[f"frozen_blocks_{row.backbone}"]
        if row.state == "COMPLETE":
            assert row.val_f1 == trial.value == max(trial.intermediate_values.values())
            assert trial.user_attrs["best_epoch"] == row.best_epoch


def test_the_study_and_the_epochs_table_agree_including_the_epoch_that_was_pruned(
    run: Path, study: optuna.Study
) -> None:
    epochs = read_epochs(run)
    for trial in study.trials:
        own = epochs[epochs["trial"] == trial.number].set_index("epoch")["val_f1"]
        assert own.to_dict() == trial.intermediate_values
        if trial.state == optuna.trial.TrialState.PRUNED:
            last = max(own.index)
            assert trial.last_step == last < 4
            assert trial.value == own[last]


def test_scores_follow_from_confusions_and_trials_from_their_epochs(run: Path) -> None:
    trials, epochs = read_trials(run), read_epochs(run)
    assert not epochs.duplicated(["trial", "epoch"]).any()
    for _, epoch in epochs.iterrows():
        confusion = np.stack(epoch.confusion)
        expected = scores(confusion)
        assert (epoch.val_f1, epoch.val_accuracy) == (expected.f1, expected.accuracy)
        assert np.allclose(epoch.f1_per_genre, expected.f1_per_genre)
    best = epochs.loc[epochs.groupby("trial")["val_f1"].idxmax()].set_index("trial")
    assert trials.sort_values("trial")["val_loss"].tolist() == best.sort_index()["val_loss"].tolist()
    assert (trials["finished"] > trials["started"]).all()
    assert trials["trainable_parameters"].gt(0).all()
    assert trials["error"].isna().all()


def test_files_carry_their_schema_version_and_columns_their_units(run: Path) -> None:
    for file in [run / "results" / "trials.parquet", *(run / "results" / "epochs").iterdir()]:
        schema = pq.read_schema(file)
        assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()
        assert schema.field("val_loss").metadata == {b"unit": b"nats"}


def test_a_run_holds_its_configuration_and_corpus_and_no_incomplete_file(run: Path, music: Path) -> None:
    config = load(run / "config.yaml", {})
    assert config.data == str(music)
    assert config.provenance is not None
    corpus = load_corpus(run / "corpus.parquet")
    assert config.provenance["corpus"] == corpus.fingerprint
    assert config.provenance["versions"]["torch"] == version("torch")
    assert sorted(path.name for path in run.iterdir()) == [
        ".driver",
        "config.yaml",
        "corpus.parquet",
        "models",
        "results",
        "study.journal",
    ]
    assert not [path for path in run.rglob("*") if "partial" in path.name]


def test_a_kept_model_reproduces_the_scores_of_its_trial(run: Path, cache: Path) -> None:
    trials = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True])
    kept = sorted((run / "models").glob("trial-*"))
    assert {int(path.name.split("-")[1]) for path in kept} == set(trials["trial"].head(2))
    card = json.loads((kept[0] / "model.json").read_text())
    state = {name: torch.from_numpy(value) for name, value in read_tensors(kept[0], card).items()}
    row = trials.set_index("trial").loc[card["trial"]]
    network = build(
        card["recipe"]["backbone"],
        weights="random",
        n_genres=len(card["genres"]),
        frozen_blocks=0,
        image=ToImage(state.pop("image.mean"), state.pop("image.std")),
        seed=123,
        node_cache=NodeCache(cache, budget_bytes=0),
    ).eval()
    network.trainable.load_state_dict(state)
    corpus = load_corpus(run / "corpus.parquet")
    store = open_or_build(corpus.usable, front_end("mel64"), cache=cache, workers=1)
    segments = store.segments(
        corpus.part("validation"),
        genres=card["genres"],
        segment_frames=card["segment_frames"],
        segments_per_track=card["segments_per_track"],
    ).to(torch.device("cpu"))
    assert len(segments) == segments.n_tracks, "one segment in 3.2 s"
    with torch.no_grad():
        probabilities = network(segments.mels_of(torch.arange(len(segments)))).softmax(dim=1)
    np.testing.assert_allclose(card["validation_probabilities"], probabilities, rtol=1e-4)
    predicted = probabilities.argmax(dim=1).numpy()
    confusion = confusion_matrix(segments.genre.numpy(), predicted, len(card["genres"]))
    assert scores(confusion).f1 == pytest.approx(row.val_f1)
    assert card["validation"]["f1"] == row.val_f1
    assert {part: len(ids) for part, ids in card["split"].items()} == {
        part: len(corpus.part(part)) for part in ("train", "validation", "test")
    }


def test_the_leaderboard_is_filtered_and_written_as_csv(run: Path, genre_search: Command) -> None:
    shown = genre_search("results", run)
    assert f"{TRIALS} trials: " in shown.stdout
    assert "pruned" in shown.stdout
    table = genre_search("results", run, "--csv", "--state", "pruned")
    lines = table.stdout.splitlines()
    assert lines[0].startswith("study,trial,state,backbone")
    assert lines[1:]
    assert all(",PRUNED," in line for line in lines[1:])


def test_epoch_costs_are_shown_by_backbone_and_frozen_depth(run: Path, genre_search: Command) -> None:
    trials = read_trials(run)
    lines = genre_search("results", run, "--costs").stdout.splitlines()
    assert len(lines) - 2 == trials[["backbone", "frozen_blocks"]].drop_duplicates().shape[0]
    first = trials[trials["frozen_blocks"] == trials["frozen_blocks"].min()]
    seconds = first["training_seconds"].sum() / first["epochs"].sum()
    assert f"{seconds:.3g}" in lines[1].split()
    assert (trials["epoch_seconds_expected"] > 0).all()
    assert all(f"{count} {kind}" in lines[-1] for kind, count in trials["features"].value_counts().items())


def test_the_command_printed_by_best_reproduces_the_winner(
    run: Path, genre_search: Command, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run, tmp_path / "copy"))  # because best writes a file into it
    shown = genre_search("best", run)
    command = shown.stdout.strip().splitlines()[-1].replace("genre-search ", "")
    with searches_in_process(by_torch):
        repeated = genre_search(*shlex.split(command), "--name", "again", "--runs", tmp_path)
    assert repeated.returncode == 0, repeated.stderr
    assert command == f"run --config {run / 'winner.yaml'}"
    winner = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True]).iloc[0]
    epochs = read_epochs(run)
    curve = epochs[epochs["trial"] == winner.trial]["val_loss"].tolist()
    assert read_epochs(tmp_path / "again")["val_loss"].tolist()[: len(curve)] == curve


def test_a_name_that_exists_is_refused(run: Path, music: Path, genre_search: Command) -> None:
    refused = genre_search("run", "--data", music, "--runs", run.parent, "--name", "tiny", *sets())
    assert refused.returncode == 2
    assert str(run) in refused.stderr
    assert "--name" in refused.stderr
    assert "genre-search resume" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_next_dry_run_knows_the_costs_of_the_search(
    run: Path, music: Path, genre_search: Command, tmp_path: Path
) -> None:
    options = ("--data", music, "--runs", tmp_path / "runs", "--trials", TRIALS)
    done = genre_search("run", *options, "--dry-run", *sets(training__epochs=4))
    assert done.returncode == 0, done.stderr
    measured = re.search(r"Costs on cpu: (\d) of 3 pairs measured", done.stdout)
    assert measured, done.stdout
    assert int(measured[1]) >= read_trials(run)["frozen_blocks"].nunique()
    assert f"Forecast of {TRIALS} trials: " in done.stdout
    assert not (tmp_path / "runs").exists()
