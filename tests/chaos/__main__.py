"""Chaos tests of 80 trials each: drivers, workers and helper processes are killed, nodes leave, the cache disk fills.

PYTHONPATH=tests:tests/support python tests/chaos [--seed 0] [--results benchmarks/results/chaos.json] [SCENARIO …]
"""

import argparse
import json
import platform
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from unittest import SkipTest

import psutil
from faults import DISK, CacheDisk, Rhythm, machines
from invariants import check
from scenarios import Outcome, as_record, endure, table
from searches import Search
from small_disks import small_disk
from tiny import MUSIC

from genre_core.synthetic.corpus import write

TRIALS = 80
SETTINGS = {
    "space.frozen_blocks": {"low": 0, "high": "all"},
    "training.epochs": 8,
    "retries": 20,  # the same trial may be hit many times
}
"""Trials of a few seconds, so that faults hit them while they run."""
PAUSING = {"search": "cost_aware", "pruner": None}
"""The search that pauses trials instead of pruning them."""
DRIVER_KILLS = 20
WORKERS_DIE = Rhythm(every=(5.0, 10.0))
"""A worker takes up to ten seconds to start: with more frequent faults, two would hardly ever run at once."""
HELPERS_DIE = Rhythm(every=(2.0, 6.0))
NODES_GO = Rhythm(every=(15.0, 25.0))
NODES = 2
DISK_FILLS = Rhythm(every=(2.0, 5.0))
DISK_BYTES = 256 * 1024**2
"""Enough for the files that trials share, unless the disk is filled."""


def drivers(search: Search, seed: int) -> Outcome:
    """The driver is killed at twenty random times."""
    return endure("driver", search, seed=seed, driver_kills=DRIVER_KILLS)


def renamed(search: Search, seed: int) -> Outcome:
    """The driver is killed, and the run's folder is renamed before it is resumed."""
    return endure("renamed", search, seed=seed, driver_kills=DRIVER_KILLS // 2, renamed=True)


def workers(search: Search, seed: int) -> Outcome:
    """A worker is killed every five to ten seconds."""
    return endure("workers", search, seed=seed, workers_die=WORKERS_DIE)


def paused(search: Search, seed: int) -> Outcome:
    """Drivers and workers are killed in a search that pauses trials and resumes them."""
    search.settings = search.settings | PAUSING
    outcome = endure("paused", search, seed=seed, driver_kills=DRIVER_KILLS // 2, workers_die=WORKERS_DIE)
    assert outcome.found.pauses, "no trial was paused"
    assert outcome.found.resumed, "no paused trial was resumed"
    return outcome


def helpers(search: Search, seed: int) -> Outcome:
    """A helper process is killed every two to six seconds."""
    return endure("helpers", search, seed=seed, helpers_die=HELPERS_DIE)


def nodes(search: Search, seed: int) -> Outcome:
    """Nodes leave the cluster and others join."""
    with machines(NODES) as cluster:
        search.address = cluster.address
        return endure("nodes", search, seed=seed, nodes_go=NODES_GO, machines=cluster)


def all_three(search: Search, seed: int) -> Outcome:
    """Drivers and workers are killed while nodes leave and join."""
    with machines(NODES) as cluster:
        search.address = cluster.address
        return endure(
            "all three",
            search,
            seed=seed,
            driver_kills=DRIVER_KILLS // 3,
            workers_die=WORKERS_DIE,
            nodes_go=NODES_GO,
            machines=cluster,
        )


def disks(search: Search, seed: int) -> Outcome:
    """The disk of the cache is repeatedly cleared and filled."""
    with small_disk(search.folder / "disk", DISK_BYTES) as place:
        search.cache = place
        outcome = endure("cache disk", search, seed=seed, disk_fills=DISK_FILLS, disk=CacheDisk(place))
    assert outcome.times(DISK), "the search ended before its cache disk was filled"
    assert not outcome.found.failed, "a full cache only costs sharing"
    return outcome


SCENARIOS = {
    "driver": drivers,
    "renamed": renamed,
    "workers": workers,
    "paused": paused,
    "helpers": helpers,
    "nodes": nodes,
    "all": all_three,
    "disk": disks,
}


def main() -> int:
    """Run the given scenarios, all by default; the run of a failed one is kept."""
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="chaos-"))
    write(MUSIC, base / "music")
    records, failures = [], 0
    for name in arguments.scenarios or SCENARIOS:
        (base / name).mkdir()
        search = Search(
            folder=base / name,
            music=base / "music",
            cache=base / "cache",
            trials=arguments.trials,
            settings=SETTINGS,
        )
        try:
            outcome = SCENARIOS[name](search, arguments.seed)
            records.append(as_record(outcome))
            check(search.run, trials=search.trials, keep_models=search.keep_models)
            assert outcome.found.epochs_repeated <= outcome.most_repeated, "too many epochs were repeated"
        except SkipTest as reason:
            print(f"{name}: skipped: {reason}", flush=True)
        except AssertionError as error:
            failures += 1
            print(f"{name}: {error}", flush=True)
    if records:
        print(table(records))
    if arguments.results:
        machine = {"cores": psutil.cpu_count(), "machine": platform.machine(), "ray": version("ray")}
        arguments.results.write_text(json.dumps({"machine": machine, "scenarios": records}, indent=1) + "\n")
    if not failures:
        shutil.rmtree(base)
    return min(failures, 1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    sys.exit(main())
