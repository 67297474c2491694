"""A run keeps its identity and results when its folder is renamed, moved, copied or damaged."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from invariants import check
from made_runs import SETTINGS, Quiet, make_run, resume
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from genre_core.errors import InputError
from search.config.schema import load
from search.config.space import FROZEN_SHARE, depth_in
from search.errors import SearchErrorCode
from search.run.identity import read_provenance
from search.run.tables import read_epochs, read_trials, require_new
from search.study.journal import own_trials
from search.tune.search import mirrored

CURVES = ((0.2, 0.5, 0.4), (0.3, 0.1), (0.6, 0.7, 0.8), (), (0.15,))
"""COMPLETE, PRUNED, COMPLETE, FAIL, cut off by the time budget."""


def _id(run: Path) -> Any:
    return read_provenance(run)["run_id"]


def _content(run: Path) -> dict[str, Any]:
    """Everything that must survive: rows without the run's name, epochs, model files and the study."""
    rows = read_trials(run).drop(columns=["study", "finished"]).astype(object)
    return {
        "trials": rows.where(rows.notna(), None).to_dict("records"),
        "epochs": read_epochs(run).drop(columns=["f1_per_genre", "confusion"]).to_dict("records"),
        "models": sorted(path.name for path in (run / "models").iterdir()),
        "study": [
            (t.number, t.state.name, _settings(t.params), t.value, t.intermediate_values)
            for t in own_trials(run)
        ],
    }


