"""genre-search on the command line: parses, calls, prints; what is heavy is imported where it is used."""

import errno
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from genre_core.errors import InputError

if TYPE_CHECKING:
    from search.config import SearchConfig

app = typer.Typer(
    help="Finds the best way to fine-tune an ImageNet CNN on mel spectrograms for music genre classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a corpus, or make one.", no_args_is_help=True)
cluster_app = typer.Typer(help="Look at a cluster file before it is launched.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(cluster_app, name="cluster")

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Where a copy of the run is kept: s3://…, gs://…, any of pyarrow's."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search, runs/NAME.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder for spectrograms, audits and the built-in corpus.", envvar="GENRE_SEARCH_CACHE"
    ),
]

_USER_MISTAKE, _FAILED, _INTERRUPTED = 2, 1, 130
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
        Path | None, typer.Option(help="A YAML file; see configs/. Without one, the defaults.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A folder of genre folders, a manifest (CSV or Parquet), or `builtin`.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run's folder; without one, the time of day.")
    ] = None,
    trials: Annotated[str | None, typer.Option(metavar="N", help="How many trials.")] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="End after so long: 90s, 30m, 2h.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, or `auto`; without one, this machine.")
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
    storage: Storage = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as training.epochs=5."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the runs.")] = Path("runs"),
    cache: Cache = None,
) -> None:
    """Search: sample, fine-tune and prune trials; keep every result.

    Examples:

      genre-search run --trials 200

      genre-search run --data ~/music --trials 50 --time-budget 2h

      genre-search run --config configs/demo.yaml --set space.backbone=resnet18
    """
    from search import config as settings
    from search.results import require_new

    texts = {"data": data, "address": address, "storage": storage}
    values = {
        "trials": trials,
        "time_budget": time_budget,
        "workers": workers,
        "cpus_per_trial": cpus_per_trial,
        "trials_per_gpu": trials_per_gpu,
        "feature_cache": feature_cache,
        "seed": seed,
    }
    overrides = dict(settings.parse_override(text) for text in set_ or []) | _given(values, texts)
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
        str | None, typer.Option(help="A running Ray cluster, or `auto`; without one, as before.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Trials at a time; without it, as before.")
    ] = None,
    storage: Storage = None,
    cache: Cache = None,
) -> None:
    """Go on with a search that was cut off, or extend one: what has ended stays, what was running goes on.

    Examples:

      genre-search resume runs/music

      genre-search resume runs/music --trials 300

      genre-search resume runs/music --storage s3://bucket/searches
    """
    from search import config as settings
    from search.results import require_run

    if storage is not None and not run.exists():
        from search.storage import fetch

        fetch(storage, run.name, run)
    require_run(run)
    values = {"trials": trials, "time_budget": time_budget, "workers": workers}
    texts = {"address": address, "storage": storage}
    loaded = settings.load(run / "config.yaml", _given(values, texts))
    _drive("resume", f"Search {run.resolve().name} goes on: up to {loaded.trials} trials", loaded, run, cache)


@app.command()
def results(
    run: RunFolder,
    top: Annotated[int, typer.Option(help="Rows to show.", min=1)] = 20,
    state: Annotated[str | None, typer.Option(help="Only COMPLETE, PRUNED, FAIL or RUNNING trials.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only this backbone's trials.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by; scores from the best.")] = "val_f1",
    costs: Annotated[
        bool, typer.Option("--costs", help="What an epoch took, by backbone and frozen depth.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="All columns of all rows, as CSV.")] = False,
) -> None:
    """The leaderboard of a search, also while it runs."""
    from search import leaderboard
    from search.results import read_trials

    trials = read_trials(run)
    selected = leaderboard.select(trials, state=state, backbone=backbone, sort=sort)
    if csv:
        typer.echo(selected.to_csv(index=False), nl=False)
    elif costs:
        _print(leaderboard.costs(selected))
    else:
        _print(leaderboard.table(selected.head(top)), leaderboard.summary(trials))


@app.command()
def best(run: RunFolder) -> None:
    """The winning configuration, its curve, and the command that repeats it."""
    from search import leaderboard

    _print(*leaderboard.winner(run))


@data_app.command("check")
def check(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of genre folders, or a manifest.")],
    segment_seconds: Annotated[float, typer.Option(help="Shorter files are listed.")] = 3.0,
    cache: Cache = None,
) -> None:
    """Decode every file and list what is wrong with each; exits with 1 if any is bad."""
    from genre_core.audit import audit, excluded_summary
    from genre_core.corpus import read_corpus
    from search.display import Display

    found = read_corpus(source)
    with Display(_console()).progress("Checking audio files") as report:
        corpus = audit(found, minimum_seconds=segment_seconds, cache=_cache(cache), progress=report)
    for track in corpus.excluded:
        typer.echo(f"{track.track_id!r}: {track.excluded_reason}")
    typer.echo(
        excluded_summary(corpus) or f"{len(corpus.tracks)} files in {len(corpus.genres)} genres, all good"
    )
    if corpus.excluded:
        raise typer.Exit(_FAILED)


@data_app.command("make")
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    tracks_per_genre: Annotated[int, typer.Option(help="Files in each of the ten genres.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a file.")] = 12.0,
    difficulty: Annotated[float, typer.Option(help="From 0, clear genres, to 1, blurred ones.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Another seed, other music.")] = 0,
) -> None:
    """Write the built-in corpus: generated music in ten genres, as WAV files in the GTZAN layout."""
    from genre_core import synthetic
    from search.display import Display

    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"DIR must be new or empty, but got {folder}; name another folder")
    spec = synthetic.SyntheticCorpus(
        tracks_per_genre=tracks_per_genre, seconds=seconds, difficulty=difficulty, seed=seed
    )
    with Display(_console()).progress("Generating music") as report:
        manifest = synthetic.write(spec, folder, report)
    typer.echo(f"{manifest.parent}; search it with: genre-search run --data {manifest.parent}")


