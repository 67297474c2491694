"""genre-search on the command line: parses, calls, prints; what is heavy is imported where it is used."""

import errno
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from genre_core.errors import InputError
from genre_core.models.registry import BLOCKS
from search.cli import data as cli_data
from search.cli import model
from search.cli.common import (
    FAILED,
    USER_MISTAKE,
    App,
    Cache,
    MovedData,
    RunFolder,
    TrialsPerGpu,
    cache_folder,
    complain,
    console,
    disk_full,
    echo,
    interruptible,
    show,
    use_plain_characters,
)
from search.run.commands import command

if TYPE_CHECKING:
    from search.config.schema import SearchConfig

_IN_ORDER_OF_USE = (
    *("run", "resume", "results", "best", "finish", "report", "export", "predict"),
    *("data", "cluster", "version"),
)


class _Commands(TyperGroup):
    """The commands, listed in the order in which they are used."""

    def list_commands(self, ctx: object) -> list[str]:
        return sorted(self.commands, key=_IN_ORDER_OF_USE.index)


app = App(
    cls=_Commands,
    help="""Finds the best way to fine-tune an ImageNet CNN on mel spectrograms for music genre classification.

    Examples, from a folder of music with a folder for each genre to a model:

      genre-search run --data ~/music --trials 200 --name music

      genre-search report runs/music

      genre-search finish runs/music

      genre-search export runs/music music-model

      genre-search predict music-model song.mp3
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cluster_app = App(help="Look at a cluster file before it is launched.", no_args_is_help=True)
app.add_typer(cli_data.app, name="data")
app.add_typer(cluster_app, name="cluster")
app.add_typer(model.app)

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Where a copy of the run is kept: s3://…, gs://…, any of pyarrow's."
    ),
]
_SYSTEM_SAYS_NO = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""What the system has against a path that the user gave: full, forbidden, or of another kind."""


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file; see configs/. Without one, the defaults."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="A folder of genre folders, a manifest (CSV or Parquet), or `builtin`."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the run's folder; without one, the time of day.")
    ] = None,
    trials: Annotated[str | None, typer.Option(metavar="N", help="How many trials.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="End after so long: 90s, 30m, 2h.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="A running Ray cluster, or `auto`; without one, this machine."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Trials at a time; without it, as many as fit.")
    ] = None,
    cpus_per_trial: Annotated[str | None, typer.Option(metavar="X", help="Cores a trial takes.")] = None,
    trials_per_gpu: Annotated[
        str | None, typer.Option(metavar="N", help="Trials that share a GPU, or `auto`, by their memory.")
    ] = None,
    feature_cache: Annotated[
        str | None, typer.Option(metavar="GIB", help="Disk on a node for what its trials share; 0 for none.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Of the sampler and of every trial.")] = None,
    repeat_seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Seeds to try each configuration of a finite space with.")
    ] = None,
    storage: Storage = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="An earlier search, whose trials this one learns from; repeatable."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as training.epochs=5."),
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds the runs.")] = Path("runs"),
    cache: Cache = None,
) -> None:
    """Search: sample, fine-tune and prune trials; keep every result.

    Examples:

      genre-search run --trials 200

      genre-search run --data ~/music --trials 50 --time-budget 2h

      genre-search run --config configs/demo.yaml --set space.backbone=resnet18
    """
    from search.config import schema as settings
    from search.run.tables import require_new

    texts = {"data": data, "address": address, "storage": storage}
    values = {
        "trials": trials,
        "time_budget": time_budget,
        "workers": workers,
        "cpus_per_trial": cpus_per_trial,
        "trials_per_gpu": trials_per_gpu,
        "feature_cache": feature_cache,
        "seed": seed,
        "repeat_seeds": repeat_seeds,
    }
    overrides = _overrides(set_ or []) | _given(values, texts)
    if warm_start:
        overrides["warm_start"] = warm_start
    folder = runs / (name or _default_name(config))
    require_new(folder)
    loaded = settings.load(config, overrides)
    title = f"Search {folder.name}: up to {loaded.trials} trials over {', '.join(loaded.backbones)}"
    _drive("run", title, loaded, folder, cache)


