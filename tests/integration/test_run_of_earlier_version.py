"""A run folder written by version 0.1.0 is listed, resumed, reported, finished and exported by the present version.

tests/data/run_of_0_1 was written on the music of the `music` fixture. The driver was killed while trial 3 was running,
which trains the head only, so that its checkpoint of epoch 1 is small. No models were kept.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Done
from conftest import Command
from invariants import check
from without_ray import by_torch, finishes_in_process, searches_in_process

from genre_core.predict import Model
from genre_core.synthetic.styles import GENRES
from search.run.folder import RunFolder
from search.run.tables import read_epochs, read_finish, read_trials

WRITTEN = Path(__file__).parents[1] / "data" / "run_of_0_1"
TRIALS = 4
"""Number of trials in its study; the last one is running."""
INTERRUPTED = 3
CHECKPOINT_EPOCH = 1
EPOCHS = 3

Call = Callable[..., Done]


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    """Searches and finishes train in this process."""
    with searches_in_process(by_torch), finishes_in_process():
        yield


@pytest.fixture(scope="module")
def call(genre_search: Command) -> Call:
    """Run a command that must succeed."""

    def succeed(*arguments: object) -> Done:
        done = genre_search(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    return succeed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder as it was written, which no test changes."""
    return Path(shutil.copytree(WRITTEN, tmp_path_factory.mktemp("earlier") / "music"))


@pytest.fixture(scope="module", params=["epoch on record", "epoch only in the checkpoint"])
def resumed(
    request: pytest.FixtureRequest,
    copy: Path,
    music: Path,
    call: Call,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Another copy, resumed with one more trial and with its music at a new path."""
    run = Path(shutil.copytree(copy, tmp_path_factory.mktemp("resumed") / "music"))
    if request.param == "epoch only in the checkpoint":  # as if the driver had been killed a moment earlier
        _forget_epoch(run)
    call("resume", run, "--trials", TRIALS + 1, "--data", music)
    return run


def _forget_epoch(run: Path) -> None:
    """Remove the epoch of the interrupted trial from the study and the tables."""
    RunFolder(run).epochs_of(INTERRUPTED).unlink()
    *lines, last = RunFolder(run).journal.read_text(encoding="utf-8").splitlines(keepends=True)
    assert json.loads(last).items() >= {"trial_id": INTERRUPTED, "step": CHECKPOINT_EPOCH}.items()
    RunFolder(run).journal.write_text("".join(lines), encoding="utf-8")


def test_the_trials_of_an_earlier_version_are_listed(copy: Path, call: Call) -> None:
    listed = call("results", copy, "--csv").stdout.splitlines()
    states = [row["state"] for row in csv.DictReader(listed)]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED"], "the running trial was not in the table yet"


def test_a_search_of_an_earlier_version_is_resumed_consistently(resumed: Path, music: Path) -> None:
    check(resumed, trials=TRIALS + 1, keep_models=0)
    trials = read_trials(resumed)
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).all()
    assert str(music) in RunFolder(resumed).config.read_text(encoding="utf-8")


def test_ended_trials_of_an_earlier_version_are_unchanged(copy: Path, resumed: Path) -> None:
    ended = [number for number in range(TRIALS) if number != INTERRUPTED]
    for read, columns in ((read_trials, ["trial"]), (read_epochs, ["trial", "epoch"])):
        before, after = (read(run).set_index(columns).loc[ended] for run in (copy, resumed))
        assert before.map(str).to_dict() == after.map(str).to_dict()


def test_an_interrupted_trial_continues_from_the_checkpoint_of_an_earlier_version(
    copy: Path, resumed: Path
) -> None:
    row = read_trials(resumed).set_index("trial").loc[INTERRUPTED]
    assert (row.state, row.attempt, row.repeated_epochs) == ("COMPLETE", 2, 0)
    before, after = (
        read_epochs(run).query(f"trial == {INTERRUPTED}").set_index("epoch") for run in (copy, resumed)
    )
    assert after.index.tolist() == list(range(1, EPOCHS + 1))
    assert after["val_f1"][CHECKPOINT_EPOCH] == before["val_f1"][CHECKPOINT_EPOCH]
    assert after["seconds"][CHECKPOINT_EPOCH] == before["seconds"][CHECKPOINT_EPOCH], (
        "it was not computed again"
    )
    assert (after["attempt"].loc[CHECKPOINT_EPOCH + 1 :] == 2).all()


def test_a_run_of_an_earlier_version_is_reported_finished_and_exported(
    resumed: Path, music: Path, call: Call, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(resumed, tmp_path / "music"))
    call("report", run, "-o", tmp_path / "search.html")
    call("finish", run, "--top", 1, "--seeds", 1)
    [model] = read_finish(run).to_dict("records")
    assert model["trial"] in read_trials(run)["trial"].tolist()
    call("report", run)
    assert len(RunFolder(run).report.read_bytes()) > len((tmp_path / "search.html").read_bytes())
    call("export", run, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert card["trial"] == model["trial"]
    exported = Model.load(tmp_path / "model")
    prediction = exported.predict(next(music.glob("*/*.wav")))
    assert prediction.genre in GENRES
