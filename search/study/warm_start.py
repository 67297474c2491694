"""What earlier searches tried, for a new one to know from its start: their trials, where these would score the same."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from genre_core.corpus.tracks import Corpus, load_corpus
from genre_core.errors import InputError
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load
from search.config.space import Space
from search.run.conditions import conditions, differences
from search.run.tables import require_run
from search.study.journal import own_trials
from search.study.study import WARM_START, Study
from search.study.suggest import draw, draw_depth, sample

_NO_SCORE = {TrialState.FAIL: "failed", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier search."""

    folder: str
    config: SearchConfig
    corpus: Corpus
    trials: Sequence[FrozenTrial]
    """Its own; not those that it was taught itself."""


def read_earlier(config: SearchConfig) -> list[Earlier]:
    """The searches that this one should know; they are only read.

    Raises:
        InputError: there is none at a place, or its settings decide a score otherwise than this one's.
    """
    found = [_read(Path(run)) for run in config.warm_start]
    ours = _settings(config)
    for earlier in found:
        theirs = _settings(earlier.config)
        for name in (name for name in ours if ours[name] != theirs[name]):
            raise InputError(
                f"--warm-start must be a search that scores as this one, but {earlier.folder} has "
                f"{name}={theirs[name]}, not {ours[name]}; leave it out, or take its setting"
            )
    return found


def require_same_data(config: SearchConfig, searches: Sequence[Earlier], tracks: Corpus) -> None:
    """Raise InputError where the corpus, its genres or its split are not those of an earlier search."""
    for earlier in searches:
        theirs = conditions(earlier.config, earlier.corpus)
        if differ := differences(theirs, conditions(config, tracks)):
            raise InputError(
                f"--warm-start must be a search that scores as this one, but {earlier.folder} differs in its "
                f"{' and its '.join(differ)}; leave it out, or search what it did"
            )


def teach(
    study: Study,
    config: SearchConfig,
    searches: Sequence[Earlier],
    *,
    weights: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Give the study the earlier trials that it lacks, and say how many were taken over and why others were not.

    Args:
        study: the new one.
        config: its search's.
        searches: the earlier ones.
        weights: backbone -> what tells its weights from others.
        say: told a line for each earlier search.
    """
    for earlier in searches:
        known = study.known
        left_out: Counter[str] = Counter()
        for trial in earlier.trials:
            taken = _taken(trial, earlier, config, weights)
            if isinstance(taken, str):
                left_out[taken] += 1
            elif (earlier.folder, trial.number) not in known:
                study.learn(taken)
        say(_summary(earlier, left_out))


def _read(run: Path) -> Earlier:
    require_run(run)
    journal = run / "study.journal"
    if not journal.exists():
        raise InputError(f"--warm-start must be a search that has begun, but {run} has no study.journal")
    return Earlier(
        folder=str(run),
        config=load(run / "config.yaml", {}),
        corpus=load_corpus(run / "corpus.parquet"),
        trials=own_trials(run),
    )


def _settings(config: SearchConfig) -> dict[str, Any]:
    """What is the same for all trials of a search and decides their scores, beside the data and the weights."""
    training = {f"training.{name}": value for name, value in config.training.model_dump().items()}
    return {
        "front_end": config.front_end,
        "level": config.level,
        "segment_seconds": config.segment_seconds,
        "segments_per_track": config.segments_per_track,
        **training,
    }


def _taken(
    trial: FrozenTrial, earlier: Earlier, config: SearchConfig, weights: Mapping[str, str]
) -> FrozenTrial | str:
    """The trial as the new search would have drawn it, or why it would not."""
    if trial.state in _NO_SCORE:
        return _NO_SCORE[trial.state]
    if trial.value is None:
        return "without an epoch"
    recipe = sample(trial, earlier.config)
    if recipe.backbone not in config.backbones:
        return "backbone outside the space"
    theirs = (earlier.config.provenance or {}).get("weights", {})
    if theirs.get(recipe.backbone) != weights[recipe.backbone]:
        return "with other weights"
    drawn = FixedTrial(
        {name: getattr(recipe, name) for name in Space.model_fields}
        | {f"frozen_blocks_{recipe.backbone}": recipe.frozen_blocks}
    )
    for name in Space.model_fields:
        if not _draws(drawn, name, recipe, config.space):
            return f"{name} outside the space"
    return create_trial(
        state=trial.state,
        value=trial.value,
        params=drawn.params,
        distributions=drawn.distributions,
        user_attrs=trial.user_attrs | {WARM_START: (earlier.folder, trial.number)},
        intermediate_values=trial.intermediate_values,
    )


def _draws(trial: FixedTrial, name: str, recipe: Recipe, space: Space) -> bool:
    """Whether the space has this value of the recipe's; the trial then knows from which distribution."""
    value = getattr(space, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns where a value is out of a range
            drawn = (
                draw_depth(trial, recipe.backbone, value)
                if name == "frozen_blocks"
                else draw(trial, name, value)
            )
    except (ValueError, UserWarning):
        return False
    return bool(drawn == getattr(recipe, name))


def _summary(earlier: Earlier, left_out: Counter[str]) -> str:
    taken = len(earlier.trials) - left_out.total()
    text = f"warm start: {taken} of {len(earlier.trials)} trials of {earlier.folder}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    return f"{text}; left out: {reasons}" if reasons else text
