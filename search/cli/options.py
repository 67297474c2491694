"""Options and arguments of commands, how they become settings, and an app that rejects repeated options."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import CommandFunctionType

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.run.folder import CACHE_VARIABLE

_OPTIONS = "Options"
_SEARCH, _LIMITS, _RESOURCES, _OUTPUT = "What to search", "When to stop", "Where to run", "What to print"
_GROUPS = ("Arguments", _SEARCH, _LIMITS, _RESOURCES, _OUTPUT, _OPTIONS)
"""Groups of options in the help, in order."""


class App(typer.Typer):
    """Typer app that rejects an option given twice; Typer would silently use the last one."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See typer.Typer."""
        return super().command(name, cls=cls or _Command, **options)


_ALWAYS_TOGETHER = 10
"""Number of options that are listed without groups."""


class _Command(TyperCommand):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the arguments, and the options by their group if there are many."""
        groups: dict[str, list[tuple[str, str]]] = {}
        records = [
            (param, record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx))
        ]
        together = len(records) <= _ALWAYS_TOGETHER
        for param, record in records:
            group = "Arguments" if param.param_type_name == "argument" else _OPTIONS
            if isinstance(param, TyperOption) and not together:
                group = (
                    max(groups, key=_GROUPS.index) if param.name == "help" else param.rich_help_panel or group
                )
            groups.setdefault(group, []).append(record)
        for group in sorted(groups, key=_GROUPS.index):
            with formatter.section(group):
                formatter.write_dl(groups[group])

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
Runs = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Folder that contains the run folders.", rich_help_panel=_RESOURCES),
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Name of the run folder [default: timestamp].", rich_help_panel=_SEARCH
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file with settings; see configs/.", rich_help_panel=_SEARCH),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, such as training.epochs=5; repeatable.",
        rich_help_panel=_SEARCH,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Cache folder.",
        envvar=CACHE_VARIABLE,
        rich_help_panel=_RESOURCES,
    ),
]

Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Folder with one subfolder per genre, or a manifest, perhaps at s3://… or gs://…, or `builtin`.",
        rich_help_panel=_SEARCH,
    ),
]
MovedData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="PATH", help="New location of the music, if it was moved.", rich_help_panel=_SEARCH
    ),
]

Trials = Annotated[
    str | None, typer.Option(metavar="N", help="Total number of trials.", rich_help_panel=_LIMITS)
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Stop after this time, such as 90s, 30m or 2h.", rich_help_panel=_LIMITS
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop after this much training time, summed over workers.",
        rich_help_panel=_LIMITS,
    ),
]
# Options of earlier versions for settings that few people need: they still work, but --help no longer lists them.
StopWhenFlat = Annotated[
    bool,
    typer.Option("--stop-when-flat", help="Stop when no further improvement is expected.", hidden=True),
]
Price = Annotated[
    str | None,
    typer.Option(metavar="X", help="Price of one worker-hour, to show the cost of the search.", hidden=True),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show the plan and its estimated cost, and exit.", rich_help_panel=_LIMITS
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print results and errors only.", rich_help_panel=_OUTPUT)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Also print a line for each epoch.", rich_help_panel=_OUTPUT)
]
LogTo = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Also append all lines to a file, with timestamps.",
        rich_help_panel=_OUTPUT,
    ),
]
Seed = Annotated[
    str | None, typer.Option(metavar="N", help="Seed of the sampler and of the trials.", hidden=True)
]
MoreSeeds = Annotated[
    str | None,
    typer.Option(
        "--repeat-seeds",
        metavar="N",
        help="Seeds per configuration; for a finite search space.",
        rich_help_panel=_LIMITS,
    ),
]
RepeatSeeds = Annotated[
    str | None,
    typer.Option(metavar="N", help="Seeds per configuration; for a finite search space.", hidden=True),
]
WarmStart = Annotated[
    list[str] | None,
    typer.Option(metavar="RUN", help="Earlier run to start from; repeatable.", rich_help_panel=_SEARCH),
]
AfterFinish = Annotated[
    bool,
    typer.Option(
        "--after-finish",
        help="Add trials after the test set was used; this is recorded.",
        rich_help_panel=_LIMITS,
    ),
]

Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="HOST:PORT of a running Ray cluster, or `auto`.", rich_help_panel=_RESOURCES
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Maximum number of trials that run in parallel.", rich_help_panel=_RESOURCES
    ),
]
CpusPerTrial = Annotated[str | None, typer.Option(metavar="X", help="CPU cores per trial.", hidden=True)]
TrialsPerGpu = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Trials that share a GPU; `auto` decides by memory use.", rich_help_panel=_RESOURCES
    ),
]
FeatureCache = Annotated[
    str | None,
    typer.Option(
        metavar="GIB", help="Disk space per node for shared activations; 0 disables sharing.", hidden=True
    ),
]
DataCache = Annotated[
    str | None,
    typer.Option(
        metavar="GIB",
        help="Disk space for spectrograms on a node that cannot read the driver's cache.",
        hidden=True,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Keep a copy of the run at s3://…, gs://…", rich_help_panel=_RESOURCES
    ),
]


def settings(
    *,
    values: Mapping[str, str | None] | None = None,
    literals: Mapping[str, object] | None = None,
    overrides: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Settings by name from the options that were given.

    Args:
        values: options to parse as YAML; None where not given.
        literals: options to use as they are; None where not given.
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
