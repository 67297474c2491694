"""The Parquet tables: complete at any time, unique on reading, with units and a schema version."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_runs import trial_row

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.run.folder import RunFolder
from search.run.schemas import EPOCHS, SCHEMA_VERSION, TRIALS, EpochRow
from search.run.tables import (
    ResultsWriter,
    read_epochs,
    read_epochs_file,
    read_finish,
    read_test_use,
    read_trials,
    require_new,
)
from search.study.journal import read_trial_rows

RUN_OF_0_1 = Path(__file__).parents[1] / "data" / "run_of_0_1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").touch()
    return tmp_path


def _epoch(trial: int, epoch: int, *, attempt: int = 1, val_f1: float = 0.5) -> EpochRow:
    return EpochRow(trial=trial, attempt=attempt, epoch=epoch, val_f1=val_f1, confusion=((1, 0), (2, 3)))


def test_trials_of_a_version_without_optimizers_used_sgd(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(trial_row(0, state="COMPLETE", optimizer="adamw"))
    writer.put_trial(trial_row(1, state="COMPLETE"))
    writer.flush()
    assert read_trials(run)["optimizer"].tolist() == ["adamw", "sgd"]
    assert [row.optimizer for row in read_trial_rows(run)] == ["adamw", "sgd"]
    file = RunFolder(run).trials
    pq.write_table(pq.read_table(file).drop_columns(["optimizer"]), file)
    assert read_trials(run)["optimizer"].tolist() == ["sgd", "sgd"]
    assert [row.optimizer for row in read_trial_rows(run)] == ["sgd", "sgd"]


def test_a_run_without_rows_reads_as_empty_tables(run: Path) -> None:
    assert list(read_trials(run).columns) == TRIALS.names
    assert list(read_epochs(run).columns) == EPOCHS.names


def test_a_trials_row_is_replaced_and_an_epochs_row_added(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(trial_row(0))
    writer.add_epoch(_epoch(0, 1, val_f1=0.25), trial_row(0))
    writer.add_epoch(_epoch(0, 2, val_f1=0.5), trial_row(0))
    writer.put_trial(trial_row(0, state="COMPLETE", val_f1=0.5))
    writer.flush()
    assert read_trials(run)[["trial", "state", "val_f1"]].values.tolist() == [[0, "COMPLETE", 0.5]]
    assert read_epochs(run)["val_f1"].tolist() == [0.25, 0.5]


def test_of_a_repeated_epoch_the_latest_attempt_is_read(run: Path) -> None:
    writer = ResultsWriter(run)
    for epoch, attempt in [(1, 1), (2, 1), (2, 2), (3, 2)]:
        writer.add_epoch(_epoch(7, epoch, attempt=attempt, val_f1=attempt / 10), trial_row(7))
    rows = read_epochs(run)
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["val_f1"].tolist() == [0.1, 0.2, 0.2]


def _read_opened(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        return pd.read_parquet(file)


READERS: dict[str, tuple[str, Callable[[Path], pd.DataFrame]]] = {
    "ours, trials": ("trials", read_trials),
    "ours, epochs": ("epochs", read_epochs),
    "pandas, trials": ("trials", lambda run: _read_opened(run / "results" / "trials.parquet")),
    "pandas, epochs": ("epochs", lambda run: pd.read_parquet(run / "results" / "epochs")),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_never_sees_an_incomplete_file(reader: str, run: Path) -> None:
    table, read = READERS[reader]
    writer = ResultsWriter(run)
    writer.put_trial(trial_row(0))
    writer.add_epoch(_epoch(0, 1), trial_row(0))
    counts: list[int] = []
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set():
            counts.append(len(read(run)))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        for n in range(150):
            if table == "epochs":
                writer.add_epoch(_epoch(n // 30, n % 30 + 2), trial_row(n // 30))
            else:
                writer.put_trial(trial_row(n))
                writer.flush()
        done.set()
        reading.result()
    assert counts == sorted(counts), "a table only grows"
    assert len(counts) > 10


def test_columns_have_units_and_files_a_schema_version(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(trial_row(0))
    schema = pq.read_schema(run / "results" / "trials.parquet")
    assert schema.field("seconds").metadata == {b"unit": b"s"}
    assert schema.field("peak_memory_bytes").metadata == {b"unit": b"bytes"}
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()


def test_plain_pandas_reads_both_tables(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(trial_row(0))
    writer.add_epoch(_epoch(0, 1), trial_row(0))
    assert len(pd.read_parquet(run / "results" / "trials.parquet")) == 1
    assert pd.read_parquet(run / "results" / "epochs")["confusion"][0][1].tolist() == [2, 3]


def test_epochs_of_an_earlier_version_have_no_values_in_columns_that_it_did_not_have() -> None:
    path = RunFolder(RUN_OF_0_1).epochs_of(0)
    missing = set(EPOCHS.names) - set(pq.read_schema(path).names)
    epochs, row = read_epochs_file(path)
    assert "predicted" in missing
    assert epochs.schema.equals(EPOCHS)
    assert all(epochs[name].null_count == len(epochs) for name in missing)
    assert epochs["epoch"].to_pylist() == list(range(1, row.epochs + 1))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_trials(tmp_path)
    assert refused.value.code is SearchErrorCode.RUN_NOT_FOUND
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "code", "way_out"),
    [
        (["config.yaml"], SearchErrorCode.RUN_EXISTS, "genre-search resume"),
        (["study.journal"], SearchErrorCode.RUN_WITHOUT_CONFIG, "config.yaml"),
        (["results", "study.journal"], SearchErrorCode.RUN_WITHOUT_CONFIG, "config.yaml"),
    ],
)
def test_a_search_is_not_started_in_the_folder_of_another(
    content: list[str], code: SearchErrorCode, way_out: str, tmp_path: Path
) -> None:
    require_new(tmp_path)
    for name in content:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as refused:
        require_new(tmp_path)
    assert refused.value.code is code
    assert all(part in str(refused.value) for part in ("--name", str(tmp_path), way_out))


@pytest.mark.parametrize(
    ("file", "read", "way_out"),
    [
        ("results/trials.parquet", read_trials, "genre-search resume"),
        ("results/epochs/trial-00000.parquet", read_epochs, "genre-search resume"),
        ("results/finish.parquet", read_finish, "copy"),
        ("results/test_tracks.parquet", read_test_use, "copy"),
    ],
)
def test_a_damaged_table_is_an_error_with_a_way_out(
    file: str, read: Callable[[Path], object], way_out: str, run: Path
) -> None:
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    (run / file).write_bytes(b"PAR1 no table")
    with pytest.raises(InputError) as refused:
        read(run)
    assert refused.value.code is SearchErrorCode.TABLE_DAMAGED
    assert str(run) in str(refused.value)
    assert way_out in str(refused.value)
