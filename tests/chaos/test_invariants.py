"""The checker of the chaos tests accepts a correct run and reports each kind of damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invariants import Findings, check, examine
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors.numpy import save_file

CURVES = {0: [0.2, 0.5, 0.4], 1: [0.1, 0.1], 2: [0.3], 3: [0.5]}
STATES = {0: TrialState.COMPLETE, 1: TrialState.PRUNED, 2: TrialState.FAIL, 3: TrialState.COMPLETE}
ATTEMPTS = {0: [1, 2, 2], 1: [1, 1], 2: [1], 3: [1]}
"""Which attempt of a trial computed each of its epochs: the first was paused, the second lost its worker."""
KEEP = 2


def _study(run: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    return optuna.create_study(
        storage=storage, study_name=run.name, direction="maximize", load_if_exists=True
    )


def _write(rows: list[dict[str, Any]], file: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


def _change(run: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of one of the run's tables."""
    file = run / "results" / name
    rows = pq.ParquetFile(file).read().to_pylist()
    change(rows)
    _write(rows, file)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A correct run: two complete trials of equal F1, a pruned one and a failed one."""
    run = tmp_path / "r"
    (run / "results" / "epochs").mkdir(parents=True)
    study, rows = _study(run), []
    for number, curve in CURVES.items():
        trial, state = study.ask(), STATES[number]
        trial.suggest_float("learning_rate", 0.0, 1.0)
        trial.suggest_int("frozen_blocks_resnet18", 0, 5)
        for epoch, f1 in enumerate(curve, start=1):
            trial.report(f1, epoch)
        study.tell(trial, max(curve) if state is TrialState.COMPLETE else None, state=state)
        _write(
            [
                {"trial": number, "epoch": epoch, "val_f1": f1, "attempt": ATTEMPTS[number][epoch - 1]}
                for epoch, f1 in enumerate(curve, start=1)
            ],
            run / "results" / "epochs" / f"trial-{number:05d}.parquet",
        )
        best_epoch = curve.index(max(curve)) + 1
        rows.append(
            {
                "trial": number,
                "state": state.name,
                "learning_rate": trial.params["learning_rate"],
                "frozen_blocks": trial.params["frozen_blocks_resnet18"],
                "epochs": len(curve),
                "best_epoch": best_epoch,
                "val_f1": max(curve),
                "attempt": 2 if number < 2 else 1,
                "pauses": 1 if number == 0 else 0,
                "repeated_epochs": 1 if number == 1 else 0,
                "error": "why" if state is TrialState.FAIL else None,
            }
        )
    _write(rows, run / "results" / "trials.parquet")
    for number in (0, 3):
        _model(run, number, rows[number]["best_epoch"])
    return run


def _model(run: Path, trial: int, epoch: int) -> None:
    place = run / "models" / f"trial-{trial:05d}-epoch-{epoch:03d}"
    place.mkdir(parents=True)
    save_file({"w": np.zeros(1, dtype=np.float32)}, place / "model.safetensors")
    card = {"trial": trial, "epoch": epoch, "validation": {"f1": CURVES[trial][epoch - 1]}}
    (place / "model.json").write_text(json.dumps(card))


def test_a_correct_run_has_no_violations_and_is_counted(run: Path) -> None:
    assert check(run, trials=4, keep_models=KEEP) == Findings(
        trials=4,
        failed=1,
        restarted=1,
        pauses=1,
        resumed=1,
        epochs=7,
        epochs_repeated=1,
        rows_lost=0,
        rows_doubled=0,
        zombies=0,
        disagreements=0,
        left_over=0,
        models_wrong=0,
    )


def test_a_wrong_number_of_trials_is_reported(run: Path) -> None:
    with pytest.raises(AssertionError, match="has 4 trials, not 5"):
        check(run, trials=5, keep_models=KEEP)


EPOCHS = "epochs/trial-00000.parquet"

DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an epoch's row is missing": ("rows_lost", lambda run: _change(run, EPOCHS, lambda rows: rows.pop(1))),
    "a trial's row is missing": (
        "rows_lost",
        lambda run: _change(run, "trials.parquet", lambda rows: rows.pop()),
    ),
    "a trial's epochs are missing": ("rows_lost", lambda run: (run / "results" / EPOCHS).unlink()),
    "an epoch is duplicated": (
        "rows_doubled",
        lambda run: _change(run, EPOCHS, lambda rows: rows.append(rows[0])),
    ),
    "a trial is duplicated": (
        "rows_doubled",
        lambda run: _change(run, "trials.parquet", lambda rows: rows.append(rows[0])),
    ),
    "a trial is still running in the study": ("zombies", lambda run: _study(run).ask()),
    "a trial is still waiting in the study": (
        "zombies",
        lambda run: _study(run).enqueue_trial({"learning_rate": 0.5}),
    ),
    "a trial is still running in the table": (
        "zombies",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[0].update(state="RUNNING")),
    ),
    "states differ": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[0].update(state="PRUNED")),
    ),
    "parameters differ": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[0].update(learning_rate=2.0)),
    ),
    "frozen depths differ": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[0].update(frozen_blocks=9)),
    ),
    "an epoch's F1 differs": (
        "disagreements",
        lambda run: _change(run, EPOCHS, lambda rows: rows[0].update(val_f1=0.21)),
    ),
    "a trial's F1 is not its best": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[1].update(val_f1=0.9)),
    ),
    "an epoch of an earlier attempt follows one of a later": (
        "disagreements",
        lambda run: _change(run, EPOCHS, lambda rows: rows[2].update(attempt=1)),
    ),
    "an epoch is of an attempt that was not made": (
        "disagreements",
        lambda run: _change(run, EPOCHS, lambda rows: rows[2].update(attempt=3)),
    ),
    "a trial has more pauses than epochs": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[2].update(pauses=2)),
    ),
    "a failure has no reason": (
        "disagreements",
        lambda run: _change(run, "trials.parquet", lambda rows: rows[2].update(error=None)),
    ),
    "epochs are in another trial's file": (
        "disagreements",
        lambda run: (run / "results" / EPOCHS).rename(run / "results" / "epochs" / "trial-00009.parquet"),
    ),
    "a checkpoint is left": (
        "left_over",
        lambda run: _touch(run / "checkpoints" / "trial-00000.safetensors"),
    ),
    "a lock is left": ("left_over", lambda run: _touch(run / "study.journal.lock")),
    "an incomplete table is left": (
        "left_over",
        lambda run: _touch(run / "results" / ".trials.parquet.1.partial"),
    ),
    "an incomplete file of epochs is left": (
        "left_over",
        lambda run: _touch(run / "results" / "epochs" / ".trial-00000.parquet.1.partial"),
    ),
    "a model is missing": (
        "models_wrong",
        lambda run: shutil.rmtree(run / "models" / "trial-00003-epoch-001"),
    ),
    "a model should have been deleted": ("models_wrong", lambda run: _model(run, 2, 1)),
    "a model is of another epoch": (
        "models_wrong",
        lambda run: (run / "models" / "trial-00000-epoch-002").rename(
            run / "models" / "trial-00000-epoch-001"
        ),
    ),
    "an incomplete model is left": (
        "models_wrong",
        lambda run: _touch(run / "models" / "trial-00002-epoch-001.partial"),
    ),
    "a model has no card": (
        "models_wrong",
        lambda run: (run / "models" / "trial-00000-epoch-002" / "model.json").unlink(),
    ),
}


def _touch(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_kind_of_damage_is_counted_and_reported(damage: str, run: Path) -> None:
    kind, inflict = DAMAGE[damage]
    inflict(run)
    found = examine(run, keep_models=KEEP)
    assert getattr(found, kind) >= 1
    with pytest.raises(AssertionError, match=rf"(?m)^{kind}: "):
        check(run, trials=found.trials, keep_models=KEEP)