@cluster_app.command("check")
def check_cluster(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="For `ray up`, or with a RayJob or RayCluster.")
    ],
) -> None:
    """Say what is unsafe or does not fit in a cluster file; exits with 1 if anything is."""
    from search.cluster_file import check as problems_in

    for problem in (problems := problems_in(file)):
        typer.echo(problem)
    if problems:
        raise typer.Exit(_FAILED)
    typer.echo(f"{file}: no problem")


@app.command()
def version() -> None:
    """All versions, and the devices that trials would run on."""
    import torch

    from search.versions import versions

    typer.echo(f"python {sys.version.split()[0]}")
    for package, installed in versions().items():
        typer.echo(f"{package} {installed}")
    for gpu in range(torch.cuda.device_count()):
        typer.echo(f"cuda:{gpu} {torch.cuda.get_device_name(gpu)}")
    typer.echo(f"cpu, {torch.get_num_threads()} threads")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = _complain(error, _USER_MISTAKE)
    except TyperException as error:  # what the command line's parser raises
        code = _explain(error.format_message())
    except BrokenPipeError:  # `genre-search results RUN --csv | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _FAILED
    except OSError as error:
        if error.errno not in _SYSTEM_SAYS_NO:
            raise
        code = _complain(f"{error.filename or 'a file'} cannot be used: {error.strerror}", _USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)


def _drive(how: str, title: str, config: "SearchConfig", folder: Path, cache: Path | None) -> None:
    """`run` or `resume` a search, and show what it came to."""
    from search import launch, leaderboard
    from search.checkpoints import is_full
    from search.display import Display
    from search.results import read_trials

    display = Display(_console(), trials=config.trials, time_budget=config.time_budget)
    display.say(title)
    drive = {"run": launch.run, "resume": launch.resume}[how]
    try:
        complete = drive(config, folder=folder.absolute(), cache=_cache(cache), screen=display)
    except launch.SearchFailed as error:
        raise typer.Exit(_complain(f"every trial failed; the first because: {error}", _FAILED)) from error
    except OSError as error:
        if not (is_full(error) and (folder / "config.yaml").exists()):
            raise
        message = f"the disk is full; make room, then go on with: genre-search resume {folder}"
        raise typer.Exit(_complain(message, _USER_MISTAKE)) from error
    trials = read_trials(folder)
    _print(leaderboard.table(leaderboard.select(trials).head(5)), leaderboard.summary(trials))
    if not complete:
        typer.echo(f"interrupted; go on with it: genre-search resume {folder}")
        raise typer.Exit(_INTERRUPTED)
    typer.echo(f"genre-search best {folder}    genre-search results {folder}")


def _given(values: dict[str, str | None], texts: dict[str, str | None]) -> dict[str, Any]:
    """The options that were given, by setting: values are read as YAML, texts are taken as they are."""
    from search.config import parse_value

    read = {key: parse_value(value) for key, value in values.items() if value is not None}
    return read | {key: text for key, text in texts.items() if text is not None}


def _default_name(config: Path | None) -> str:
    return f"{config.stem if config else 'search'}-{datetime.now():%Y%m%d-%H%M%S}"


def _cache(given: Path | None) -> Path:
    from platformdirs import user_cache_path

    return given or user_cache_path("genre-search")


def _console() -> Any:
    from rich.console import Console

    # A pipe or a file has no width of its own: rows stay whole there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _print(*parts: Any) -> None:
    for part in parts:
        _console().print(part, soft_wrap=True)


def _explain(message: str) -> int:
    """Of the command line's parser: the help, where nothing was asked, or a mistake."""
    if message.startswith("Usage:"):
        typer.echo(message)
        return 0
    return _complain(message, _USER_MISTAKE)


def _complain(error: object, code: int) -> int:
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    return code