@app.command()
def resume(
    run: RunFolder,
    trials: Annotated[str | None, typer.Option(metavar="N", help="How many trials in all.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="End after so long from now: 90s, 30m, 2h.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="A running Ray cluster, or `auto`; without one, as before."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Trials at a time; without it, as before.")
    ] = None,
    trials_per_gpu: TrialsPerGpu = None,
    repeat_seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Seeds to try each configuration of a finite space with.")
    ] = None,
    storage: Storage = None,
    after_finish: Annotated[
        bool,
        typer.Option("--after-finish", help="Add trials even though the test part was read; recorded."),
    ] = False,
    data: MovedData = None,
    cache: Cache = None,
) -> None:
    """Go on with a search that was cut off, or extend one.

    What has ended stays as it is; what was running goes on from its last checkpoint.

    Examples:

      genre-search resume runs/music

      genre-search resume runs/music --trials 300

      genre-search resume runs/music --storage s3://bucket/searches
    """
    from search.config import schema as settings
    from search.run.tables import require_run

    if storage is not None and not run.exists():
        from search.run.mirror import fetch

        fetch(storage, run.name, run)
    require_run(run)
    values = {
        "trials": trials,
        "time_budget": time_budget,
        "workers": workers,
        "trials_per_gpu": trials_per_gpu,
        "repeat_seeds": repeat_seeds,
    }
    texts = {"address": address, "storage": storage}
    loaded = settings.load(run / "config.yaml", _given(values, texts))
    title = f"Search {run.resolve().name} goes on: up to {loaded.trials} trials"
    _drive("resume", title, loaded, run, cache, after_finish=after_finish, data=data)


