"""The commands that run a search and show its results: run, resume, results and best."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genre_core.models.registry import BLOCKS
from search.cli.options import (
    Address,
    AfterFinish,
    App,
    Budget,
    Cache,
    ConfigFile,
    CpusPerTrial,
    Data,
    DryRun,
    FeatureCache,
    MovedData,
    Name,
    Overrides,
    Price,
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
    WarmStart,
    Workers,
    cache_folder,
    price_of,
    settings,
)
from search.cli.output import FAILED, complain, console, disk_full, echo, interruptible, show
from search.run.commands import command
from search.run.folder import RunFolder

if TYPE_CHECKING:
    from search.cli.progress import Display
    from search.config.schema import SearchConfig

app = App()


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
    seed: Seed = None,
    repeat_seeds: RepeatSeeds = None,
    storage: Storage = None,
    warm_start: WarmStart = None,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    cache: Cache = None,
) -> None:
    """Search: sample, train and prune trials; save every result.

    Trials run on this machine unless --address names a Ray cluster.

    Examples:

      genre-search run --trials 200

      genre-search run --data ~/music --trials 50 --time-budget 2h

      genre-search run --config configs/demo.yaml --set space.backbone=resnet18

      genre-search run --data ~/music --budget 4h --price 2.5 --dry-run
    """
    from search.config.schema import load
    from search.run.tables import require_new

    limits = {"trials": trials, "time_budget": time_budget, "worker_budget": budget}
    resources = {"workers": workers, "cpus_per_trial": cpus_per_trial, "trials_per_gpu": trials_per_gpu}
    others = {"seed": seed, "repeat_seeds": repeat_seeds, "feature_cache": feature_cache}
    places = {"data": data, "address": address, "storage": storage}
    given = settings(
        values=limits | resources | others,
        literals=places | {"stop_when_flat": stop_when_flat or None, "warm_start": warm_start or None},
        overrides=set_,
    )
    hourly = price_of(price)
    folder = runs / (name or _default_name(config))
    require_new(folder)
    begin = _dry_run if dry_run else _run
    begin(load(config, given), folder, cache=cache_folder(cache), price=hourly)


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
    repeat_seeds: RepeatSeeds = None,
    storage: Storage = None,
    after_finish: AfterFinish = False,
    data: MovedData = None,
    cache: Cache = None,
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
        values=limits | resources | {"repeat_seeds": repeat_seeds},
        literals={"address": address, "storage": storage, "stop_when_flat": stop_when_flat or None},
    )
    hourly = price_of(price)
    loaded = load(RunFolder(run).config, given)
    title = f"Resuming search {run.resolve().name}: up to {loaded.trials} trials"

    def start(screen: "Display") -> bool:
        from search.tune import search

        return search.resume(
            loaded,
            folder=run.absolute(),
            cache=cache_folder(cache),
            reporter=screen,
            after_finish=after_finish,
            data=data,
        )

    _drive(start, title, loaded, run, price=hourly)


@app.command()
def results(
    runs: RunArguments,
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
) -> None:
    """Show the leaderboard of one or more searches.

    A search may still be running. Several searches are compared with the first, and a line says where their
    scores are not comparable.

    Examples:

      genre-search results runs/music --sort seconds --backbone resnet18

      genre-search results runs/music runs/again --state complete
    """
    from search.report import comparison, leaderboard
    from search.run.ranking import select

    several = len(runs) > 1
    trials = comparison.read_together(runs)
    selected = select(trials, state=state, backbone=backbone, sort=sort)
    if csv:
        echo(selected.to_csv(index=False), nl=False)
        return
    if costs:
        for name in comparison.names(runs):
            if several:
                echo(name)
            show(leaderboard.costs(selected[selected["study"] == name]))
        return
    if several:
        show(*comparison.compare(runs, trials))
    show(leaderboard.table(selected.head(top), of_several=several))
    if not several:
        show(leaderboard.summary(trials))
    for run, name in zip(runs, comparison.names(runs), strict=True):
        own = trials[trials["study"] == name]
        show(*(leaderboard.expected(run, own) if not several else []), *leaderboard.abandoned(run, own))


@app.command()
def best(run: RunArgument) -> None:
    """Show the best settings and how to repeat them.

    Example:

      genre-search best runs/music
    """
    from search.report import leaderboard

    show(*leaderboard.best_trial(run))


def _require_run(run: Path, storage: str | None) -> None:
    """Raise InputError if a folder holds no run; one that does not exist is fetched from the storage first."""
    from search.run.tables import require_run

    if storage is not None and not run.exists():
        from search.run.mirror import fetch

        fetch(storage, run.name, run)
    require_run(run)


def _title(config: "SearchConfig", folder: Path) -> str:
    return f"Search {folder.name}: up to {config.trials} trials over {', '.join(config.backbones)}"


def _run(config: "SearchConfig", folder: Path, *, cache: Path, price: float | None) -> None:
    """Run a search in a new folder."""

    def start(screen: "Display") -> bool:
        from search.tune import search

        return search.run(config, folder=folder.absolute(), cache=cache, reporter=screen)

    _drive(start, _title(config, folder), config, folder, price=price)


def _dry_run(config: "SearchConfig", folder: Path, *, cache: Path, price: float | None) -> None:
    """Show the plan of a search in a new folder, which is not created."""
    from search.cli.progress import Display
    from search.tune.plan import dry_run

    display = Display(console(), trials=config.trials, price=price)
    display.say(_title(config, folder))
    with interruptible(lambda: "nothing was started"):
        display.plan(dry_run(config, cache=cache, reporter=display))


def _drive(
    start: "Callable[[Display], bool]",
    title: str,
    config: "SearchConfig",
    folder: Path,
    *,
    price: float | None = None,
) -> None:
    """Run a search and show its results; after an interrupt, print how to resume it.

    Args:
        start: runs the search on a display; returns whether the search reached its end.
        title: the first line shown.
        config: the settings of the search.
        folder: the run folder.
        price: of an hour of a worker; None for no price.
    """

    def next_step() -> str:
        if RunFolder(folder).config.exists():
            return f"resume with: {command('resume', folder)}"
        return "nothing was started, and no file was left behind"

    with interruptible(next_step):
        complete = _completed(start, title, config, folder, price)
        _show_results(folder, complete=complete)
        if not complete:
            raise KeyboardInterrupt


def _completed(
    start: "Callable[[Display], bool]",
    title: str,
    config: "SearchConfig",
    folder: Path,
    price: float | None,
) -> bool:
    """Run a search; returns whether it reached its end."""
    from search.cli.progress import Display
    from search.run.checkpoints import is_full
    from search.tune.search import SearchFailed

    display = Display(console(), trials=config.trials, time_budget=config.time_budget, price=price)
    display.say(title)
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


def _show_results(folder: Path, *, complete: bool) -> None:
    from search.report import leaderboard
    from search.run.ranking import select
    from search.run.tables import read_trials

    trials = read_trials(folder)
    show(leaderboard.table(select(trials).head(5)), leaderboard.summary(trials))
    show(*leaderboard.expected(folder, trials))
    if not complete:
        return
    if trials["val_f1"].notna().any():
        echo(f"{command('best', folder)}    {command('report', folder)}")
    else:
        echo(f"no epoch was completed; allow more time: {command('resume', folder)} --time-budget 2h")


def _default_name(config: Path | None) -> str:
    return f"{config.stem if config else 'search'}-{datetime.now():%Y%m%d-%H%M%S}"
