"""Which of a run's models is meant: the winner that `finish` trained, else the best that the search kept."""

from pathlib import Path

from genre_core.errors import InputError
from genre_core.models.artifact import is_complete, read_card
from search.run.model_store import final_model, kept_models
from search.run.tables import read_finish, require_run


def chosen(run: Path, *, trial: int | None = None) -> Path:
    """The folder of a run's winner, or of the best model of a trial.

    In a finished run the winner is the first configuration's final model, the one with the smallest seed; before
    that the kept model with the best validation F1, of equal ones the earlier trial's.

    Raises:
        InputError: no run, or it keeps no such model.
    """
    require_run(run)
    finals = read_finish(run).sort_values(["rank", "seed"])
    if trial is None and len(finals):
        trial = int(finals.iloc[0]["trial"])
    places = [
        (number, final_model(run, number, seed))
        for number, seed in zip(finals["trial"], finals["seed"], strict=True)
    ]
    there = [(number, place) for number, place in [*places, *_kept(run)] if is_complete(place)]
    for number, place in there:
        if trial in (None, number):
            return place
    numbers = ", ".join(str(number) for number in sorted({number for number, _ in there}))
    raise InputError(
        f"RUN must keep the model that is asked for, but {run} keeps none of "
        + (f"trial {trial}, only of {numbers}; give one of these" if there else "any trial; set keep_models")
    )


def model_folder(place: Path) -> Path:
    """The model's folder that is meant by one, or by a run's folder: its winner's."""
    return chosen(place) if (place / "config.yaml").exists() else place


def _kept(run: Path) -> list[tuple[int, Path]]:
    """Trials and folders of the models that the search kept, the best first."""
    cards = [(read_card(place), place) for place in kept_models(run)]
    ranked = sorted((-card["validation"]["f1"], card["trial"], place) for card, place in cards)
    return [(number, place) for _, number, place in ranked]
