"""Invariants of a run's folder, whatever happened to the search; read by Optuna and pyarrow alone."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from safetensors import safe_open

Row = Mapping[str, Any]

_EPOCHS_FILE = re.compile(r"trial-(\d{5})\.parquet")
_FILES = (".driver", "config.yaml", "corpus.parquet", "study.journal", "results", "models", "report.html")
"""What the folder of a finished run may contain."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Contents of a run's folder and violations of its invariants."""

    trials: int
    """In the study."""
    failed: int
    restarted: int
    """Trials that needed more attempts than their pauses explain."""
    pauses: int
    """Of all trials together."""
    resumed: int
    """Trials that were paused and got more epochs later."""
    epochs: int
    """Rows by distinct (trial, epoch)."""
    epochs_repeated: int
    """Epochs on record that were computed again."""
    rows_lost: int
    """Trials or epochs of the study without a row, and gaps between a trial's epochs."""
    rows_doubled: int
    """Trials or epochs with more than one row in the raw files."""
    zombies: int
    """Trials that are still running in the study or the table."""
    disagreements: int
    """Differences between the study and the tables in states, parameters or values."""
    left_over: int
    """Checkpoints, locks and incomplete files."""
    models_wrong: int
    """Models that should have been deleted, are missing, or differ from their card or row."""
    words: tuple[str, ...] = field(default=(), repr=False)
    """One line per violation."""

    @property
    def clean(self) -> bool:
        """Whether all invariants hold."""
        return not self.words


def check(run: Path, *, trials: int, keep_models: int) -> Findings:
    """Assert that a finished search lost and duplicated nothing and left nothing behind."""
    found = examine(run, keep_models=keep_models)
    assert found.trials == trials, f"{run} has {found.trials} trials, not {trials}\n{_text(found)}"
    assert found.clean, f"{run} is not clean:\n{_text(found)}"
    return found


def examine(run: Path, *, keep_models: int) -> Findings:
    """Read everything in a run's folder and check that it is consistent."""
    study = _study(run)
    rows = _read(run / "results" / "trials.parquet")
    epochs = [
        (file, row) for file in sorted((run / "results" / "epochs").iterdir()) for row in _epoch_rows(file)
    ]
    by_trial: dict[int, Row] = {row["trial"]: row for row in rows}
    f1: dict[int, dict[int, float]] = {}
    for _, row in epochs:
        f1.setdefault(row["trial"], {})[row["epoch"]] = row["val_f1"]
    wrong = {
        "rows_lost": list(_lost(study, by_trial, f1)),
        "rows_doubled": list(_doubled(rows, [row for _, row in epochs])),
        "zombies": list(_zombies(study, rows)),
        "disagreements": [
            *_disagreements(study, by_trial, f1),
            *_attempts_wrong(by_trial, [row for _, row in epochs]),
            *_misplaced(epochs),
        ],
        "left_over": list(_left_over(run)),
        "models_wrong": list(_models_wrong(run / "models", by_trial, keep_models)),
    }
    return Findings(
        trials=len(study),
        failed=sum(trial.state is TrialState.FAIL for trial in study),
        restarted=sum(row["attempt"] - 1 > (row.get("pauses") or 0) for row in rows),
        pauses=sum(row.get("pauses") or 0 for row in rows),
        resumed=_resumed(by_trial, [row for _, row in epochs]),
        epochs=sum(map(len, f1.values())),
        epochs_repeated=sum(row["repeated_epochs"] or 0 for row in rows),
        **{kind: len(words) for kind, words in wrong.items()},
        words=tuple(f"{kind}: {text}" for kind, words in wrong.items() for text in words),
    )


def _study(run: Path) -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    [name] = optuna.get_all_study_names(storage)  # a run has one study, whatever its folder's name
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    own = [
        trial for trial in trials if "warm_start" not in trial.user_attrs
    ]  # others are of an earlier search
    # an enqueued trial may wait for a search with more trials
    return [t for t in own if t.state is not TrialState.WAITING or "enqueued" not in t.user_attrs]


def _read(file: Path) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(file).read().to_pylist()
    return rows


