"""Warm start: gives a new search the trials of earlier ones, as far as they are comparable."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from genre_core.corpus.corpus_table import require_corpus
from genre_core.corpus.tracks import Corpus
from genre_core.errors import InputError
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load
from search.config.space import FROZEN_SHARE, Space
from search.errors import SearchErrorCode
from search.run.conditions import conditions, differences, read_conditions
from search.run.folder import RunFolder
from search.run.tables import require_run
from search.study.journal import own_trials
from search.study.study import WARM_START, Study
from search.study.suggest import fixed_trial, sample, suggest, suggest_depth

_NO_SCORE = {TrialState.FAIL: "failed", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier search."""

    folder: str
    config: SearchConfig
    trials: Sequence[FrozenTrial]
    """Its own trials, without those that it took over from other searches."""


def read_earlier(config: SearchConfig) -> list[Earlier]:
    """Read the searches that `config.warm_start` names; nothing is changed in their folders.

    Raises:
        InputError: a folder holds no search, or a setting that affects the score differs from this search's.
    """
    found = [_read(Path(run)) for run in config.warm_start]
    ours = _scoring_settings(config)
    for earlier in found:
        theirs = _scoring_settings(earlier.config)
        for name in (name for name in ours if ours[name] != theirs[name]):
            raise InputError(
                f"--warm-start needs a search whose scores are comparable, but {earlier.folder} has "
                f"{name}={theirs[name]}, not {ours[name]}; leave it out, or use its setting",
                code=SearchErrorCode.WARM_START_NOT_COMPARABLE,
            )
    return found


def require_same_data(config: SearchConfig, searches: Sequence[Earlier], tracks: Corpus) -> None:
    """Raise InputError if an earlier search has another corpus, other genres or another split."""
    for earlier in searches:
        theirs = read_conditions(earlier.config, RunFolder(Path(earlier.folder)).corpus)
        if differ := differences(theirs, conditions(config, tracks)):
            raise InputError(
                f"--warm-start needs a search whose scores are comparable, but {earlier.folder} differs in its "
                f"{' and its '.join(differ)}; leave it out, or search the same data",
                code=SearchErrorCode.WARM_START_NOT_COMPARABLE,
            )


def teach(
    study: Study,
    config: SearchConfig,
    searches: Sequence[Earlier],
    *,
    weights: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Add the earlier trials that the study does not have yet, and report how many were left out and why.

    Args:
        study: the study of the new search.
        config: the new search's configuration.
        searches: the earlier searches.
        weights: backbone -> identity of the weights that the new search starts from.
        say: called with one line per earlier search.
    """
    for earlier in searches:
        known = study.known
        left_out: Counter[str] = Counter()
        for trial in earlier.trials:
            converted = _converted(trial, earlier, config, weights)
            if isinstance(converted, str):
                left_out[converted] += 1
            elif (earlier.folder, trial.number) not in known:
                study.learn(converted)
        say(_summary(earlier, left_out))


def _read(run: Path) -> Earlier:
    require_run(run)
    if not RunFolder(run).journal.exists():
        raise InputError(
            f"--warm-start needs a search that has started, but {RunFolder(run).journal} does not exist; leave it out",
            code=SearchErrorCode.WARM_START_NOT_STARTED,
        )
    require_corpus(RunFolder(run).corpus)
    return Earlier(
        folder=str(run),
        config=load(RunFolder(run).config, {}),
        trials=own_trials(run),
    )


def _scoring_settings(config: SearchConfig) -> dict[str, Any]:
    """Settings, shared by all trials of a search, that affect scores; the data and the weights are compared apart."""
    training = {f"training.{name}": value for name, value in config.training.model_dump().items()}
    return {
        "front_end": config.front_end,
        "level": config.level,
        "segment_seconds": config.segment_seconds,
        "segments_per_track": config.segments_per_track,
        **training,
    }


def _converted(
    trial: FrozenTrial, earlier: Earlier, config: SearchConfig, weights: Mapping[str, str]
) -> FrozenTrial | str:
    """The trial with the distributions of the new search, or the reason why it is left out."""
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
    settings = {name: getattr(recipe, name) for name in Space.model_fields}
    replayed = fixed_trial(settings, share=trial.params.get(FROZEN_SHARE))
    for name in Space.model_fields:
        if not _is_in_space(replayed, name, recipe, config.space):
            return f"{name} outside the space"
    return create_trial(
        state=trial.state,
        value=trial.value,
        params=replayed.params,
        distributions=replayed.distributions,
        user_attrs=trial.user_attrs | {WARM_START: (earlier.folder, trial.number)},
        intermediate_values=trial.intermediate_values,
    )


def _is_in_space(trial: FixedTrial, name: str, recipe: Recipe, space: Space) -> bool:
    """Suggest one setting of the recipe; whether the space contains its value."""
    value = getattr(space, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna only warns about a value outside its range
            suggested = (
                suggest_depth(trial, recipe.backbone, value)
                if name == "frozen_blocks"
                else suggest(trial, name, value)
            )
    except (ValueError, UserWarning):
        return False
    return bool(suggested == getattr(recipe, name))


def _summary(earlier: Earlier, left_out: Counter[str]) -> str:
    taken = len(earlier.trials) - left_out.total()
    text = f"warm start: {taken} of {len(earlier.trials)} trials of {earlier.folder}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    return f"{text}; left out: {reasons}" if reasons else text