def _settings(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a trial with the frozen blocks in place of their share, of which the tables know no more."""
    return {name: value for name, value in params.items() if name != FROZEN_SHARE} | {
        "frozen_blocks": depth_in(params, params["backbone"])
    }


def _studies(run: Path) -> list[str]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return [study.study_name for study in storage.get_all_studies()]


def _renamed(run: Path) -> Path:
    return run.rename(run.with_name("other name"))


def _moved(run: Path) -> Path:
    (run.parent / "elsewhere").mkdir()
    return Path(shutil.move(run, run.parent / "elsewhere" / "r"))


def _moved_across_disks(run: Path) -> Path:
    copy = Path(shutil.copytree(run, run.parent / "elsewhere" / "r"))
    shutil.rmtree(run)
    return copy


def _linked(run: Path) -> Path:
    (link := run.with_name("link")).symlink_to(run, target_is_directory=True)
    return link


@pytest.mark.parametrize("change", [_renamed, _moved, _moved_across_disks, _linked])
def test_a_run_at_another_path_is_the_same_run(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    run = make_run(tmp_path / "r", CURVES)
    before, identity = _content(run), _id(run)
    there = change(run)
    said = resume(there)
    assert str(run) not in " ".join(said), "not a copy"
    assert _content(there) == before
    assert _id(there) == identity
    assert len(_studies(there)) == 1
    assert not (there / "unclaimed").exists()
    assert set(read_trials(there)["study"]) == {there.resolve().name}
    check(there.resolve(), trials=5, keep_models=4)


def test_a_run_mounted_at_a_second_path_is_the_same_run(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount anything")
    run, place = make_run(tmp_path / "r", CURVES), tmp_path / "mounted"
    place.mkdir()
    before, identity = _content(run), _id(run)
    code = (
        "import sys; from pathlib import Path; from made_runs import resume; print(resume(Path(sys.argv[1])))"
    )
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(run), str(place), sys.executable, code]
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    assert str(place) in done.stdout
    assert str(run) not in done.stdout, "not a copy"
    assert (_content(run), _id(run)) == (before, identity)
    assert read_provenance(run)["folder"] == str(place)


@pytest.mark.parametrize("copy_with", ["copy", "hard links", "symbolic links"])
def test_a_copy_becomes_a_run_of_its_own_and_the_original_is_unchanged(
    tmp_path: Path, copy_with: str
) -> None:
    run = make_run(tmp_path / "r", CURVES)
    before, identity = _content(run), _id(run)
    how: Any = {"copy": shutil.copy2, "hard links": os.link, "symbolic links": os.symlink}[copy_with]
    copy = Path(shutil.copytree(run, tmp_path / "s", copy_function=how))
    said = resume(copy)
    assert [line for line in said if str(run) in line and str(copy) in line]
    assert _id(copy) != identity
    assert str(run) not in " ".join(resume(copy)), "reported once"
    _add_a_trial(copy)
    assert len(own_trials(copy)) == 6
    assert (_content(run), _id(run)) == (before, identity)
    resume(run)
    assert (_content(run), _id(run)) == (before, identity)


def test_a_copy_whose_original_is_gone_is_the_same_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    shutil.copytree(run, tmp_path / "s")
    shutil.rmtree(run)
    identity = _id(tmp_path / "s")
    resume(tmp_path / "s")
    assert _id(tmp_path / "s") == identity


def test_a_run_created_by_a_version_without_ids_gets_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"provenance": {"corpus": "c"}}))
    before = _content(run)
    there = _renamed(run)
    resume(there)
    assert len(_id(there)) == 32
    assert read_provenance(there)["corpus"] == "c"
    assert _content(there) == before


@pytest.mark.parametrize("how", ["gone", "empty", "half a line"])
@pytest.mark.parametrize("running", [False, True])
def test_a_lost_journal_is_rebuilt_from_the_tables(tmp_path: Path, how: str, running: bool) -> None:
    curves = (*CURVES, (0.4, 0.45)) if running else CURVES
    run = make_run(tmp_path / "r", curves, running=running)
    before = _content(run)
    journal = run / "study.journal"
    if how == "gone":
        journal.unlink()
    else:
        journal.write_text({"empty": "", "half a line": '{"op_code": 0, "work'}[how])
    screen = Quiet()
    config = load(run / "config.yaml", {})
    if running:
        with pytest.raises(InputError):  # made_runs has no corpus to resume with
            _resume_into(screen, run, config)
    else:
        _resume_into(screen, run, config)
    assert [line for line in screen.lines if str(journal) in line and f"{len(curves)} trials" in line]
    assert _content(run)["study"] == before["study"]
    assert _content(run) == before
    assert own_trials(run)[3].user_attrs["error"] == "Diverged: its loss is not finite"
    assert own_trials(run)[4].user_attrs["stopped"] == "time budget"


def _resume_into(screen: Quiet, run: Path, config: Any) -> None:
    from search.tune import search

    search.resume(config, folder=run, cache=run / "no-cache", reporter=screen)


def test_a_rebuilt_journal_keeps_trial_numbers_when_earlier_trials_are_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    table = pq.read_table(run / "results" / "trials.parquet")
    pq.write_table(table.slice(2), run / "results" / "trials.parquet")
    for number in (0, 1):
        (run / "results" / "epochs" / f"trial-{number:05d}.parquet").unlink()
        shutil.rmtree(next((run / "models").glob(f"trial-{number:05d}-*")))
    (run / "study.journal").unlink()
    resume(run, trials=3)
    assert [trial.number for trial in own_trials(run)] == [2, 3, 4]
    assert read_trials(run)["trial"].tolist() == [2, 3, 4]


def test_a_damaged_journal_is_refused_and_rebuilt_once_it_is_moved_away(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    before = read_trials(run)
    journal = run / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:3], "nonsense\n", *lines[3:]]))
    with pytest.raises(InputError) as refused:
        resume(run)
    assert str(journal) in str(refused.value)
    journal.rename(run / "study.damaged")
    resume(run)
    assert read_trials(run)["val_f1"].tolist() == before["val_f1"].tolist()


def _second_study(run: Path, name: str, trials: int) -> None:
    """A second study in a run's journal, as an earlier version wrote for a renamed run."""
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    for number in range(trials):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-4, 0.1)
        study.tell(trial, number / 10)


@pytest.mark.parametrize("trials", [0, 2, 9])
@pytest.mark.parametrize("with_id", [True, False])
def test_of_two_studies_in_a_journal_the_one_that_matches_the_tables_is_used(
    tmp_path: Path, trials: int, with_id: bool
) -> None:
    run = make_run(tmp_path / "r", CURVES)
    before = _content(run)
    _second_study(run, "other name", trials)
    if not with_id:
        settings = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(settings | {"provenance": {}}))
    there = _renamed(run)
    assert [trial.number for trial in own_trials(there)] == [0, 1, 2, 3, 4]
    said = resume(there)
    assert [line for line in said if "'other name'" in line]
    assert _content(there) == before
    assert _studies(there) == ["r", "other name"], "neither is deleted"
    assert not (there / "unclaimed").exists()


