"""Measure memory and file handles of a search's processes over 500 trials, and look for leftovers.

PYTHONPATH=tests:tests/support:tests/chaos python benchmarks/long_search.py [--trials 500] [--results FILE]
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import psutil
from processes import in_session, runs_trials
from searches import Search
from tiny import MUSIC

from genre_core.synthetic.corpus import write
from search.run.tables import read_trials

POLL_SECONDS = 1.0


def main() -> int:
    """Run the search, measure its processes at each tenth of its trials, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    arguments = parser.parse_args()
    before = set(Path("/tmp").iterdir())
    with tempfile.TemporaryDirectory(prefix="long-", dir="/tmp") as temporary:
        base = Path(temporary)
        write(MUSIC, base / "music")
        search = Search(folder=base, music=base / "music", cache=base / "cache", trials=arguments.trials)
        rows = measured(search, arguments.trials)
        left = [str(p) for p in base.rglob("*") if p.suffix in (".partial", ".tmp") or ".lock" in p.name]
        processes = [process.name() for process in in_session(search.drivers[0].session)]
        ended = int((read_trials(search.run)["state"] != "RUNNING").sum())
    after = {str(path) for path in set(Path("/tmp").iterdir()) - before}
    print("| trials | driver MiB | driver handles | worker MiB | worker handles |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(f"ended: {ended}; processes left: {processes}; files of the search left: {left}; in /tmp: {after}")
    if arguments.results:
        machine = {"cores": psutil.cpu_count(), "machine": platform.machine()}
        record = {"machine": machine, "rows": rows, "processes left": processes, "files left": left}
        arguments.results.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def measured(search: Search, trials: int) -> list[dict[str, int]]:
    """Memory and handles of the driver and the largest worker, each time another tenth of the trials has begun."""
    driver = search.start()
    rows: list[dict[str, int]] = []
    while driver.code is None:
        time.sleep(POLL_SECONDS)
        begun = len(list((search.run / "results" / "epochs").glob("trial-*")))
        if begun >= (len(rows) + 1) * trials // 10 and (row := _usage(driver.session)):
            rows.append({"trials": begun} | row)
    assert driver.code == 0, driver.last_words()
    return rows


def _usage(session: int) -> dict[str, int] | None:
    workers = [process for process in in_session(session) if runs_trials(process)]
    try:
        driver = psutil.Process(session)
        return {
            "driver MiB": driver.memory_info().rss // 2**20,
            "driver handles": driver.num_fds(),
            "worker MiB": max(process.memory_info().rss for process in workers) // 2**20,
            "worker handles": max(process.num_fds() for process in workers),
        }
    except (psutil.Error, ValueError):  # a process has ended, or there is no worker yet
        return None


if __name__ == "__main__":
    sys.exit(main())
