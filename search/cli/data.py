"""The commands of `genre-search data`: check, prepare or download a corpus, or generate the built-in one."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genre_core.errors import InputError
from genre_core.system.addresses import is_address, readable, source_of
from genre_core.system.memory import GIB
from search.cli.options import App, Cache, ConfigFile, Json, Overrides, settings
from search.cli.output import FAILED, INTERRUPTED, echo, interruptible, show
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import cache_folder

if TYPE_CHECKING:
    from genre_core.corpus.tracks import Corpus
    from search.config.schema import Split

app = App(help="Check, prepare, download or generate a corpus.", no_args_is_help=True)


@app.command("check")
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Folder with one subfolder per genre, or a manifest, perhaps at s3://…"
        ),
    ],
    segment_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="Report files shorter than this [default: as for run]."),
    ] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Check a corpus for problems and show how it would be split.

    Decodes every file. Exits with 1 if a file is bad or no split is possible.

    Examples:

      genre-search data check ~/music

      genre-search data check ~/music --set split.draw_validation=true
    """
    from rich.console import Console

    from genre_core.corpus.tracks import read_corpus
    from search.config.schema import load
    from search.data.audited import audited
    from search.display.area import console
    from search.display.progress import Display

    loaded = load(config, settings(overrides=set_))
    minimum = loaded.segment_seconds if segment_seconds is None else segment_seconds
    listed = read_corpus(source)
    for note in () if as_json else listed.notes:
        echo(note)
    screen = Display(Console(stderr=True) if as_json else console())
    corpus = audited(listed, minimum_seconds=minimum, cache=cache_folder(cache), reporter=screen)
    split, refusal = _try_split(corpus, loaded.split)
    if as_json:
        echo(json.dumps(_as_json(split, refusal) | {"notes": listed.notes}))
    else:
        _echo_findings(corpus, split, refusal)
    if corpus.excluded or refusal:
        raise typer.Exit(FAILED)


def _as_json(corpus: "Corpus", refusal: InputError | None) -> dict[str, object]:
    """The findings of `data check`, for programs.

    Args:
        corpus: as run would split it; as given if no split is possible.
        refusal: why no split is possible.
    """
    from genre_core.corpus.audit import copies_across_splits, track_warnings
    from genre_core.corpus.tracks import SPLITS
    from search.data import genre_list

    sides = Counter((track.genre, track.split) for track in corpus.usable)
    return {
        "files": len(corpus.tracks),
        "usable": len(corpus.usable),
        "genres": {
            genre: {part or "undivided": sides[genre, part] for part in (*SPLITS, None) if sides[genre, part]}
            for genre in corpus.genres
        },
        "excluded": {track.track_id: track.excluded_reason for track in corpus.excluded},
        "file_warnings": [[track.track_id, warning] for track, warning in track_warnings(corpus)],
        "copies_across_splits": [[one.track_id, copy.track_id] for one, copy in copies_across_splits(corpus)],
        "warnings": genre_list.warnings(corpus),
        "refusal": None if refusal is None else str(refusal),
    }


def _echo_findings(corpus: "Corpus", split: "Corpus", refusal: InputError | None) -> None:
    """Print problems, the table of genres and a summary.

    Args:
        corpus: as it was given.
        split: as run would split it.
        refusal: why no split is possible.
    """
    from genre_core.corpus.audit import track_warnings
    from search.data import genre_list

    _echo_file_problems(corpus)
    if corpus.genres:
        show(genre_list.table(split))
    suspicions = genre_list.warnings(corpus)
    for suspicion in suspicions:
        echo(f"warning: {suspicion}")
    if refusal:
        echo(f"run would reject this corpus: {refusal}")
    warnings = len(suspicions) + len(track_warnings(corpus))
    echo(_verdict(corpus, warnings=warnings, refused=bool(refusal)))


def _echo_file_problems(corpus: "Corpus") -> None:
    """Print excluded files, warnings about used files, and exact copies across the given split."""
    from genre_core.corpus.audit import copies_across_splits, track_warnings

    for track in corpus.excluded:
        echo(f"{track.track_id!r}: {track.excluded_reason}")
    for track, warning in track_warnings(corpus):
        echo(f"{track.track_id!r}: warning: {warning}")
    across = copies_across_splits(corpus)
    for original, copy in across:
        echo(f"{copy.track_id!r} in {copy.split} is a copy of {original.track_id!r} in {original.split}")
    if across:
        echo(
            f"{len(across)} exact copies cross the split: left out here and by `run`, because they would leak "
            "from one part into another"
        )


def _try_split(corpus: "Corpus", split: "Split") -> "tuple[Corpus, InputError | None]":
    """The corpus as run would split it; if no split is possible, the corpus as given and the reason."""
    from genre_core.corpus.splits import split_corpus

    try:
        return split_corpus(corpus, **split.model_dump()), None
    except InputError as refusal:
        return corpus, refusal


