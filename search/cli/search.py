"""The commands that run a search and show its results: run, resume, results and best."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genre_core.errors import InputError
from genre_core.models.registry import BLOCKS
from search.cli.folders import show_overviews
from search.cli.options import (
    Address,
    AfterFinish,
    App,
    Budget,
    Cache,
    ConfigFile,
    CpusPerTrial,
    Data,
    DataCache,
    DryRun,
    FeatureCache,
    Json,
    LogTo,
    MoreSeeds,
    MovedData,
    Name,
    Overrides,
    Price,
    Quiet,
    RepeatSeeds,
    RunArgument,
    RunArguments,
    Runs,
    Seed,
    StopWhenFlat,
    Storage,
    TimeBudget,
    Trials,
    TrialsPerGpu,
    Verbose,
    WarmStart,
    Workers,
    settings,
)
from search.cli.output import FAILED, complain, disk_full, echo, interruptible, show
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import RUNS, RunFolder, cache_folder, default_name, runs_in

if TYPE_CHECKING:
    import pandas as pd

    from search.config.schema import SearchConfig
    from search.display.progress import Detail, Display

app = App()

_LOADING = "loading PyTorch and Ray"


@app.command()
def run(
    config: ConfigFile = None,
    data: Data = None,
    name: Name = None,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    budget: Budget = None,
    stop_when_flat: StopWhenFlat = False,
    price: Price = None,
    dry_run: DryRun = False,
    address: Address = None,
    workers: Workers = None,
    cpus_per_trial: CpusPerTrial = None,
    trials_per_gpu: TrialsPerGpu = None,
    feature_cache: FeatureCache = None,
    data_cache: DataCache = None,
    seed: Seed = None,
    repeat_seeds: RepeatSeeds = None,
    storage: Storage = None,
    warm_start: WarmStart = None,
    set_: Overrides = None,
    runs: Runs = RUNS,
    cache: Cache = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogTo = None,
) -> None:
    """Search: sample, train and prune trials; save every result.

    Trials run on this machine unless --address names a Ray cluster.

    Examples:

      genre-search run --trials 200

      genre-search run --data ~/music --trials 50 --time-budget 2h

      genre-search run --config configs/demo.yaml --set space.backbone=resnet18

      genre-search run --data ~/music --budget 4h --set price=2.5 --dry-run
    """
    from search.config.schema import load
    from search.run.tables import require_new

    limits = {"trials": trials, "time_budget": time_budget, "worker_budget": budget}
    resources = {"workers": workers, "cpus_per_trial": cpus_per_trial, "trials_per_gpu": trials_per_gpu}
    caches = {"feature_cache": feature_cache, "data_cache": data_cache}
    others = caches | {"seed": seed, "repeat_seeds": repeat_seeds, "price": price}
    places = {"data": data, "address": address, "storage": storage}
    given = settings(
        values=limits | resources | others,
        literals=places | {"stop_when_flat": stop_when_flat or None, "warm_start": warm_start or None},
        overrides=set_,
    )
    screen = _screen(quiet=quiet, verbose=verbose, log_file=log_file)
    folder = runs / (name or default_name(config))
    require_new(folder)
    begin = _dry_run if dry_run else _run
    begin(load(config, given), folder, cache=cache_folder(cache), screen=screen)


@app.command()
def resume(
    run: RunArgument,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    budget: Budget = None,
    stop_when_flat: StopWhenFlat = False,
    price: Price = None,
    address: Address = None,
    workers: Workers = None,
    trials_per_gpu: TrialsPerGpu = None,
    repeat_seeds: MoreSeeds = None,
    storage: Storage = None,
    after_finish: AfterFinish = False,
    data: MovedData = None,
    cache: Cache = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogTo = None,
) -> None:
    """Resume an interrupted search, or extend a completed one.

    Completed trials are kept; interrupted ones continue from their last checkpoint. Options that are not
    given stay as they were; a time budget starts anew.

    Examples:

      genre-search resume runs/music

      genre-search resume runs/music --trials 300

      genre-search resume runs/music --storage s3://bucket/searches
    """
    from search.config.schema import load

    _require_run(run, storage)
    limits = {"trials": trials, "time_budget": time_budget, "worker_budget": budget}
    resources = {"workers": workers, "trials_per_gpu": trials_per_gpu}
    given = settings(
        values=limits | resources | {"repeat_seeds": repeat_seeds, "price": price},
        literals={"address": address, "storage": storage, "stop_when_flat": stop_when_flat or None},
    )
    screen = _screen(quiet=quiet, verbose=verbose, log_file=log_file)
    loaded = load(RunFolder(run).config, given)

    def start(display: "Display") -> bool:
        from search.tune import search

        return search.resume(
            loaded,
            folder=run.absolute(),
            cache=cache_folder(cache),
            reporter=display,
            after_finish=after_finish,
            data=data,
        )

    _drive(start, loaded, run, screen=screen, resumed=True)


@app.command()
def results(
    runs: RunArguments = None,
    top: Annotated[int, typer.Option(metavar="N", help="Number of rows.", min=1)] = 20,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help="Only trials that are COMPLETE, PRUNED, FAIL or RUNNING.",
            autocompletion=lambda: ["complete", "pruned", "fail", "running"],
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only trials of this backbone.", autocompletion=lambda: [*BLOCKS]),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Sort by this column; scores from high to low.")
    ] = "val_f1",
    costs: Annotated[
        bool, typer.Option("--costs", help="Show the cost of an epoch by backbone and frozen depth.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows and columns as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show the leaderboard of one or more searches.

    A search may still be running. If several are given, the others are compared with the first, with a
    warning if their scores are not comparable.

    Examples:

      genre-search results runs/music --sort seconds --backbone resnet18

      genre-search results runs/music runs/again --state complete
    """
    from search.report import comparison
    from search.run.overview import find_runs, overview
    from search.run.ranking import select

    runs = find_runs(runs or ())
    if len(runs) == 1 and (inside := runs_in(runs[0])):
        show_overviews([overview(run) for run in inside])
        return
    trials = comparison.read_together(runs)
    selected = select(trials, state=state, backbone=backbone, sort=sort)
    if as_json:
        _echo_json(selected)
        return
    if csv:
        echo(selected.to_csv(index=False), nl=False)
        return
    if costs:
        _show_costs(selected, comparison.names(runs))
        return
    _show_leaderboard(runs, trials, selected.head(top))


