"""Compare search strategies by replays of the recorded searches in benchmarks/surfaces.

    python benchmarks/strategies.py [--repeats 50] [--workers 1 2 8 64] [--only NAME ...]

Prints Markdown tables of the time until a search is within a margin of the best F1, and writes all results as JSON.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path

from search.engine.contenders import AS_RECORDED, CONTENDERS
from search.engine.recorded import Pool, read_pool
from search.engine.simulator import Trace, simulate
from search.report.replays import TOLERANCE, Outcome, outcome

HERE = Path(__file__).parent
MARGINS = (0.05, 0.02, 0.01, 0.0)
SLOW = {"optuna_gp_median": 5}
"""Maximum number of repeats of a strategy that takes most of a minute to replay."""
Key = tuple[str, str, int]
"""Surface, strategy, number of workers."""


def main() -> None:
    """Replay, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--surfaces", type=Path, default=HERE / "surfaces", help="folder of recorded searches"
    )
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="strategies [default: all]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "strategies.json")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes
    folders = {folder.name: folder for folder in recorded(given.surfaces)}
    names = given.only or list(CONTENDERS)
    keys = [(surface, name, count) for surface in folders for name in names for count in given.workers]
    work = [(key, seed) for key in keys for seed in _seeds(key[1], given.repeats)]
    with ProcessPoolExecutor(given.processes) as processes:
        tasks = [
            processes.submit(replay, folders[surface], name, count, seed)
            for (surface, name, count), seed in work
        ]
        traces = [task.result() for task in tasks]
    found: dict[Key, list[Trace]] = {key: [] for key in keys}
    for (key, _), trace in zip(work, traces, strict=True):
        found[key].append(trace)
    results = {
        surface: [own for key in keys if key[0] == surface for own in _outcomes(key, found[key], folder)]
        for surface, folder in folders.items()
    }
    for surface, folder in folders.items():
        print(*markdown(surface, pool_of(folder), results[surface]), sep="\n")
    content = {
        "repeats": {name: len(_seeds(name, given.repeats)) for name in names},
        "surfaces": {name: [asdict(own) for own in outcomes] for name, outcomes in results.items()},
    }
    given.results.write_text(json.dumps(content, indent=1) + "\n")


def recorded(surfaces: Path) -> list[Path]:
    """The folders of recorded searches in a folder."""
    return sorted(trials.parents[1] for trials in surfaces.glob("*/results/trials.parquet"))


def _seeds(name: str, repeats: int) -> range:
    return range(1 if name == AS_RECORDED else min(repeats, SLOW.get(name, repeats)))


@cache
def pool_of(folder: Path) -> Pool:
    """The trials of a recorded search, read once per process."""
    return read_pool([folder])


def replay(folder: Path, name: str, workers: int, seed: int) -> Trace:
    """Replay a strategy once, until it has found the best."""
    pool = pool_of(folder)
    return simulate(pool, CONTENDERS[name], workers=workers, seed=seed, target=pool.best_f1 - TOLERANCE)


def _outcomes(key: Key, traces: Sequence[Trace], folder: Path) -> list[Outcome]:
    _, name, workers = key
    return [outcome(name, workers, margin, traces, best_f1=pool_of(folder).best_f1) for margin in MARGINS]


def markdown(surface: str, pool: Pool, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A table per number of workers: median worker-seconds by strategy and margin, with the share that reached it."""
    yield f"\n### {surface}: {len(pool.curves)} trials, best F1 {pool.best_f1:.3f}"
    for workers in sorted({own.workers for own in outcomes}):
        titles = [f"within {margin:g}" if margin else "best" for margin in MARGINS]
        yield f"\nMedian worker-seconds with {workers} worker{'s' if workers > 1 else ''}:\n"
        yield f"| strategy | {' | '.join(titles)} |"
        yield f"|---|{'---|' * len(titles)}"
        rows = [own for own in outcomes if own.workers == workers]
        for name in dict.fromkeys(own.strategy for own in rows):
            yield f"| `{name}` | {' | '.join(_cell(own) for own in rows if own.strategy == name)} |"


def _cell(own: Outcome) -> str:
    if own.worker_seconds_median is None:
        return f"- ({own.reached:.0%})"
    share = "" if own.reached == 1 else f" ({own.reached:.0%})"
    return f"{own.worker_seconds_median:.0f}{share}"


if __name__ == "__main__":
    main()
