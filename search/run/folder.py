"""The layout of a run's folder: every path in it is defined here and nowhere else."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from genre_core.errors import InputError
from genre_core.system.atomic import make_folder
from search.errors import SearchErrorCode

RUNS = Path("runs")
"""Folder of the run folders, unless another one is given."""
CACHE_VARIABLE = "GENRE_SEARCH_CACHE"
"""Environment variable with the cache folder."""
CONFIG, JOURNAL = "config.yaml", "study.journal"
CHECKPOINT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run on disk. The folder may be renamed: the run's id is in its config.yaml."""

    path: Path

    @property
    def name(self) -> str:
        """Present name of the run, which is the folder's."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """All settings of the search, and its provenance."""
        return self.path / CONFIG

    @property
    def winner(self) -> Path:
        """Settings of a search that repeats the best trial."""
        return self.path / "winner.yaml"

    @property
    def corpus(self) -> Path:
        """The tracks and their split."""
        return self.path / "corpus.parquet"

    @property
    def journal(self) -> Path:
        """Optuna's journal of the study."""
        return self.path / JOURNAL

    @property
    def results(self) -> Path:
        """Folder of the results tables."""
        return self.path / "results"

    @property
    def trials(self) -> Path:
        """Table of the trials."""
        return self.results / "trials.parquet"

    @property
    def epochs(self) -> Path:
        """Folder of the epochs' table, which has one file per trial."""
        return self.results / "epochs"

    def epochs_of(self, trial: int) -> Path:
        """Table of the epochs of a trial."""
        return self.epochs / f"trial-{trial:05d}.parquet"

    @property
    def finish(self) -> Path:
        """Table of the final models' test scores."""
        return self.results / "finish.parquet"

    @property
    def test_tracks(self) -> Path:
        """Table of the final models' predictions for the test set."""
        return self.results / "test_tracks.parquet"

    @property
    def models(self) -> Path:
        """Folder of the best models of the search."""
        return self.path / "models"

    def kept_models(self, trial: int | None = None) -> Iterator[Path]:
        """Folders of the kept models of one trial or of all trials; some may be incomplete."""
        return self.models.glob("trial-*" if trial is None else model_name(trial, None))

    @property
    def final_models(self) -> Path:
        """Folder of the final models, which are trained on train and validation."""
        return self.path / "finish"

    def final_model(self, trial: int, seed: int) -> Path:
        """Folder of a final model."""
        return self.final_models / f"trial-{trial:05d}-seed-{seed}"

    @property
    def checkpoints(self) -> Path:
        """Folder of the running trials' checkpoints."""
        return self.path / "checkpoints"

    @property
    def unclaimed(self) -> Path:
        """Folder for files that are damaged or belong to no trial of the run."""
        return self.path / "unclaimed"

    @property
    def lock(self) -> Path:
        """Lock file of the driver, which is never deleted."""
        return self.path / ".driver"

    @property
    def lock_holder(self) -> Path:
        """Record of the process that holds the lock, written once the lock is held."""
        return self.path / ".driver.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def export(self) -> Path:
        """Folder of the exported model."""
        return self.path / "export"


def default_name(config: Path | None) -> str:
    """The name of a run that is given none: that of its file of settings, if there is one, and the time."""
    return f"{config.stem if config else 'search'}-{datetime.now():%Y%m%d-%H%M%S}"


def cache_folder(given: Path | None = None) -> Path:
    """The cache folder: as given, or as the environment variable says, or the user's own."""
    from platformdirs import user_cache_path

    return given or Path(os.environ.get(CACHE_VARIABLE) or user_cache_path("genre-search"))


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest last."""
    found = [path.parent for path in folder.glob(f"*/{CONFIG}")]
    return sorted(found, key=lambda run: RunFolder(run).config.stat().st_mtime)


def model_name(trial: int, epoch: int | None) -> str:
    """Name of a kept model's folder; a pattern for all epochs if the epoch is None."""
    return f"trial-{trial:05d}-epoch-{'*' if epoch is None else f'{epoch:03d}'}"


def checkpoint_name(trial: int, epoch: int | None) -> str:
    """Name of a checkpoint's file; a pattern for all epochs if the epoch is None."""
    return model_name(trial, epoch) + CHECKPOINT_SUFFIX


def trial_number(name: str, suffix: str) -> int | None:
    """Parse the trial number in the name of a file or folder of a run; None for any other name.

    Args:
        name: of the file or folder.
        suffix: that the name must have, such as `.parquet`.
    """
    match = re.fullmatch(rf"trial-(\d+)(-epoch-\d+)?{re.escape(suffix)}", name)
    return int(match[1]) if match else None


def epoch_number(name: str) -> int:
    """Parse the epoch in the name of a checkpoint or of a kept model."""
    match = re.match(r"trial-\d+-epoch-(\d+)", name)
    assert match, f"no epoch in {name}"
    return int(match[1])


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create the folder of a new run; it and its new parents are removed if the search fails before it has settings."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _create(folder)
        yield
    except BaseException:
        if created and _names(folder) == [RunFolder(folder).lock.name]:
            RunFolder(folder).lock.unlink()
        for path in created:
            if _names(path) == []:
                path.rmdir()
        raise


def _create(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"--runs must be a folder that can be written to, but {folder} cannot be created: {error.strerror}; "
            "use another folder",
            code=SearchErrorCode.RUN_FOLDER_NOT_CREATABLE,
        ) from error


def _names(folder: Path) -> list[str] | None:
    """Names in a folder; None if it does not exist."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else None
