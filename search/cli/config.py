"""The commands about settings: `init`, `config show` and `config schema`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from genre_core.errors import InputError
from search.cli.options import App, Cache, ConfigFile, Overrides, settings
from search.cli.output import echo
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import cache_folder

app = App()
config_app = App(help="Show the settings of a search, or their schema.", no_args_is_help=True)


@config_app.command("show")
def show(config: ConfigFile = None, set_: Overrides = None) -> None:
    """Show all settings as YAML, with comments.

    These are the settings that `run` would use with the same options; the output can be used with --config.

    Examples:

      genre-search config show

      genre-search config show --config configs/gtzan.yaml --set training.epochs=5
    """
    from search.config.reference import commented_yaml
    from search.config.schema import load

    echo(commented_yaml(load(config, settings(overrides=set_))), nl=False)


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a settings file.

    Editors use it to complete and check settings files; see docs/settings.md.

    Example:

      genre-search config schema
    """
    from search.config.reference import json_schema

    echo(json.dumps(json_schema(), indent=2))


@app.command()
def init(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Folder with one subfolder per genre, or a manifest, perhaps at s3://…"
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write; it must not exist.")
    ] = Path("search.yaml"),
    cache: Cache = None,
) -> None:
    """Write a settings file that fits your music and this machine.

    Decodes and checks every file; `run` reuses the results.

    Example:

      genre-search init ~/music
    """
    from genre_core.corpus.audit import excluded_summary
    from genre_core.corpus.tracks import read_corpus
    from genre_core.system.addresses import source_of
    from genre_core.system.atomic import atomic_file
    from search.config.schema import SearchConfig
    from search.data.audited import audited
    from search.data.starting_point import starting_point
    from search.display.area import console
    from search.display.progress import Display
    from search.tune.plan import local_workers

    if output.exists():
        raise InputError(
            f"--output must be a new file, but {output} exists; choose another name",
            code=SearchErrorCode.FILE_EXISTS,
        )
    defaults = SearchConfig()
    corpus = audited(
        read_corpus(data),
        minimum_seconds=defaults.segment_seconds,
        cache=cache_folder(cache),
        reporter=Display(console()),
    )
    workers, device = local_workers(defaults)
    text = starting_point(corpus, data=data, workers=workers, device=device)
    with atomic_file(output) as partial:
        partial.write_text(text, encoding="utf-8")
    if excluded := excluded_summary(corpus):
        echo(f"{excluded}; details: {command('data', 'check', source_of(data))}")
    echo(f"wrote {output}; review it, then run: {command('run', '--config', output)}")