def _verdict(corpus: "Corpus", *, warnings: int, refused: bool) -> str:
    from genre_core.corpus.audit import excluded_summary

    genres = "1 genre" if len(corpus.genres) == 1 else f"{len(corpus.genres)} genres"
    good = f"{len(corpus.tracks)} files in {genres}, all good"
    if refused and not corpus.excluded:
        return f"{good}, but no split is possible"
    if warnings and not corpus.excluded:
        return f"{good}; {warnings} {'warning' if warnings == 1 else 'warnings'}"
    return excluded_summary(corpus) or good


@app.command("prepare")
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Folder with one subfolder per genre, or a manifest, perhaps at s3://…"
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Ray cluster whose nodes decode the files that they can read, or `auto` "
            "[default: this machine only].",
        ),
    ] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    cache: Cache = None,
) -> None:
    """Compute and store the spectrograms of a corpus before a search.

    A search with the same front end, segment length and cache then starts immediately. If interrupted, run the
    command again to continue.

    Examples:

      genre-search data prepare ~/music --set front_end=mel64

      genre-search data prepare /shared/music --address auto
    """
    from search.config.schema import load
    from search.data.prepare import prepare_corpus, read_data
    from search.display.area import console
    from search.display.progress import Display
    from search.tune.cluster import require_reachable
    from search.tune.cluster_transform import transform_of

    given = {"data": source, "address": address}
    loaded = load(config, settings(overrides=set_, literals=given))
    found = read_data(loaded)
    if loaded.address:
        require_reachable(loaded.address)
    display = Display(console(), trials=0)
    transform = transform_of(loaded, display.say)
    with interruptible(lambda: "run the same command again to continue"):
        tracks, store = prepare_corpus(
            loaded, found, cache=cache_folder(cache), reporter=display, transform=transform
        )
    gib = store.frames.nbytes / GIB
    echo(f"{len(tracks.usable)} tracks, {gib:.3g} GiB, in {store.folder}")


@app.command("get")
def get(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="gtzan, fma_small, fma_medium or fma_large.",
            autocompletion=lambda: ["gtzan", "fma_small", "fma_medium", "fma_large"],
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Destination; may already contain the data or its archive.")
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="For gtzan: `filtered` (by artist and fault; the default) or `stratified` (leaks artists).",
            autocompletion=lambda: ["filtered", "stratified"],
        ),
    ] = None,
    mirrors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file with other archives and mirrors."),
    ] = None,
) -> None:
    """Download a published data set and prepare it for a search.

    Existing audio and archives are used instead of a download. If interrupted, run the command again to
    continue.

    Examples:

      genre-search data get gtzan gtzan

      genre-search data get fma_small fma --mirrors mirrors.yaml
    """
    from genre_core.corpus.tracks import SPLITS
    from genre_core.datasets import fetch
    from search.display.area import console
    from search.display.progress import Display

    _require_local(folder)
    display = Display(console())
    try:
        tracks, notes = fetch.get(name, folder, split=split, mirrors=mirrors, progress=display.progress)
    except KeyboardInterrupt as interrupt:
        echo("interrupted; run the same command again to continue")
        raise typer.Exit(INTERRUPTED) from interrupt
    for note in notes:
        echo(note)
    sizes = Counter(track.split for track in tracks)
    genres = len({track.genre for track in tracks})
    config = f"configs/{'gtzan' if name == 'gtzan' else 'fma_small'}.yaml"
    echo(
        f"{name}: {len(tracks)} tracks in {genres} genres, "
        f"{', '.join(f'{sizes[part]} {part}' for part in SPLITS)}; next: {command('data', 'check', folder)}    "
        f"{command('run', '--config', config, '--data', folder)}"
    )


@app.command("make")
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to create.")],
    tracks_per_genre: Annotated[int, typer.Option(metavar="N", help="Files per genre.")] = 20,
    seconds: Annotated[float, typer.Option(metavar="S", help="Duration of each file.")] = 12.0,
    difficulty: Annotated[
        float, typer.Option(metavar="X", help="From 0 (distinct genres) to 1 (similar genres).")
    ] = 0.3,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed of the music.")] = 0,
) -> None:
    """Generate the built-in corpus: synthetic music in ten genres.

    The WAV files are laid out as in GTZAN.

    Example:

      genre-search data make made --tracks-per-genre 40 --difficulty 0.6
    """
    from genre_core.synthetic import corpus as synthetic
    from search.display.area import console
    from search.display.progress import Display

    _require_local(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"DIR must be new or empty, but got {folder}; choose another folder",
            code=SearchErrorCode.FOLDER_NOT_EMPTY,
        )
    spec = synthetic.SyntheticCorpus(
        tracks_per_genre=tracks_per_genre, seconds=seconds, difficulty=difficulty, seed=seed
    )
    with Display(console()).progress("Generating music") as report:
        manifest = synthetic.write(spec, folder, report)
    echo(f"{manifest.parent}; search it with: {command('run', '--data', manifest.parent)}")


def _require_local(folder: Path) -> None:
    if is_address(str(folder)):
        raise InputError(
            f"DIR must be a folder on this machine, but got {readable(str(source_of(folder)))}; "
            "give a folder, and copy it to the storage afterwards",
            code=SearchErrorCode.FOLDER_NOT_LOCAL,
        )
