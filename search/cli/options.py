"""Options and arguments of commands, how they become settings, and an app that rejects repeated options."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import CommandFunctionType

from genre_core.errors import InputError
from search.errors import SearchErrorCode


class App(typer.Typer):
    """Typer app that rejects an option given twice; Typer would silently use the last one."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See typer.Typer."""
        return super().command(name, cls=cls or _Command, **options)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options before they are parsed as usual."""
        if args and not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option, times in Counter(given).items():
                if isinstance(option, TyperOption) and times > 1 and not (option.multiple or option.is_flag):
                    raise InputError(
                        f"{option.opts[-1]} must be given at most once, but got it {times} times; keep one",
                        code=SearchErrorCode.OPTION_REPEATED,
                    )
        return super().parse_args(ctx, args)


def _found_run(given: Path) -> Path:
    from search.run.overview import find_run

    return find_run(given)


RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, or its name in runs/.", callback=_found_run)
]
RunArguments = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN",
        help="Run folders, or their names in runs/; several are compared [default: the newest].",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder that contains the run folders.")]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the run folder [default: timestamp].")
]
ConfigFile = Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file of settings; see configs/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as training.epochs=5; repeatable."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for spectrograms, audits and the built-in corpus.",
        envvar="GENRE_SEARCH_CACHE",
    ),
]

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Folder with one subfolder per genre, a manifest (CSV, TSV or Parquet), or `builtin`.",
    ),
]
MovedData = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="New location of the music, if it was moved.")
]

Trials = Annotated[str | None, typer.Option(metavar="N", help="Total number of trials.")]
TimeBudget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Stop after this time, such as 90s, 30m or 2h.")
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop when all workers together have trained this long, such as 4h."),
]
StopWhenFlat = Annotated[
    bool,
    typer.Option("--stop-when-flat", help="Stop when no trial promises a better score."),
]
Price = Annotated[
    str | None,
    typer.Option(metavar="X", help="Price of an hour of one worker, to show what the search costs."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be searched and what it would cost, and stop.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print results and errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Also print a line for each epoch.")]
LogTo = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Also append all lines, with the time, to a file."),
]
Seed = Annotated[str | None, typer.Option(metavar="N", help="Seed of the sampler and of the trials.")]
RepeatSeeds = Annotated[
    str | None,
    typer.Option(metavar="N", help="Seeds per configuration; for a finite search space."),
]
WarmStart = Annotated[
    list[str] | None,
    typer.Option(metavar="RUN", help="Earlier run whose trials the sampler starts from; repeatable."),
]
AfterFinish = Annotated[
    bool,
    typer.Option(
        "--after-finish", help="Add trials although the test set was already evaluated; this is recorded."
    ),
]

Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="HOST:PORT of a running Ray cluster, or `auto`.")
]
Workers = Annotated[
    str | None, typer.Option(metavar="N", help="Maximum number of networks trained in parallel.")
]
CpusPerTrial = Annotated[str | None, typer.Option(metavar="X", help="CPU cores per trial.")]
TrialsPerGpu = Annotated[
    str | None, typer.Option(metavar="N", help="Trials sharing a GPU, or `auto` to decide by memory use.")
]
FeatureCache = Annotated[
    str | None,
    typer.Option(metavar="GIB", help="Disk space per node for shared activations; 0 disables sharing."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Where to keep a copy of the run: s3://…, gs://… or another pyarrow file system.",
    ),
]


def cache_folder(given: Path | None) -> Path:
    """The cache folder as given, or the user's own."""
    from platformdirs import user_cache_path

    return given or user_cache_path("genre-search")


def price_of(text: str | None) -> float | None:
    """The value of --price.

    Raises:
        InputError: it is not a number of 0 or more.
    """
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price >= 0):
        raise InputError(
            f"--price must be a number of 0 or more, but got {text!r}; give the price of a worker-hour, such as 2.5",
            code=SearchErrorCode.PRICE_INVALID,
        )
    return price


def settings(
    *,
    values: Mapping[str, str | None] | None = None,
    literals: Mapping[str, object] | None = None,
    overrides: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Settings by name from the options that were given.

    Args:
        values: options to parse as YAML; None where not given.
        literals: options to take as they are; None where not given.
        overrides: the KEY=VALUE texts of `--set`; options of their own take precedence.

    Raises:
        InputError: `--set` gives a setting twice, or its text is not KEY=VALUE.
    """
    from search.config.yaml_reader import parse_override, parse_value

    given: dict[str, Any] = {}
    for key, value in map(parse_override, overrides or ()):
        if key in given:
            raise InputError(
                f"--set must give {key} at most once, but got {given[key]!r} and {value!r}; keep one",
                code=SearchErrorCode.SETTING_REPEATED,
            )
        given[key] = value
    given |= {key: parse_value(text) for key, text in (values or {}).items() if text is not None}
    return given | {key: value for key, value in (literals or {}).items() if value is not None}
