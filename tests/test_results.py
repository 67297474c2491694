"""The Parquet tables: whole at any moment, unique on reading, with units and schema."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from genre_core.errors import InputError
from search.results import EPOCHS, ROWS_PER_PART, TRIALS, ResultsWriter, read_epochs, read_trials, require_new


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").touch()
    return tmp_path


def _trial(number: int, **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(TRIALS.names)
    return row | {"trial": number, "state": "RUNNING", "started": datetime.now(UTC)} | values


def _epoch(trial: int, epoch: int, **values: Any) -> dict[str, Any]:
    row = dict.fromkeys(EPOCHS.names)
    return row | {"trial": trial, "epoch": epoch, "attempt": 1, "confusion": [[1, 0], [2, 3]]} | values


def test_a_run_without_rows_reads_as_empty_tables(run: Path) -> None:
    assert list(read_trials(run).columns) == TRIALS.names
    assert list(read_epochs(run).columns) == EPOCHS.names


def test_a_trials_row_is_replaced_and_an_epochs_row_added(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(_trial(0))
    writer.add_epoch(_epoch(0, 1, val_f1=0.25))
    writer.add_epoch(_epoch(0, 2, val_f1=0.5))
    writer.put_trial(_trial(0, state="COMPLETE", val_f1=0.5))
    writer.flush()
    assert read_trials(run)[["trial", "state", "val_f1"]].values.tolist() == [[0, "COMPLETE", 0.5]]
    assert read_epochs(run)["val_f1"].tolist() == [0.25, 0.5]


def test_rows_of_many_files_are_unique_by_trial_and_epoch_the_latest_attempt_winning(run: Path) -> None:
    first = ResultsWriter(run)
    for epoch in range(1, ROWS_PER_PART + 3):
        first.add_epoch(_epoch(7, epoch, val_f1=0.1))
    second = ResultsWriter(run)
    second.add_epoch(_epoch(7, 3, attempt=2, val_f1=0.9))
    rows = read_epochs(run)
    assert rows["epoch"].tolist() == list(range(1, ROWS_PER_PART + 3))
    assert rows[rows["epoch"] == 3]["val_f1"].tolist() == [0.9]
    assert len(list((run / "results" / "epochs").iterdir())) == 3


def test_a_reader_never_sees_half_a_file(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(_trial(0))
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(len(read_trials(run)) + len(read_epochs(run)))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 200):
        writer.put_trial(_trial(n))
        writer.add_epoch(_epoch(n, 1))
    writer.flush()
    done.set()
    reader.join()
    assert seen == sorted(seen), "a table only grows"
    assert len(seen) > 3
    assert (len(read_trials(run)), len(read_epochs(run))) == (200, 199)


def test_units_stand_in_the_columns_and_the_schema_in_the_file(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(_trial(0))
    schema = pq.read_schema(run / "results" / "trials.parquet")
    assert schema.field("seconds").metadata == {b"unit": b"s"}
    assert schema.field("peak_memory_bytes").metadata == {b"unit": b"bytes"}
    assert schema.metadata[b"schema_version"] == b"1"


def test_plain_pandas_reads_both_tables(run: Path) -> None:
    writer = ResultsWriter(run)
    writer.put_trial(_trial(0))
    writer.add_epoch(_epoch(0, 1))
    assert len(pd.read_parquet(run / "results" / "trials.parquet")) == 1
    assert pd.read_parquet(run / "results" / "epochs")["confusion"][0][1].tolist() == [2, 3]


def test_a_folder_without_a_run_is_refused_and_a_taken_one_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="RUN must be the folder of a search"):
        read_trials(tmp_path)
    require_new(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match="holds a search already"):
        require_new(tmp_path)