def test_files_of_no_trial_are_moved_to_unclaimed_and_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    before = _content(run)
    (run / "checkpoints").mkdir()
    strangers = [
        "results/epochs/trial-00007.parquet",
        "results/epochs/notes.txt",
        "checkpoints/trial-00009-epoch-001.safetensors",
        "models/trial-00008-epoch-002/model.json",
        "models/favourite/model.safetensors",
        "models/trial-00002-epoch-002/model.json",
    ]
    for name in strangers:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(name)
    (run / "results" / "epochs" / "trial-00000.parquet").write_text("damaged")
    said = resume(run)
    [home] = (run / "unclaimed").iterdir()
    found = {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}
    assert found == {name: name for name in strangers} | {"results/epochs/trial-00000.parquet": "damaged"}
    assert [line for line in said if str(home) in line and "results/epochs/notes.txt" in line]
    after = _content(run)
    for part in ("trials", "models", "study"):
        assert after[part] == before[part]
    keys = ("trial", "epoch", "val_f1")
    assert [[e[k] for k in keys] for e in after["epochs"]] == [[e[k] for k in keys] for e in before["epochs"]]


def test_epochs_of_another_trial_with_the_same_number_are_moved_to_unclaimed(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "r", CURVES), make_run(tmp_path / "o", (CURVES[0], *CURVES))
    name = "results/epochs/trial-00001.parquet"
    shutil.copy(other / "results/epochs/trial-00002.parquet", run / name)
    strange = (run / name).read_bytes()
    resume(run)
    [home] = (run / "unclaimed").iterdir()
    assert (home / name).read_bytes() == strange
    assert read_trials(run)["val_f1"].fillna(0).tolist() == [0.5, 0.3, 0.8, 0, 0.15]


def test_rows_of_trials_missing_from_the_study_are_moved_to_unclaimed(tmp_path: Path) -> None:
    run, older = make_run(tmp_path / "r", CURVES), make_run(tmp_path / "o", CURVES[:2])
    table = (run / "results" / "trials.parquet").read_bytes()
    shutil.copy(older / "study.journal", run / "study.journal")
    resume(run, trials=2)
    [home] = (run / "unclaimed").iterdir()
    assert (home / "results" / "trials.parquet").read_bytes() == table
    assert read_trials(run)["val_f1"].tolist() == [0.5, 0.3]


@pytest.mark.parametrize(
    "lost", [["config.yaml"], ["config.yaml", "study.journal"], ["config.yaml", "results"]]
)
def test_a_new_search_is_refused_in_the_folder_of_a_damaged_one(tmp_path: Path, lost: list[str]) -> None:
    run = make_run(tmp_path / "r", CURVES)
    for name in lost:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    with pytest.raises(InputError) as refused:
        require_new(run)
    assert str(run) in str(refused.value)
    assert "--name" in str(refused.value)


def test_a_copy_does_not_overwrite_the_stored_copy_of_its_original(tmp_path: Path) -> None:
    run, address = make_run(tmp_path / "runs" / "r", CURVES), (tmp_path / "storage").as_uri()
    config = load(run / "config.yaml", {"storage": address})
    with mirrored(config, run, Quiet(), resumed=True):
        pass
    stored = (tmp_path / "storage" / "r" / "config.yaml").read_bytes()
    copy = Path(shutil.copytree(tmp_path / "runs", tmp_path / "backup")) / "r"
    resume(copy)
    _add_a_trial(copy)
    with pytest.raises(InputError) as refused:
        mirrored(load(copy / "config.yaml", {"storage": address}), copy, Quiet(), resumed=True)
    assert refused.value.code is SearchErrorCode.STORAGE_HOLDS_ANOTHER_RUN
    assert (tmp_path / "storage" / "r" / "config.yaml").read_bytes() == stored
    with mirrored(load(run / "config.yaml", {"storage": address}), run, Quiet(), resumed=True):
        pass


def test_a_run_started_from_the_settings_of_another_has_its_own_id(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", CURVES)
    again = make_run(tmp_path / "s", CURVES)
    assert _id(run) != _id(again)
    assert load(run / "config.yaml", SETTINGS).provenance


def _add_a_trial(run: Path) -> None:
    """Add a trial as a driver of this run would."""
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    study = optuna.load_study(study_name=_studies(run)[0], storage=storage)
    trial = study.ask()
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
