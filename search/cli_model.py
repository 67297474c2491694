"""After a search: the honest winner, and the model to use."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.terminal import (
    FAILED,
    INTERRUPTED,
    Cache,
    RunFolder,
    cache_folder,
    complain,
    console,
    disk_full,
    show,
)

app = typer.Typer()


@app.command()
def finish(
    run: RunFolder,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The best so many configurations; without it, 3.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Models of each, by other seeds; without it, 3.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, or `auto`; without one, as before.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Models at a time; without it, as before.")
    ] = None,
    cache: Cache = None,
) -> None:
    """The honest winner: retrain the best on train and validation, then read the test part, once.

    Examples:

      genre-search finish runs/music

      genre-search finish runs/music --top 5 --seeds 5
    """
    from safetensors import SafetensorError

    from search.checkpoints import is_full
    from search.config import load
    from search.display import Display
    from search.finish import FinishFailed
    from search.finish import finish as finish_run
    from search.results import require_run
    from search.verdict import verdict

    require_run(run)
    given = {"address": address, "workers": workers}
    config = load(run / "config.yaml", {key: value for key, value in given.items() if value is not None})
    places: dict[str, Any] = {"folder": run.absolute(), "cache": cache_folder(cache)}
    try:
        finish_run(config, screen=Display(console()), top=top, seeds=seeds, **places)
    except FinishFailed as error:
        raise typer.Exit(complain(error, FAILED)) from error
    except KeyboardInterrupt as error:
        typer.echo(f"interrupted; go on with it: genre-search finish {run}")
        raise typer.Exit(INTERRUPTED) from error
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise disk_full(f"genre-search finish {run}") from error
    show(*verdict(run))
    typer.echo(f"use a model: genre-search predict {run}/finish/MODEL FILE...")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder: one of RUN/models or RUN/finish.")
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Audio files and folders; - for a list on standard input."),
    ],
    over_time: Annotated[bool, typer.Option("--over-time", help="Also segment by segment.")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="A JSON object a line, for each file.")] = False,
) -> None:
    """How likely each genre is, for each file; a bad file is a line with its reason, and exit code 1 at the end.

    Examples:

      genre-search predict runs/music/models/trial-00012-epoch-007 song.mp3

      find ~/music -name '*.flac' | genre-search predict runs/music/finish/trial-00012-seed-1 - --json
    """
    import json

    from genre_core.audio import BadAudio
    from genre_core.predict import Model
    from search.predictions import as_line, as_record, listed

    loaded, failed = Model.load(model), False
    for path in listed(files, sys.stdin):
        try:
            found = loaded.predict(path, over_time=over_time)
        except BadAudio as error:
            failed = True
            typer.echo(json.dumps({"path": path, "error": str(error)}) if json_lines else f"{path}: {error}")
        else:
            typer.echo(json.dumps(as_record(path, found)) if json_lines else as_line(path, found))
    if failed:
        raise typer.Exit(FAILED)