def _epoch_rows(file: Path) -> list[Row]:
    return _read(file) if _EPOCHS_FILE.fullmatch(file.name) else []


def _lost(
    study: Sequence[FrozenTrial], rows: Mapping[int, Row], f1: Mapping[int, Mapping[int, float]]
) -> Iterator[str]:
    for trial in study:
        if trial.number not in rows:
            yield f"trial {trial.number} has no row"
        own = f1.get(trial.number, {})
        for epoch in trial.intermediate_values.keys() - own.keys():
            yield f"trial {trial.number} reported epoch {epoch}, which has no row"
        last = max([*own, *trial.intermediate_values], default=0)
        for epoch in set(range(1, last + 1)) - own.keys() - trial.intermediate_values.keys():
            yield f"trial {trial.number} has epoch {last}, but not {epoch}"
    for number, row in rows.items():
        if row["epochs"] != len(f1.get(number, {})):
            yield f"trial {number} has {row['epochs']} epochs, but {len(f1.get(number, {}))} rows of them"


def _doubled(rows: Sequence[Row], epochs: Sequence[Row]) -> Iterator[str]:
    for number, times in Counter(row["trial"] for row in rows).items():
        if times > 1:
            yield f"trial {number} has {times} rows"
    for (number, epoch), times in Counter((row["trial"], row["epoch"]) for row in epochs).items():
        if times > 1:
            yield f"epoch {epoch} of trial {number} has {times} rows"


def _zombies(study: Sequence[FrozenTrial], rows: Sequence[Row]) -> Iterator[str]:
    for trial in study:
        if not trial.state.is_finished():
            yield f"trial {trial.number} is {trial.state.name} in the study"
    for row in rows:
        if row["state"] == TrialState.RUNNING.name:
            yield f"trial {row['trial']} is RUNNING in the table"


def _disagreements(
    study: Sequence[FrozenTrial], rows: Mapping[int, Row], f1: Mapping[int, Mapping[int, float]]
) -> Iterator[str]:
    for number in (rows.keys() | f1.keys()) - {trial.number for trial in study}:
        yield f"trial {number} is in the tables, but not in the study"
    for trial in study:
        row, own, reported = rows.get(trial.number), f1.get(trial.number, {}), trial.intermediate_values
        for epoch, value in own.items():
            if not _same(value, reported.get(epoch)):
                yield (f"trial {trial.number}, epoch {epoch}: F1 {value}, in the study {reported.get(epoch)}")
        if trial.state is TrialState.COMPLETE and trial.value != max(reported.values(), default=None):
            yield f"trial {trial.number} is COMPLETE with {trial.value}, which is not its best F1"
        if trial.state is TrialState.PRUNED and reported and trial.value != reported[max(reported)]:
            yield f"trial {trial.number} is PRUNED with {trial.value}, which is not its last F1"
        if row:
            yield from _row_disagreements(trial, row, own)


def _row_disagreements(trial: FrozenTrial, row: Row, own: Mapping[int, float]) -> Iterator[str]:
    number = trial.number
    if row["state"] != trial.state.name:
        yield f"trial {number} is {row['state']} in the table, {trial.state.name} in the study"
    for name, value in trial.params.items():
        column = "frozen_blocks" if name.startswith("frozen_") else name
        meant = min(int(value * (row["n_blocks"] + 1)), row["n_blocks"]) if name == "frozen_share" else value
        if row[column] != meant:
            yield f"trial {number}: {name} is {row[column]} in the table, {meant} in the study"
    if not _same(row["val_f1"], max(own.values(), default=None)):
        yield f"trial {number} has F1 {row['val_f1']} in its row, {max(own.values(), default=None)} in its epochs"
    if own and own.get(row["best_epoch"]) != row["val_f1"]:
        yield f"trial {number}: its best epoch {row['best_epoch']} has not its F1 {row['val_f1']}"
    if not (row.get("pauses") or 0) <= min(row["attempt"], len(own)):
        yield f"trial {number} has {row['pauses']} pauses, but {row['attempt']} attempts and {len(own)} epochs"
    if (trial.state is TrialState.FAIL) != (row["error"] is not None):
        yield f"trial {number} is {trial.state.name} with the error {row['error']}"


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def _attempts(epochs: Sequence[Row]) -> dict[int, list[int]]:
    """Trial -> the attempts that computed its epochs, by epoch."""
    attempts: dict[int, list[int]] = {}
    for row in sorted(epochs, key=lambda row: int(row["epoch"])):
        attempts.setdefault(row["trial"], []).append(row.get("attempt") or 1)
    return attempts