def _show_leaderboard(runs: Sequence[Path], trials: "pd.DataFrame", rows: "pd.DataFrame") -> None:
    """Show a table of trials, and a summary of each run.

    Args:
        runs: their folders; several are compared first.
        trials: all trials of the runs.
        rows: the trials of the table, in order.
    """
    from search.report import comparison, leaderboard

    several = len(runs) > 1
    if several:
        show(*comparison.compare(runs, trials), "")
    show(leaderboard.table(rows, of_several=several))
    if not several:
        show(leaderboard.summary(trials))
    for run, name in zip(runs, comparison.names(runs), strict=True):
        own = trials[trials["study"] == name]
        show(*(leaderboard.expected(run, own) if not several else []), *leaderboard.abandoned(run, own))


def _echo_json(trials: "pd.DataFrame") -> None:
    """Print a JSON object per trial."""
    echo(trials.to_json(orient="records", lines=True, date_format="iso"), nl=False)


def _show_costs(trials: "pd.DataFrame", names: Sequence[str]) -> None:
    """Show the cost of an epoch in each run, below the run's name if there are several."""
    from search.report import leaderboard

    for name in names:
        if len(names) > 1:
            echo(name)
        show(*leaderboard.costs(trials[trials["study"] == name]))


@app.command()
def best(run: RunArgument, as_json: Json = False) -> None:
    """Show the best settings and how to repeat them.

    Writes RUN/winner.yaml, the settings of a search that repeats the best trial.

    Example:

      genre-search best runs/music
    """
    from search.report import winner
    from search.run.ranking import select
    from search.run.tables import read_trials

    if as_json:
        _echo_json(select(read_trials(run)).head(1))
        return
    show(*winner.best_trial(run))
    try:
        file = winner.write_winner(run)
    except OSError as error:
        echo(
            f"{RunFolder(run).winner} cannot be written, so the trial cannot be repeated from it: {error.strerror}"
        )
        return
    echo(f"\nRepeat it with:\n{command('run', '--config', file)}")


