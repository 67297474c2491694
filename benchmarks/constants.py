"""Choose the constants of the default search on all recorded searches but one, and report them on the one left out.

    python benchmarks/constants.py [--repeats 20] [--processes 2]

A choice is as good as the geometric mean, over repeats and surfaces, of the worker-seconds until a replay with one
worker is within 0.02 of the best F1; one that does not get there counts as having trained the whole surface. Prints a
table and writes results/constants.json.
"""

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from strategies import pool_of, recorded

from search.cost_aware.policy import Settings
from search.engine.contenders import cost_aware
from search.engine.recorded import Pool
from search.engine.simulator import simulate
from search.report.replays import TOLERANCE

HERE = Path(__file__).parent
MARGIN = 0.02
GRID = [
    Settings(cost_exponent=exponent, rise=rise, hold=hold)
    for exponent, rise, hold in product((0.5, 0.75, 1.0), (0.15, 0.25, 0.4), (1.0, 2.0, 4.0))
]


def main() -> None:
    """Replay all settings on all surfaces, choose, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--surfaces", type=Path, default=HERE / "surfaces", help="folder of recorded searches"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "constants.json")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes
    folders = recorded(given.surfaces)
    cells = [(folder, settings) for folder in folders for settings in GRID]
    with ProcessPoolExecutor(given.processes) as processes:
        tasks = [
            [processes.submit(seconds, folder, settings, seed) for seed in range(given.repeats)]
            for folder, settings in cells
        ]
        found = np.array([[task.result() for task in own] for own in tasks])
    found = found.reshape(len(folders), len(GRID), given.repeats)
    names = [folder.name for folder in folders]
    print(*table(names, found), sep="\n")
    content = {
        "margin": MARGIN,
        "repeats": given.repeats,
        "settings": [asdict(settings) for settings in GRID],
        "worker_seconds": dict(zip(names, found.round(2).tolist(), strict=True)),
    }
    given.results.write_text(json.dumps(content) + "\n")


def seconds(folder: Path, settings: Settings, seed: int) -> float:
    """Worker-seconds of a replay until it is within the margin of the best F1, or of all trials."""
    pool = pool_of(folder)
    target = pool.best_f1 - MARGIN - TOLERANCE
    trace = simulate(pool, cost_aware(settings), workers=1, seed=seed, target=target)
    reached = trace.reach(target)
    return reached.worker_seconds if reached else _whole(pool)


def _whole(pool: Pool) -> float:
    return sum(curve.build_seconds + sum(curve.seconds) for curve in pool.curves)


def table(names: Sequence[str], found: np.ndarray) -> list[str]:
    """Markdown: by surface, the settings chosen on the others, and the median worker-seconds on it of these and more.

    Args:
        names: of the surfaces.
        found: worker-seconds, [surfaces, settings, repeats].
    """
    scores = np.log(found).mean(axis=2)
    default = GRID.index(Settings())
    lines = [
        "| left out | chosen on the others (cost_exponent, rise, hold) | its seconds | default's | best |",
        "|---|---|---|---|---|",
    ]
    for i, name in enumerate(names):
        others = np.delete(scores, i, axis=0).mean(axis=0)
        chosen = int(others.argmin())
        own = np.median(found[i], axis=1)
        cells = [_text(GRID[chosen]), *(f"{own[k]:.1f}" for k in (chosen, default, int(scores[i].argmin())))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    best = int(scores.mean(axis=0).argmin())
    return [*lines, "", f"Chosen on all: {_text(GRID[best])}; default: {_text(GRID[default])}"]


def _text(settings: Settings) -> str:
    return f"{settings.cost_exponent:g}, {settings.rise:g}, {settings.hold:g}"


if __name__ == "__main__":
    main()