@app.command()
def results(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="The folder of a search, runs/NAME; several to compare."),
    ],
    top: Annotated[int, typer.Option(metavar="N", help="Rows to show.", min=1)] = 20,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help="Only COMPLETE, PRUNED, FAIL or RUNNING trials.",
            autocompletion=lambda: ["complete", "pruned", "fail", "running"],
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this backbone's trials.", autocompletion=lambda: list(BLOCKS)
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="What to sort by; scores from the best.")
    ] = "val_f1",
    costs: Annotated[
        bool, typer.Option("--costs", help="What an epoch took, by backbone and frozen depth.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="All columns of all rows, as CSV.")] = False,
) -> None:
    """The leaderboard of a search, also while it runs, or of several.

    Several stand side by side, with a line for each whose scores are not comparable to the first one's.

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
    for name in comparison.names(runs) if costs else []:
        if several:
            echo(name)
        show(leaderboard.costs(selected[selected["study"] == name]))
    if costs:
        return
    if several:
        show(*comparison.compare(runs, trials))
    show(leaderboard.table(selected.head(top), of_several=several))
    if not several:
        show(leaderboard.summary(trials))
    for run, name in zip(runs, comparison.names(runs), strict=True):
        show(*leaderboard.abandoned(run, trials[trials["study"] == name]))


@app.command()
def best(run: RunFolder) -> None:
    """The winning settings, their curve, and how to repeat them.

    Example:

      genre-search best runs/music
    """
    from search.report import leaderboard

    show(*leaderboard.best_trial(run))


@cluster_app.command("check")
def check_cluster(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="For `ray up`, or with a RayJob or RayCluster.")
    ],
) -> None:
    """What is unsafe in a cluster file, or does not fit.

    Exits with 1 if anything is.

    Examples:

      genre-search cluster check cluster.yaml

      genre-search cluster check kubernetes/rayjob.yaml
    """
    from search.cluster_lint.ray_up import check as problems_in

    for problem in (problems := problems_in(file)):
        echo(problem)
    if problems:
        raise typer.Exit(FAILED)
    echo(f"{file}: no problem")


@app.command()
def version() -> None:
    """All versions, and the devices that trials would run on."""
    import torch

    from search.run.provenance import versions

    echo(f"python {sys.version.split()[0]}")
    for package, installed in versions().items():
        echo(f"{package} {installed}")
    for gpu in range(torch.cuda.device_count()):
        echo(f"cuda:{gpu} {torch.cuda.get_device_name(gpu)}")
    echo(f"cpu, {torch.get_num_threads()} threads")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    use_plain_characters()
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = complain(error, USER_MISTAKE)
    except TyperException as error:  # what the command line's parser raises
        code = _explain(error.format_message())
    except BrokenPipeError:  # `genre-search results RUN --csv | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except OSError as error:
        if error.errno not in _SYSTEM_SAYS_NO:
            raise
        code = complain(f"{error.filename or 'a file'} cannot be used: {error.strerror}", USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)


def _drive(
    how: str, title: str, config: "SearchConfig", folder: Path, cache: Path | None, **options: Any
) -> None:
    """`run` or `resume` a search with options of its own, and show what it came to; an interrupt says what is next."""

    def what_next() -> str:
        if (folder / "config.yaml").exists():
            return f"go on with it: {command('resume', folder)}"
        return "nothing was started, and nothing is left of it"

    with interruptible(what_next):
        complete = _driven(how, title, config, folder, cache, **options)
        _show_result(folder, complete=complete)
        if not complete:
            raise KeyboardInterrupt


def _driven(
    how: str, title: str, config: "SearchConfig", folder: Path, cache: Path | None, **options: Any
) -> bool:
    """Whether the search came to its end."""
    from search.cli.progress import Display
    from search.run.checkpoints import is_full
    from search.tune import search

    display = Display(console(), trials=config.trials, time_budget=config.time_budget)
    display.say(title)
    drive = {"run": search.run, "resume": search.resume}[how]
    try:
        places = {"folder": folder.absolute(), "cache": cache_folder(cache)}
        return drive(config, screen=display, **places, **options)
    except search.SearchFailed as error:
        raise typer.Exit(complain(f"every trial failed; the first because: {error}", FAILED)) from error
    except OSError as error:
        if not (is_full(error) and (folder / "config.yaml").exists()):
            raise
        raise disk_full(error, command("resume", folder)) from error


def _show_result(folder: Path, *, complete: bool) -> None:
    from search.report import leaderboard
    from search.run.ranking import select
    from search.run.tables import read_trials

    trials = read_trials(folder)
    show(leaderboard.table(select(trials).head(5)), leaderboard.summary(trials))
    if not complete:
        return
    if trials["val_f1"].notna().any():
        echo(f"{command('best', folder)}    {command('report', folder)}")
    else:
        echo(f"no epoch was finished; give it more time: {command('resume', folder)} --time-budget 2h")


def _overrides(texts: list[str]) -> dict[str, Any]:
    """What `--set` sets, each setting once."""
    from search.config.schema import parse_override

    given: dict[str, Any] = {}
    for key, value in map(parse_override, texts):
        if key in given:
            raise InputError(f"--set must set {key} once, but got {given[key]!r} and {value!r}; keep one")
        given[key] = value
    return given


def _given(values: dict[str, str | None], texts: dict[str, str | None]) -> dict[str, Any]:
    """The options that were given, by setting: values are read as YAML, texts are taken as they are."""
    from search.config.schema import parse_value

    read = {key: parse_value(value) for key, value in values.items() if value is not None}
    return read | {key: text for key, text in texts.items() if text is not None}


def _default_name(config: Path | None) -> str:
    return f"{config.stem if config else 'search'}-{datetime.now():%Y%m%d-%H%M%S}"


def _explain(message: str) -> int:
    """Of the command line's parser: the help, where nothing was asked, or a mistake."""
    if message.startswith("Usage:"):
        echo(message)
        return 0
    return complain(message, USER_MISTAKE)