def _require_run(run: Path, storage: str | None) -> None:
    """Raise InputError if a folder holds no run; one that does not exist is fetched from the storage first."""
    from search.run.tables import require_run

    if storage is not None and not run.exists():
        from search.run.mirror import fetch

        fetch(storage, run.name, run)
    require_run(run)


@dataclass(frozen=True, kw_only=True)
class _Screen:
    """The output of a search."""

    detail: "Detail"
    log_file: Path | None


def _screen(*, quiet: bool, verbose: bool, log_file: Path | None) -> _Screen:
    """The output that the options ask for.

    Raises:
        InputError: the options contradict each other.
    """
    from search.display.progress import Detail

    if quiet and verbose:
        raise InputError(
            "--quiet and --verbose exclude each other, but got both; give one of them",
            code=SearchErrorCode.OPTIONS_EXCLUSIVE,
        )
    detail = Detail.RESULTS if quiet else Detail.EPOCHS if verbose else Detail.TRIALS
    return _Screen(detail=detail, log_file=log_file)


@contextmanager
def _display(config: "SearchConfig", screen: _Screen) -> "Iterator[Display]":
    """The display of a search, whose log file is closed at the end of the context."""
    from search.display.area import console
    from search.display.log_file import LogFile
    from search.display.progress import Display

    log = LogFile(screen.log_file) if screen.log_file else None
    try:
        yield Display(
            console(),
            trials=config.trials,
            time_budget=config.time_budget,
            price=config.price,
            detail=screen.detail,
            log=log,
            local=config.address is None,
        )
    finally:
        if log:
            log.close()


def _title(config: "SearchConfig", folder: Path, *, resumed: bool = False) -> str:
    from search.display.plan_output import title

    return title(config, folder, resumed=resumed)


def _run(config: "SearchConfig", folder: Path, *, cache: Path, screen: _Screen) -> None:
    """Run a search in a new folder."""

    def start(display: "Display") -> bool:
        from search.tune import search

        return search.run(config, folder=folder.absolute(), cache=cache, reporter=display)

    _drive(start, config, folder, screen=screen)


def _dry_run(config: "SearchConfig", folder: Path, *, cache: Path, screen: _Screen) -> None:
    """Show the plan of a search without creating its folder."""
    with _display(config, screen) as display, interruptible(lambda: "nothing was started"):
        display.say(_title(config, folder))
        with display.working(_LOADING):
            from search.tune.plan import dry_run
        display.plan(dry_run(config, cache=cache, reporter=display))


def _drive(
    start: "Callable[[Display], bool]",
    config: "SearchConfig",
    folder: Path,
    *,
    screen: _Screen,
    resumed: bool = False,
) -> None:
    """Run a search and show its results; after an interrupt, print how to resume it.

    Args:
        start: runs the search on a display; returns whether the search reached its end.
        config: the settings of the search.
        folder: the run folder.
        screen: the output.
        resumed: whether the search was started before.
    """

    def next_step() -> str:
        if RunFolder(folder).config.exists():
            return f"resume with: {command('resume', folder)}"
        return "nothing was started, and no file was left behind"

    with _display(config, screen) as display, interruptible(next_step):
        display.say(_title(config, folder, resumed=resumed))
        complete = _completed(start, folder, display)
        _show_results(folder, display, complete=complete)
        if not complete:
            raise KeyboardInterrupt


def _completed(start: "Callable[[Display], bool]", folder: Path, display: "Display") -> bool:
    """Run a search; returns whether it reached its end."""
    with display.working(_LOADING):
        from search.run.checkpoints import is_full
        from search.tune.search import SearchFailed
    try:
        complete = start(display)
        if spent := display.spent():
            display.say(spent)
        return complete
    except SearchFailed as error:
        raise typer.Exit(complain(f"all trials failed; the first error: {error}", FAILED)) from error
    except OSError as error:
        if not (is_full(error) and RunFolder(folder).config.exists()):
            raise
        raise disk_full(error, command("resume", folder)) from error


def _show_results(folder: Path, display: "Display", *, complete: bool) -> None:
    """Show the best trials and, if the search reached its end, what to do next."""
    from search.display.ending import show_ending

    scored = show_ending(display, folder)
    if complete and scored:
        echo(f"{command('best', folder)}\n{command('report', folder)}")
    elif complete:
        echo(f"no epoch was completed; allow more time: {command('resume', folder)} --time-budget 2h")
