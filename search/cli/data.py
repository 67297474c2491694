"""genre-search data …: look at a corpus, make one, or get a published one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genre_core.errors import InputError
from search.cli.common import FAILED, INTERRUPTED, App, Cache, cache_folder, console, echo, show
from search.run.commands import command

if TYPE_CHECKING:
    from genre_core.corpus.tracks import Corpus
    from search.config.schema import Split

app = App(help="Look at a corpus, make one, or get a published one.", no_args_is_help=True)


@app.command("check")
def check(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of genre folders, or a manifest.")],
    segment_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Shorter files are listed; without it, as for run.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The YAML file that run is to be given; see configs/.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of run's, such as split.seed=1."),
    ] = None,
    cache: Cache = None,
) -> None:
    """What is wrong with a corpus, and the split that run would make.

    Decodes every file; exits with 1 if any is bad or no split is possible.

    Examples:

      genre-search data check ~/music

      genre-search data check ~/music --set split.draw_validation=true
    """
    from genre_core.corpus.audit import audit, track_warnings
    from genre_core.corpus.tracks import read_corpus
    from search.cli.progress import Display
    from search.config.schema import load, parse_override
    from search.data import genre_list

    settings = load(config, dict(parse_override(text) for text in set_ or []))
    minimum = settings.segment_seconds if segment_seconds is None else segment_seconds
    found = read_corpus(source)
    for note in found.notes:
        echo(note)
    with Display(console()).progress("Checking audio files") as report:
        corpus = audit(found, minimum_seconds=minimum, cache=cache_folder(cache), progress=report)
    _show_bad_files(corpus)
    parted, refusal = _parted(corpus, settings.split)
    if corpus.genres:
        show(genre_list.table(parted))
    doubts = genre_list.warnings(corpus)
    for doubt in doubts:
        echo(f"warning: {doubt}")
    if refusal:
        echo(f"run would refuse this: {refusal}")
    warnings = len(doubts) + len(track_warnings(corpus))
    echo(_verdict(corpus, warnings=warnings, refused=bool(refusal)))
    if corpus.excluded or refusal:
        raise typer.Exit(FAILED)


def _show_bad_files(corpus: "Corpus") -> None:
    """A line for each file that is left out, each warning of one that is used, and each copy across a given split."""
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
            f"{len(across)} exact copies cross the split: left out here and by run, a leak wherever they are not"
        )


def _parted(corpus: "Corpus", split: "Split") -> "tuple[Corpus, InputError | None]":
    """The corpus in the split that run would make; as it is, with the reason, where none is possible."""
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
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is to be, or is already.")],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Of gtzan: `filtered` by artist and fault, the default, or `stratified`, which leaks.",
            autocompletion=lambda: ["filtered", "stratified"],
        ),
    ] = None,
    mirrors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file of archives and mirrors in place of ours."),
    ] = None,
) -> None:
    """Bring a published data set into a folder, ready to search.

    What is there already, unpacked or as an archive, is not downloaded; an interrupted call is gone on with.

    Examples:

      genre-search data get gtzan gtzan

      genre-search data get fma_small fma --mirrors mirrors.yaml
    """
    from collections import Counter

    from genre_core.corpus.tracks import SPLITS
    from genre_core.datasets import fetch
    from search.cli.progress import Display

    display = Display(console())
    try:
        tracks, notes = fetch.get(name, folder, split=split, mirrors=mirrors, progress=display.progress)
    except KeyboardInterrupt as interrupt:
        echo("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from interrupt
    for note in notes:
        echo(note)
    sides = Counter(track.split for track in tracks)
    config = "gtzan" if name == "gtzan" else "fma_small"
    echo(
        f"{name}: {len(tracks)} tracks in {len({track.genre for track in tracks})} genres, "
        f"{', '.join(f'{sides[side]} {side}' for side in SPLITS)}; next: {command('data', 'check', folder)}    "
        f"{command('run', '--config', f'configs/{config}.yaml', '--data', folder)}"
    )


@app.command("make")
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    tracks_per_genre: Annotated[int, typer.Option(metavar="N", help="Files in each of the ten genres.")] = 20,
    seconds: Annotated[float, typer.Option(metavar="S", help="Length of a file.")] = 12.0,
    difficulty: Annotated[
        float, typer.Option(metavar="X", help="From 0, clear genres, to 1, blurred ones.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, other music.")] = 0,
) -> None:
    """Write the built-in corpus, music generated in ten genres.

    As WAV files, laid out as GTZAN's.

    Example:

      genre-search data make made --tracks-per-genre 40 --difficulty 0.6
    """
    from genre_core.synthetic import corpus as synthetic
    from search.cli.progress import Display

    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"DIR must be new or empty, but got {folder}; name another folder")
    spec = synthetic.SyntheticCorpus(
        tracks_per_genre=tracks_per_genre, seconds=seconds, difficulty=difficulty, seed=seed
    )
    with Display(console()).progress("Generating music") as report:
        manifest = synthetic.write(spec, folder, report)
    echo(f"{manifest.parent}; search it with: {command('run', '--data', manifest.parent)}")
