"""Run a search, or resume one, from Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.api.callbacks import Callbacks, OnEpoch, OnTrial
from search.api.given import by_dotted_key
from search.api.result import Result, open_run
from search.api.screen import display_of
from search.config.schema import SearchConfig, load
from search.display.ending import show_ending
from search.display.plan_output import title
from search.display.progress import Display
from search.run.folder import RUNS, RunFolder, cache_folder, default_name
from search.run.tables import require_new


def search(
    data: str | Path | None = None,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    runs: str | Path = RUNS,
    cache: str | Path | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    on_trial: OnTrial | None = None,
    **settings: Any,
) -> Result:
    """Search: sample, train and prune trials; save every result.

    Args:
        data: path or address of a folder with one subfolder per genre or of a manifest (CSV, TSV or Parquet), or
            `builtin` [default: the `data` of `config`, or `builtin`].
        config: a YAML file of settings, such as those in configs/ or the config.yaml of a run.
        name: of the run folder [default: `config`'s name or `search`, and the time].
        runs: the folder that contains the run folders.
        cache: the folder for spectrograms, audits and activations [default: GENRE_SEARCH_CACHE, or the user's].
        progress: whether to show progress, in a terminal, a notebook or a file.
        on_epoch: called in this process with each epoch, after it was saved. An exception that it raises ends the
            search, which can then be resumed, and is re-raised here.
        on_trial: called in the same way with each trial that ends.
        settings: any setting of docs/settings.md, such as `trials=50` or `space={"backbone": "resnet18"}`. A group
            (`space`, `training`, `split`, …) changes only the settings in it. Durations are texts: `"2h"`.

    Returns:
        The run. It may have ended before its last trial because a budget was spent.

    Raises:
        InputError: the data, a setting or the cluster cannot be used, or the run folder exists.
        SearchFailed: every trial failed.
        KeyboardInterrupt: Ctrl-C, or the notebook's interrupt. All results are saved, and `resume` continues.
    """
    given = by_dotted_key(settings | ({} if data is None else {"data": data}))
    file = None if config is None else Path(config)
    folder = Path(runs).expanduser() / (name or default_name(file))
    require_new(folder)
    loaded = load(file, given)

    def start(display: Display) -> bool:
        from search.tune import search as on_ray

        return on_ray.run(loaded, folder=folder.absolute(), cache=_cache(cache), reporter=display)

    callbacks = Callbacks(on_epoch=on_epoch, on_trial=on_trial)
    return _drive(start, loaded, folder, callbacks, progress=progress)


def resume(
    run: str | Path,
    *,
    trials: int | None = None,
    time_budget: str | None = None,
    worker_budget: str | None = None,
    stop_when_flat: bool | None = None,
    address: str | None = None,
    workers: int | None = None,
    trials_per_gpu: int | str | None = None,
    repeat_seeds: int | None = None,
    storage: str | None = None,
    after_finish: bool = False,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    on_trial: OnTrial | None = None,
) -> Result:
    """Resume an interrupted search, or extend a completed one.

    Completed trials are kept; interrupted ones continue from their last checkpoint. Settings that are not given stay
    as they were.

    Args:
        run: the run folder, or its name in runs/.
        trials: number of trials in all.
        time_budget: time after which the search ends, such as `"2h"`; it starts anew.
        worker_budget: training time summed over all workers, including the time before resuming.
        stop_when_flat: whether to end when no further improvement is expected.
        address: of a running Ray cluster.
        workers: maximum number of trials that run in parallel.
        trials_per_gpu: trials that share a GPU, or `"auto"`.
        repeat_seeds: seeds for each configuration of a finite space.
        storage: where to mirror the run's folder.
        after_finish: allow more trials although the test set was already used, which is recorded.
        data: where the music is now, if it was moved.
        cache: see `search`.
        progress: see `search`.
        on_epoch: see `search`.
        on_trial: see `search`.

    Returns:
        The run.

    Raises:
        InputError: see `search`; or the folder contains no run, or another process drives it.
        SearchFailed: every trial failed.
        KeyboardInterrupt: see `search`.
    """
    limits = {"trials": trials, "time_budget": time_budget, "worker_budget": worker_budget}
    resources = {"address": address, "workers": workers, "trials_per_gpu": trials_per_gpu}
    others = {"stop_when_flat": stop_when_flat, "repeat_seeds": repeat_seeds, "storage": storage}
    given = {name: value for name, value in (limits | resources | others).items() if value is not None}
    folder = open_run(run).path
    loaded = load(RunFolder(folder).config, by_dotted_key(given))

    def start(display: Display) -> bool:
        from search.tune import search as on_ray

        return on_ray.resume(
            loaded,
            folder=folder.absolute(),
            cache=_cache(cache),
            reporter=display,
            after_finish=after_finish,
            data=data,
        )

    callbacks = Callbacks(on_epoch=on_epoch, on_trial=on_trial)
    return _drive(start, loaded, folder, callbacks, progress=progress, resumed=True)


def _drive(
    start: Callable[[Display], bool],
    config: SearchConfig,
    folder: Path,
    callbacks: Callbacks,
    *,
    progress: bool,
    resumed: bool = False,
) -> Result:
    """Run a search on a display and show its results."""
    display = display_of(config, callbacks, progress=progress)
    display.say(title(config, folder, resumed=resumed))
    with callbacks.reraised():
        complete = start(display)
    if spent := display.spent():
        display.say(spent)
    show_ending(display, folder)
    if not complete:
        display.say(f'interrupted; to continue: resume("{folder}")')
        raise KeyboardInterrupt
    return Result(folder)


def _cache(given: str | Path | None) -> Path:
    return cache_folder(None if given is None else Path(given).expanduser())
