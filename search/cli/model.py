"""The commands that follow a search: finish, report, export and predict."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genre_core.errors import InputError
from genre_core.system.interruption import termination_as_interrupt
from search.cli.options import (
    Address,
    App,
    Cache,
    MovedData,
    RunArgument,
    TrialsPerGpu,
    Workers,
    settings,
)
from search.cli.output import FAILED, INTERRUPTED, complain, disk_full, echo, interruptible, show
from search.errors import SearchErrorCode, not_writable
from search.run.commands import command
from search.run.folder import RunFolder, cache_folder

app = App()


@app.command()
def finish(
    run: RunArgument,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of configurations [default: 3].")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Models per configuration [default: 3].")
    ] = None,
    address: Address = None,
    workers: Workers = None,
    trials_per_gpu: TrialsPerGpu = None,
    data: MovedData = None,
    cache: Cache = None,
) -> None:
    """Retrain the best configurations, then test them once.

    Each configuration is trained on train and validation together, with several seeds; then the test set is
    used exactly once. If interrupted, run finish again to continue.

    Examples:

      genre-search finish runs/music

      genre-search finish runs/music --top 5 --seeds 5
    """
    from search.run.tables import require_run

    require_run(run)
    overrides = settings(
        values={"workers": workers, "trials_per_gpu": trials_per_gpu}, literals={"address": address}
    )
    with interruptible(lambda: f"continue with: {command('finish', run)}"):
        _finish(run, top=top, seeds=seeds, data=data, cache=cache_folder(cache), overrides=overrides)
    echo(f"{command('report', run)}\n{command('export', run)}")


def _finish(
    run: Path,
    *,
    top: int | None,
    seeds: int | None,
    data: str | None,
    cache: Path,
    overrides: Mapping[str, Any],
) -> None:
    """Finish a run and show its test scores."""
    from safetensors import SafetensorError

    from search.config.schema import load
    from search.display.area import console
    from search.display.progress import Display
    from search.report.finished import verdict
    from search.run.checkpoints import is_full

    display = Display(console())
    with display.working("loading PyTorch and Ray"):
        from search.evaluate import finish
    try:
        finish.finish(
            load(RunFolder(run).config, overrides),
            reporter=display,
            top=top,
            seeds=seeds,
            data=data,
            folder=run.absolute(),
            cache=cache,
        )
    except finish.FinishFailed as error:
        raise typer.Exit(complain(error, FAILED)) from error
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise disk_full(error, command("finish", run)) from error
    show(*verdict(run))


@app.command()
def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="File to write [default: RUN/report.html]."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Update it while the search runs; the page reloads itself.")
    ] = False,
    data: MovedData = None,
    cache: Cache = None,
) -> None:
    """Write an HTML report of a search, which may still be running.

    With --watch, open the file in a browser and leave this command running: it ends when the search ends, or
    with Ctrl-C.

    Examples:

      genre-search report runs/music

      genre-search report runs/music -o music.html

      genre-search report runs/music --watch
    """
    page = out or RunFolder(run).report

    def write(reload_seconds: float | None = None) -> None:
        from search.report.page import write_report

        try:
            write_report(run, page, cache=cache_folder(cache), data=data, reload_seconds=reload_seconds)
        except OSError as error:
            if page.name not in str(error.filename):
                raise
            raise not_writable("--out", page, error) from error

    if watch:
        _watch(run, page, write)
    else:
        write()
    echo(f"{page}: {page.stat().st_size / 2**20:.1f} MiB")


def _watch(run: Path, page: Path, write: Callable[[float | None], None]) -> None:
    """Rewrite a report until the search ends or the user interrupts, which is the normal way to end a watch."""
    announced = False

    def write_next(reload_seconds: float | None) -> None:
        nonlocal announced
        write(reload_seconds)
        if reload_seconds is not None and not announced:
            echo(f"open {page} in a browser; it is updated until the search ends. Stop with Ctrl-C.")
            announced = True

    try:
        with termination_as_interrupt():
            from search.report import watch

            was_running = watch.watch(run, write_next)
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    echo("the search has ended" if was_running else "the search is not running; the report was written once")


@app.command()
def export(
    run: RunArgument,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder to create [default: RUN/export].")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Export the model of this trial instead of the best.")
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also write model.onnx, checked against PyTorch.")
    ] = False,
) -> None:
    """Export the best model of a search, optionally as ONNX.

    This is the winner of `finish` or, if it was not run, the model with the best validation score. The folder
    contains its weights, its settings and a README.

    Examples:

      genre-search export runs/music

      genre-search export runs/music music-model --onnx
    """
    from search.export.export import export

    destination = folder or RunFolder(run).export
    exported = export(run, destination, trial=trial, onnx=onnx)
    echo(f"{destination}: {exported.model}")
    if exported.difference is not None:
        echo(f"model.onnx: probabilities differ from PyTorch by at most {exported.difference:.1e}")
    echo(f"{command('predict', destination)} FILE...")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model folder, or run folder for its best model.")
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Audio files or folders; `-` reads paths from stdin."),
    ],
    over_time: Annotated[bool, typer.Option("--over-time", help="Also predict each segment.")] = False,
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of genres to show, most probable first.")
    ] = 3,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: one row per file or segment, one column per genre.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """Predict genre probabilities for audio files.

    Files that cannot be read are listed with the reason; the exit code is then 1.

    Examples:

      genre-search predict runs/music song.mp3 more-songs

      genre-search predict music-model --over-time song.mp3

      find ~/music -name '*.flac' | genre-search predict music-model --csv -
    """
    from genre_core.audio.decode import BadAudio
    from genre_core.predict import Model
    from search.cli import prediction_output
    from search.export.chosen_model import model_folder

    if csv and json_lines:
        raise InputError(
            "--csv and --json exclude each other, but got both; give one of them",
            code=SearchErrorCode.OPTIONS_EXCLUSIVE,
        )
    loaded, failed = Model.load(model_folder(model)), False
    genres, segment_seconds = loaded.genres, loaded.segment_seconds
    if csv:
        echo(prediction_output.csv_header(genres))
    found = prediction_output.predictions(loaded, files, standard_input=sys.stdin.buffer, over_time=over_time)
    for path, outcome in found:
        failed |= isinstance(outcome, BadAudio)
        if json_lines:
            echo(prediction_output.json_line(path, outcome))
        elif csv:
            echo(prediction_output.csv_rows(genres, path, outcome, segment_seconds))
        else:
            echo(prediction_output.text_lines(path, outcome, top=top, segment_seconds=segment_seconds))
    if failed:
        raise typer.Exit(FAILED)
