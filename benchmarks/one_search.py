"""Measure a search's overhead beyond arithmetic, and the growth of its workers' memory.

    python benchmarks/one_search.py --data MANIFEST --trials 60 [--set KEY=VALUE ...]

runs `genre-search run` and analyses its Parquet files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from search.run.tables import read_epochs, read_trials

SETTLED = 10
"""Number of a worker's trial after which memory should not grow."""


def main() -> None:
    """Run the search and print its costs as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gsb", dir="/tmp") as folder:
        command = [str(Path(sys.executable).parent / "genre-search"), "run", "--data", str(arguments.data)]
        command += [
            "--trials",
            str(arguments.trials),
            "--runs",
            folder,
            "--name",
            "r",
            "--cache",
            f"{folder}/c",
        ]
        for setting in ["pruner=none", "keep_models=0", *arguments.settings]:
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder) / "r"
        print(json.dumps(account(read_trials(run), read_epochs(run)), indent=1))


def account(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, float]:
    """How the workers' time was spent, from the start of the first trial to the end of the last one."""
    ended = trials.dropna(subset=["seconds"])
    began = ended["finished"] - pd.to_timedelta(ended["seconds"], unit="s")
    workers = ended["pid"].nunique()
    wall = (ended["finished"].max() - began.min()).total_seconds() * workers
    arithmetic = epochs["arithmetic_seconds"].sum() + ended["features_seconds"].sum()
    order = began.sort_values().index
    gaps = [
        (began[later] - ended["finished"][group[:i]].max()).total_seconds()
        for group in (
            [index for index in order if ended["pid"][index] == pid] for pid in ended["pid"].unique()
        )
        for i, later in enumerate(group)
        if i
    ]
    growth = [
        float(own["memory_before_bytes"].iloc[-1] / own["memory_before_bytes"].iloc[SETTLED - 1] - 1)
        for _, own in ended.loc[order].groupby("pid")
        if len(own) > SETTLED
    ]
    return {
        "trials": len(ended),
        "workers": int(workers),
        "seconds": wall / workers,
        "trials_an_hour": 3600 * len(ended) * workers / wall,
        "efficiency": float(arithmetic / wall),
        "of_which_features": float(ended["features_seconds"].sum() / wall),
        "overhead_a_trial_s": float(pd.Series(gaps).median()),
        "bookkeeping_an_epoch_s": float((epochs["seconds"] - epochs["arithmetic_seconds"]).median()),
        "memory_growth_after_the_tenth_trial": max(growth, default=float("nan")),
    }


if __name__ == "__main__":
    main()
