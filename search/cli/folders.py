"""The commands that list what is stored on disk: `list` and `cache`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import App, Cache, Json
from search.cli.output import echo, show
from search.run.commands import command
from search.run.folder import RUNS, cache_folder, runs_in

if TYPE_CHECKING:
    from search.run.overview import Overview

app = App()


@app.command("list")
def list_runs(
    runs: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that contains the run folders.")] = RUNS,
    as_json: Json = False,
) -> None:
    """List runs with their state, best F1, age and size.

    Examples:

      genre-search list

      genre-search list --json archive
    """
    from search.run.overview import overview

    found = [overview(run) for run in runs_in(runs)]
    if as_json:
        for run in found:
            echo(json.dumps(_as_json(run)))
    elif found:
        show_overviews(found)
    else:
        echo(f"no runs in {runs}; start one with: {command('run')}")


def show_overviews(found: "list[Overview]") -> None:
    """Print a table of runs, the newest last."""
    from search.report.fitting import FittedTable
    from search.report.formatting import duration, score

    titles = ("run", "state", "best F1", "trials", "age", "size")
    shown = FittedTable(*titles, left=("run", "state"), drop=("size", "age"))
    now = datetime.now(UTC)
    for run in found:
        age = duration(max(0.0, (now - run.last_change).total_seconds()))
        size = _bytes(run.size_bytes)
        shown.add_row(str(run.path), run.state, score(run.best_f1), str(run.trials), age, size)
    show(shown)


@app.command()
def cache(
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete all but the measured costs; searches recreate the rest.")
    ] = False,
    cache: Cache = None,
) -> None:
    """Show the cache folder and the sizes of its parts.

    Examples:

      genre-search cache

      genre-search cache --clean
    """
    from search.data.cache_parts import clean_cache, parts

    folder = cache_folder(cache)
    found = parts(folder)
    if clean:
        clean_cache(folder)
    echo(str(folder))
    for part in found:
        echo(
            f"  {part.title:<40} {_bytes(part.size_bytes):>9}{'  deleted' if clean and part.recreated else ''}"
        )
    if not clean and any(part.size_bytes for part in found if part.recreated):
        echo(f"free it with: {command('cache', '--clean')}")


def _as_json(run: "Overview") -> dict[str, object]:
    return vars(run) | {"path": str(run.path), "last_change": run.last_change.isoformat(timespec="seconds")}


def _bytes(size: int) -> str:
    """A size with three digits, such as 13.4 MB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
