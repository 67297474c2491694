"""Choice of a run's model: the winner that `finish` trained, otherwise the best model that the search kept."""

from pathlib import Path

from genre_core.errors import InputError
from genre_core.models.artifact import is_complete, read_card
from search.errors import SearchErrorCode
from search.run.folder import RunFolder
from search.run.model_store import kept_models
from search.run.tables import read_finish, require_run


def chosen_model(run: Path, *, trial: int | None = None) -> Path:
    """The folder of a run's best model, or of the best model of a trial.

    In a finished run, the best model is the first configuration's final model with the smallest seed. Otherwise it is
    the kept model with the highest validation F1; ties go to the earliest trial.

    Raises:
        InputError: the folder is not a run, or it keeps no such model.
    """
    require_run(run)
    finals = read_finish(run).sort_values(["rank", "seed"])
    if trial is None and len(finals):
        trial = int(finals.iloc[0]["trial"])
    final_models = [
        (number, RunFolder(run).final_model(number, seed))
        for number, seed in zip(finals["trial"], finals["seed"], strict=True)
    ]
    models = [(number, folder) for number, folder in [*final_models, *_kept(run)] if is_complete(folder)]
    for number, folder in models:
        if trial in (None, number):
            return folder
    if not models:
        raise InputError(
            f"RUN must have a model, but {run} has none; start a search with --set keep_models=1 or more",
            code=SearchErrorCode.NO_KEPT_MODEL,
        )
    numbers = ", ".join(str(number) for number in sorted({number for number, _ in models}))
    raise InputError(
        f"--trial must be a trial whose model was kept, but got {trial}; {run} has models of: {numbers}",
        code=SearchErrorCode.NO_KEPT_MODEL_OF_TRIAL,
    )


def model_folder(path: Path) -> Path:
    """The model folder at a path; for a run folder, that of its best model.

    Raises:
        InputError: there is no such folder, or the run has no model.
    """
    if RunFolder(path).config.exists():
        return chosen_model(path)
    if not path.is_dir():
        raise InputError(
            f"MODEL must be a run folder or an exported model's folder, but {path} is not a folder; "
            "list runs with: genre-search list",
            code=SearchErrorCode.MODEL_NOT_FOUND,
        )
    return path


def _kept(run: Path) -> list[tuple[int, Path]]:
    """Trials and folders of the models that the search kept, best first."""
    cards = [(read_card(folder), folder) for folder in kept_models(run)]
    ranked = sorted((-card["validation"]["f1"], card["trial"], folder) for card, folder in cards)
    return [(number, folder) for _, number, folder in ranked]
