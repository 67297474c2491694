"""A run's folder as an object: its trials, its epochs, its report and its models."""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from genre_core.corpus.corpus_table import read_genres
from genre_core.predict import Model
from search.api.given import by_dotted_key
from search.api.screen import display_of_finish
from search.config.schema import SearchConfig, load
from search.evaluate.verdict import configurations
from search.export.chosen_model import chosen_model
from search.export.export import export
from search.report.formatting import counted, score
from search.report.page import write_report
from search.report.winner import best_row, write_winner
from search.run.folder import RunFolder, cache_folder
from search.run.overview import find_run, state_of
from search.run.ranking import select
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_finish, read_test_tracks, read_trials, require_run

_SHOWN = 10
"""Rows of the table that a notebook shows."""
_COLUMNS = ("trial", "state", "val_f1", "backbone", "frozen_blocks", "learning_rate", "momentum", "epochs")
"""Columns of that table."""


class Result:
    """A search that is running, was interrupted or has ended. Attributes are read from its folder on access."""

    def __init__(self, path: str | Path) -> None:
        """Args: path: the run folder.

        Raises:
            InputError: the folder contains no run.
        """
        self.path = Path(path)
        """The run folder."""
        require_run(self.path)

    @property
    def name(self) -> str:
        """The name of the run, which is the folder's."""
        return RunFolder(self.path).name

    @property
    def state(self) -> str:
        """`running`, `interrupted` (some trials are unfinished), `ended`, or `finished` (the test set was used)."""
        return state_of(self.path, self.trials)

    @property
    def config(self) -> SearchConfig:
        """All settings of the search."""
        return load(RunFolder(self.path).config, {})

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial, in the order of their numbers; docs/analysis.md describes the columns.

        `val_f1`, `val_accuracy`, `val_precision` and `val_recall` are the scores of the best epoch, from 0 to 1, and
        columns that end in `seconds` and `bytes` have these units.
        """
        return read_trials(self.path)

    @property
    def epochs(self) -> pd.DataFrame:
        """A row per trial and epoch; docs/analysis.md describes the columns."""
        return read_epochs(self.path)

    @property
    def best(self) -> TrialRow:
        """The trial with the best validation F1; its attributes are the columns of `trials`.

        Raises:
            InputError: no trial has a score.
        """
        return best_row(self.path)

    def winner(self) -> Path:
        """Write winner.yaml, the settings to repeat the best trial with `search(config=result.winner())`.

        Raises:
            InputError: no trial has a score.
        """
        return write_winner(self.path)

    def report(
        self,
        out: str | Path | None = None,
        *,
        data: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> Path:
        """Write the HTML report, also while the search runs.

        Args:
            out: the file [default: report.html in the run folder].
            data: path or address of the new folder or manifest of the music, if it has moved.
            cache: see `search`.

        Returns:
            The path of the report.
        """
        page = Path(out) if out else RunFolder(self.path).report
        write_report(
            self.path,
            page,
            cache=cache_folder(None if cache is None else Path(cache)),
            data=data,
        )
        return page

    def finish(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        data: str | Path | None = None,
        cache: str | Path | None = None,
        progress: bool = True,
        **resources: Any,
    ) -> pd.DataFrame:
        """Retrain the best configurations on train and validation, then test them once.

        The test set is used only once: later calls return the same scores.

        Args:
            top: number of configurations, the best by validation F1 [default: 3].
            seeds: number of models for each [default: 3].
            data: path or address of the new folder or manifest of the music, if it has moved.
            cache: see `search`.
            progress: whether to show progress.
            resources: `address`, `workers` and `trials_per_gpu` if they differ from the search's.

        Returns:
            A row per configuration, the winner (by validation F1) first: its settings, `test_f1` and the other scores
            as means over seeds, and the limits of the 95 % interval, `test_f1_low` and `test_f1_high`.

        Raises:
            InputError: there is nothing to finish, or the run was finished with other options.
            FinishFailed: a model could not be trained or tested; call it again to continue.
        """
        from search.evaluate import finish  # loads Ray

        finish.finish(
            load(RunFolder(self.path).config, by_dotted_key(resources)),
            folder=self.path.absolute(),
            cache=cache_folder(None if cache is None else Path(cache)),
            reporter=display_of_finish(progress=progress),
            top=top,
            seeds=seeds,
            data=data,
        )
        genres = read_genres(RunFolder(self.path).corpus)
        return configurations(read_finish(self.path), read_test_tracks(self.path), genres)

    def export(
        self, folder: str | Path | None = None, *, trial: int | None = None, onnx: bool = False
    ) -> Path:
        """Export the winner of `finish` or, without one, the model with the best validation F1.

        Args:
            folder: the folder to create [default: export in the run folder].
            trial: the number of a trial, to export its model instead.
            onnx: also write model.onnx, checked against PyTorch; needs the extra `onnx`.

        Returns:
            The path of the folder.

        Raises:
            InputError: there is no such model, the folder is not empty, or a package for ONNX is missing.
        """
        destination = Path(folder) if folder else RunFolder(self.path).export
        export(self.path, destination, trial=trial, onnx=onnx)
        return destination

    def model(self, *, trial: int | None = None, device: str | None = None) -> Model:
        """Load the model that `export` would export.

        Args:
            trial: the number of a trial, to load its model instead.
            device: `cpu` or `cuda` [default: a GPU if there is one].

        Raises:
            InputError: there is no such model.
        """
        return Model.load(chosen_model(self.path, trial=trial), device=device)

    def __repr__(self) -> str:
        """The path, the state, and the best score."""
        trials = self.trials
        scores = trials["val_f1"].dropna()
        best = f", best validation F1 {score(float(scores.max()))}" if len(scores) else ""
        return f"Result({str(self.path)!r}: {state_of(self.path, trials)}, {counted(len(trials), 'trial')}{best})"

    def _repr_html_(self) -> str:
        """The best trials, for a notebook."""
        best = select(self.trials).head(_SHOWN)[list(_COLUMNS)]
        return f"<p>{html.escape(repr(self))}</p>{best.to_html(index=False, float_format='{:.4g}'.format)}"


def open_run(run: str | Path) -> Result:
    """Open an earlier run, which may still be running.

    Args:
        run: the run folder, or its name in runs/.

    Raises:
        InputError: there is no such run.
    """
    return Result(find_run(Path(run).expanduser()))
