"""The command that replays recorded learning curves with other settings: simulate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genre_core.errors import InputError
from search.cli.options import App, settings
from search.cli.output import echo, show
from search.errors import SearchErrorCode

if TYPE_CHECKING:
    from search.engine.contenders import Contender
    from search.engine.recorded import Pool
    from search.report.replays import Outcome

app = App()

_REPLAYED = ("search", "sampler", "pruner", "seed")
"""Settings that a replay can change."""

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Run folders; the trials of several are pooled.")
]
Search = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="cost_aware or optuna [default: both are compared].",
        autocompletion=lambda: ["cost_aware", "optuna"],
    ),
]
Sampler = Annotated[str | None, typer.Option(metavar="NAME", help="Optuna sampler to compare.")]
Pruner = Annotated[str | None, typer.Option(metavar="NAME", help="Optuna pruner to compare.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the search, sampler or pruner, or seed=N; repeatable.",
    ),
]
Workers = Annotated[
    list[int] | None,
    typer.Option(metavar="N", min=1, max=1000, help="Number of simulated workers; repeatable [default: 1]."),
]
Repeats = Annotated[
    int, typer.Option(metavar="N", min=1, max=10_000, help="Number of replays, each with another seed.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@app.command()
def simulate(
    runs: Runs,
    search: Search = None,
    sampler: Sampler = None,
    pruner: Pruner = None,
    set_: Overrides = None,
    workers: Workers = None,
    repeats: Repeats = 10,
    as_json: Json = False,
) -> None:
    """Replay a search: how fast would other settings have been?

    Nothing is trained. The recorded trials are the search space, and simulated workers take as long as the
    recorded ones did. For the most reliable replays, record a search with `--set sampler=random --set
    pruner=none`.

    Examples:

      genre-search simulate runs/music

      genre-search simulate runs/music --sampler gp --workers 1 --workers 8
    """
    from search.engine.recorded import read_pool

    literals = {"search": search, "sampler.name": sampler, "pruner.name": pruner}
    overrides = settings(literals=literals, overrides=set_)
    contenders, seed = _contenders(overrides)
    pool = read_pool(runs)
    counts = list(dict.fromkeys(workers or [1]))
    if not as_json:
        _introduce(pool, repeats)
    for count in counts:
        outcomes = _outcomes(pool, contenders, workers=count, seed=seed, repeats=repeats)
        if as_json:
            for own in outcomes:
                echo(json.dumps(own.as_json()))
        else:
            _print(pool, outcomes, workers=count, seed=seed)


def _contenders(overrides: dict[str, object]) -> "tuple[list[Contender], int]":
    """The strategies to replay, and the first seed."""
    from search.config.schema import OPTUNA, load
    from search.engine.contenders import CONTENDERS, COST_AWARE, TODAY, of_optuna

    for key in overrides:
        if key.split(".")[0] not in _REPLAYED:
            raise InputError(
                f"--set must name a setting that affects a replay ({', '.join(_REPLAYED)}), but got {key}; "
                "start a search to change other settings",
                code=SearchErrorCode.SETTING_NOT_REPLAYED,
            )
    config = load(None, _named(overrides))
    if not overrides.keys() - {"seed"}:
        return [CONTENDERS[COST_AWARE], CONTENDERS[TODAY]], config.seed
    if config.search != OPTUNA:
        return [CONTENDERS[COST_AWARE]], config.seed
    assert config.sampler is not None, "the configuration fills it in"
    assert config.pruner is not None, "the configuration fills it in"
    return [of_optuna(config.sampler, config.pruner)], config.seed


def _named(overrides: dict[str, object]) -> dict[str, object]:
    """Overrides with the default sampler or pruner where only its parameters are given."""
    defaults = {"sampler.name": "tpe", "pruner.name": "median"}
    kinds = {key.split(".")[0] for key in overrides if "." in key}
    return {key: name for key, name in defaults.items() if key.split(".")[0] in kinds} | overrides


def _outcomes(
    pool: "Pool", contenders: "list[Contender]", *, workers: int, seed: int, repeats: int
) -> "list[Outcome]":
    from search.engine.simulator import simulate as replay
    from search.report.replays import MARGINS, TOLERANCE, outcome

    found = []
    for contender in contenders:
        traces = [
            replay(
                pool,
                contender,
                workers=workers,
                seed=seed + repeat,
                target=pool.best_f1 - min(MARGINS) - TOLERANCE,
            )
            for repeat in range(repeats)
        ]
        found += [
            outcome(contender.name, workers, margin, traces, best_f1=pool.best_f1) for margin in MARGINS
        ]
    return found


def _introduce(pool: "Pool", repeats: int) -> None:
    echo(
        f"{len(pool.curves)} recorded trials, best F1 {pool.best_f1:.3f}; replays of each strategy: {repeats}"
    )
    if pool.cut:
        count = "1 trial was" if pool.cut == 1 else f"{pool.cut} trials were"
        echo(
            f"{count} pruned, stopped or still running: their later epochs are unknown, so\n"
            "replays end them at the same epoch. To record complete curves, run a search\n"
            "with --set sampler=random --set pruner=none."
        )


def _print(pool: "Pool", outcomes: "list[Outcome]", *, workers: int, seed: int) -> None:
    from search.engine.contenders import AS_RECORDED, CONTENDERS
    from search.report import replays

    own = _outcomes(pool, [CONTENDERS[AS_RECORDED]], workers=workers, seed=seed, repeats=1)
    echo(f"\n{workers} worker{'s' if workers > 1 else ''}, time to come within a margin of the best F1:")
    show(replays.table([*own, *outcomes]))
    for line in replays.comparison(own, outcomes):
        echo(line)
