"""The layout of a run's folder: every path in it is named here and nowhere else."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from genre_core.errors import InputError
from genre_core.system.atomic import make_folder

CONFIG, JOURNAL = "config.yaml", "study.journal"


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. The folder's name means nothing: the run's id is in its config.yaml."""

    path: Path

    @property
    def name(self) -> str:
        """What the run is called at present."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """Every setting, and where the run comes from."""
        return self.path / CONFIG

    @property
    def corpus(self) -> Path:
        """The tracks with their split."""
        return self.path / "corpus.parquet"

    @property
    def journal(self) -> Path:
        """Optuna's journal of the study."""
        return self.path / JOURNAL

    @property
    def results(self) -> Path:
        """The tables' folder."""
        return self.path / "results"

    @property
    def trials(self) -> Path:
        """The trials' table."""
        return self.results / "trials.parquet"

    @property
    def epochs(self) -> Path:
        """The folder of the epochs' table, a file per trial."""
        return self.results / "epochs"

    def epochs_of(self, trial: int) -> Path:
        """The file with the epochs of a trial."""
        return self.epochs / f"trial-{trial:05d}.parquet"

    @property
    def finish(self) -> Path:
        """The table of the final models' test scores."""
        return self.results / "finish.parquet"

    @property
    def test_tracks(self) -> Path:
        """The table of the final models' predictions for the test part."""
        return self.results / "test_tracks.parquet"

    @property
    def models(self) -> Path:
        """The folder of the search's best models."""
        return self.path / "models"

    def model(self, trial: int, epoch: int) -> Path:
        """The folder of a kept model, as of an epoch of its trial."""
        return self.models / f"trial-{trial:05d}-epoch-{epoch:03d}"

    def final_model(self, trial: int, seed: int) -> Path:
        """The folder of a final model, trained on train and validation."""
        return self.path / "finish" / f"trial-{trial:05d}-seed-{seed}"

    @property
    def checkpoints(self) -> Path:
        """The folder of running trials' checkpoints."""
        return self.path / "checkpoints"

    @property
    def unclaimed(self) -> Path:
        """The folder of files that belong to no trial of the run."""
        return self.path / "unclaimed"

    @property
    def lock(self) -> Path:
        """The driver's lock."""
        return self.path / ".driver"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"


def trial_number(name: str, suffix: str) -> int | None:
    """The trial that a file or folder of a run is named after; None where its name has another form.

    Args:
        name: of the file or folder.
        suffix: how such names end, such as `.parquet`.
    """
    match = re.fullmatch(rf"trial-(\d+)(-epoch-\d+)?{re.escape(suffix)}", name)
    return int(match[1]) if match else None


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """The folder of a new run; it and its parents are removed again where the start fails before its settings exist."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _make(folder)
        yield
    except BaseException:
        if made and _names(folder) == [RunFolder(folder).lock.name]:
            RunFolder(folder).lock.unlink()
        for path in made:
            if _names(path) == []:
                path.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"--runs must be where a folder can be made, but {folder} cannot: {error.strerror}; name another place"
        ) from error


def _names(folder: Path) -> list[str] | None:
    """What a folder holds; None where there is no such folder."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else None