def _attempts_wrong(rows: Mapping[int, Row], epochs: Sequence[Row]) -> Iterator[str]:
    """A trial has one worker at a time, and it continues where the one before has stopped."""
    for number, attempts in _attempts(epochs).items():
        if attempts != sorted(attempts):
            yield f"trial {number} has epochs of an earlier attempt after those of a later one: {attempts}"
        if number in rows and attempts[-1] > rows[number]["attempt"]:
            yield f"trial {number} has an epoch of attempt {attempts[-1]}, but {rows[number]['attempt']} attempts"


def _resumed(rows: Mapping[int, Row], epochs: Sequence[Row]) -> int:
    return sum(
        bool(rows[number].get("pauses")) and len(set(attempts)) > 1
        for number, attempts in _attempts(epochs).items()
        if number in rows
    )


def _misplaced(epochs: Sequence[tuple[Path, Row]]) -> Iterator[str]:
    for file, row in epochs:
        if file.name != f"trial-{row['trial']:05d}.parquet":
            yield f"{file.name} holds an epoch of trial {row['trial']}"


def _left_over(run: Path) -> Iterator[str]:
    for path in run.iterdir():
        if path.name == "checkpoints":
            yield from (str(left.relative_to(run)) for left in path.iterdir())
        elif path.name not in _FILES:
            yield path.name
    for path in (run / "results").iterdir():
        if path.name not in ("trials.parquet", "epochs"):
            yield str(path.relative_to(run))
    for path in (run / "results" / "epochs").iterdir():
        if not _EPOCHS_FILE.fullmatch(path.name):
            yield str(path.relative_to(run))


def _models_wrong(folder: Path, rows: Mapping[int, Row], keep: int) -> Iterator[str]:
    scored = [row for row in rows.values() if row["val_f1"] is not None]
    best = sorted(scored, key=lambda row: (-row["val_f1"], row["trial"]))[:keep]
    expected = {f"trial-{row['trial']:05d}-epoch-{row['best_epoch']:03d}": row for row in best}
    present = {path.name for path in folder.iterdir() if path.name != "shared"} if folder.exists() else set()
    yield from _shared_wrong(folder)
    for name in present - expected.keys():
        yield f"models/{name} is not one of the best {keep}, which are {', '.join(expected)}"
    for name in expected.keys() - present:
        yield f"models/{name} is missing"
    for name in present & expected.keys():
        yield from _model_wrong(folder / name, expected[name])


def _shared_wrong(folder: Path) -> Iterator[str]:
    """Every shared block is that of a kept model, and every kept model has its own."""
    cards = [json.loads(path.read_text()) for path in folder.glob("trial-*/model.json")]
    wanted = {f"{digest}.safetensors" for card in cards for digest in card.get("shared_blocks", {}).values()}
    stored = {path.name for path in (folder / "shared").glob("*")}
    yield from (f"models/shared/{name} is missing" for name in wanted - stored)
    yield from (f"models/shared/{name} belongs to no model" for name in stored - wanted)


def _model_wrong(place: Path, row: Row) -> Iterator[str]:
    if {path.name for path in place.iterdir()} != {"model.safetensors", "model.json"}:
        yield f"{place.name} holds {sorted(path.name for path in place.iterdir())}"
        return
    card = json.loads((place / "model.json").read_text())
    if (card["trial"], card["epoch"], card["validation"]["f1"]) != (
        row["trial"],
        row["best_epoch"],
        row["val_f1"],
    ):
        yield f"{place.name}'s card has trial {card['trial']}, epoch {card['epoch']}, {card['validation']['f1']}"
    with safe_open(place / "model.safetensors", framework="numpy") as file:
        if not list(file.keys()):
            yield f"{place.name} has no tensors"


def _text(found: Findings) -> str:
    return "\n".join(found.words) or "no violations"
