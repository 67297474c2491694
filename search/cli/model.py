"""After a search: the honest winner, the report, and the model to use."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.common import (
    FAILED,
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
)
from search.run.commands import command

app = App()


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
        str | None,
        typer.Option(metavar="HOST", help="A running Ray cluster, or `auto`; without one, as before."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Models at a time; without it, as before.")
    ] = None,
    trials_per_gpu: TrialsPerGpu = None,
    data: MovedData = None,
    cache: Cache = None,
) -> None:
    """The honest winner: trained anew, and only then tested, once.

    The best configurations are trained on train and validation together, each with several seeds, before the
    test part is read. A finish that was cut off goes on when it is called again.

    Examples:

      genre-search finish runs/music

      genre-search finish runs/music --top 5 --seeds 5
    """
    from search.run.tables import require_run

    require_run(run)
    with interruptible(lambda: f"go on with it: {command('finish', run)}"):
        _finish(
            run,
            top=top,
            seeds=seeds,
            data=data,
            cache=cache_folder(cache),
            given={"address": address, "workers": workers, "trials_per_gpu": trials_per_gpu},
        )
    echo(f"{command('report', run)}    {command('export', run)}")


def _finish(
    run: Path, *, top: int | None, seeds: int | None, data: Path | None, cache: Path, given: dict[str, Any]
) -> None:
    from safetensors import SafetensorError

    from search.cli.progress import Display
    from search.config.schema import load, parse_value
    from search.evaluate.finish import FinishFailed
    from search.evaluate.finish import finish as finish_run
    from search.evaluate.verdict import verdict
    from search.run.checkpoints import is_full

    settings = {key: value for key, value in given.items() if value is not None}
    if "trials_per_gpu" in settings:
        settings["trials_per_gpu"] = parse_value(settings["trials_per_gpu"])
    config = load(run / "config.yaml", settings)
    try:
        finish_run(
            config,
            screen=Display(console()),
            top=top,
            seeds=seeds,
            data=data,
            folder=run.absolute(),
            cache=cache,
        )
    except FinishFailed as error:
        raise typer.Exit(complain(error, FAILED)) from error
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise disk_full(error, command("finish", run)) from error
    show(*verdict(run))


@app.command()
def report(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Without it, report.html in the run's folder."),
    ] = None,
    data: MovedData = None,
    cache: Cache = None,
) -> None:
    """One HTML page with all that a search found, also while it runs.

    Examples:

      genre-search report runs/music

      genre-search report runs/music -o music.html
    """
    from search.report.page import write_report

    page = out or run / "report.html"
    write_report(run, page, cache=cache_folder(cache), data=data)
    echo(f"{page}: {page.stat().st_size / 2**20:.1f} MiB")


@app.command()
def export(
    run: RunFolder,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A new folder; without it, RUN/export.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Another kept trial's model than the winner.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also as ONNX, held against PyTorch.")] = False,
) -> None:
    """The winner as a folder to use and to share, also as ONNX.

    The winner of `finish`, else the best by validation. The folder holds its tensors, its card and a README.

    Examples:

      genre-search export runs/music

      genre-search export runs/music music-model --onnx
    """
    from search.export.export import export as export_run

    place = folder or run / "export"
    exported = export_run(run, place, trial=trial, onnx=onnx)
    echo(f"{place}: {exported.model}")
    if exported.difference is not None:
        echo(f"model.onnx: probabilities differ from PyTorch's by {exported.difference:.1e} at most")
    echo(f"{command('predict', place)} FILE...")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder, or a run's: then its winner.")
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Audio files and folders; - for paths on standard input."),
    ],
    over_time: Annotated[bool, typer.Option("--over-time", help="Also segment by segment.")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="A JSON object a line, for each file.")] = False,
) -> None:
    """How likely each genre is, for each file, and over its time.

    A bad file is a line with its reason, and exit code 1 at the end.

    Examples:

      genre-search predict runs/music song.mp3 more-songs

      genre-search predict music-model --over-time song.mp3

      find ~/music -name '*.flac' | genre-search predict music-model --json -
    """
    from genre_core.audio.decode import BadAudio
    from genre_core.predict import Model
    from search.cli.prediction_output import as_json, as_rows, heard, titles
    from search.export.chosen_model import model_folder

    loaded, failed = Model.load(model_folder(model)), False
    if not json_lines:
        echo(titles(loaded.genres))
    for path, found in heard(loaded, files, standard_input=sys.stdin.buffer, over_time=over_time):
        failed |= isinstance(found, BadAudio)
        rows = as_rows(loaded.genres, path, found, loaded.segment_seconds)
        echo(as_json(path, found) if json_lines else rows)
    if failed:
        raise typer.Exit(FAILED)
