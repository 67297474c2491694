"""Runs a search while faults are injected, and examines the result."""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from faults import (
    DISK,
    DRIVER,
    HELPER,
    KINDS,
    NODE,
    WORKER,
    CacheDisk,
    Fault,
    Machines,
    Plague,
    Rhythm,
    kill_one,
)
from invariants import Findings, examine
from processes import Driver, below, helps, in_session, runs_trials
from searches import Search, Watch

START_SECONDS = 10.0
"""Longest time from a driver's start to a kill that targets the start."""
SEARCHING_SECONDS = 2.0
"""Longest time from a driver's first epoch to any other kill."""
STARTS_STRUCK = 0.25
"""Share of the kills that target a driver's start."""
PATIENCE_SECONDS = 120.0
"""Time without a new epoch after which a search counts as hanging."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Faults that were injected into a search, and its result."""

    name: str
    faults: tuple[Fault, ...]
    recovery_seconds: tuple[float, ...]
    """From each fault to the next epoch that was written, if there was one."""
    seconds: float
    workers: int
    found: Findings

    @property
    def most_repeated(self) -> int:
        """Largest allowed number of repeated epochs: one per running trial and fault."""
        return len(self.faults) * self.workers

    def times(self, kind: str) -> int:
        """Number of faults of a kind."""
        return sum(fault.kind == kind for fault in self.faults)


def endure(
    name: str,
    search: Search,
    *,
    seed: int,
    driver_kills: int = 0,
    renamed: bool = False,
    workers_die: Rhythm | None = None,
    helpers_die: Rhythm | None = None,
    nodes_go: Rhythm | None = None,
    machines: Machines | None = None,
    disk_fills: Rhythm | None = None,
    disk: CacheDisk | None = None,
) -> Outcome:
    """Run a search to its end while faults are injected; the search must succeed.

    Args:
        name: of the scenario.
        search: the search under test.
        seed: of the times and targets of faults.
        driver_kills: how many times the driver is killed and restarted at once.
        renamed: whether the run's folder is renamed before each restart.
        workers_die: how often a worker is killed.
        helpers_die: how often a helper process is killed.
        nodes_go: how often a node is replaced.
        machines: the cluster that the search runs on, if any.
        disk_fills: how often the cache disk is filled or freed.
        disk: the cache disk.
    """
    began = time.monotonic()
    watch, chance = Watch(search), random.Random(seed)
    plagues = list(_plagues(search, watch, seed, workers_die, helpers_die, nodes_go, machines))
    if disk_fills and disk:
        plagues.append(
            Plague(disk.fill_or_empty, kind=DISK, rhythm=disk_fills, seed=seed, ready=lambda: watch.last > 0)
        )
    with _running(search, watch):
        driver = search.start()
        with _striking(plagues):
            faults = _kill_drivers(search, driver, driver_kills, watch, chance, renamed=renamed)
            _to_its_end(search, watch)
    faults += [fault for plague in plagues for fault in plague.faults]
    later = [(fault.at, watch.first_after(fault.at)) for fault in faults]
    return Outcome(
        name=name,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        recovery_seconds=tuple(written - at for at, written in later if written is not None),
        seconds=time.monotonic() - began,
        workers=search.workers,
        found=examine(search.run, keep_models=search.keep_models),
    )


def _plagues(
    search: Search,
    watch: Watch,
    seed: int,
    workers_die: Rhythm | None,
    helpers_die: Rhythm | None,
    nodes_go: Rhythm | None,
    machines: Machines | None,
) -> Iterator[Plague]:
    def killing(which: Callable[[psutil.Process], bool]) -> Callable[[random.Random], bool]:
        return lambda chance: kill_one(
            filter(which, _processes(search, on_cluster=machines is not None)), chance
        )

    def searching() -> bool:
        return watch.last > 0

    if workers_die:
        yield Plague(killing(runs_trials), kind=WORKER, rhythm=workers_die, seed=seed, ready=searching)
    if helpers_die:
        yield Plague(killing(helps), kind=HELPER, rhythm=helpers_die, seed=seed + 2, ready=searching)
    if nodes_go and machines:
        yield Plague(machines.replace_one, kind=NODE, rhythm=nodes_go, seed=seed + 1, ready=searching)


def _processes(search: Search, *, on_cluster: bool) -> Iterator[psutil.Process]:
    """Processes that include the workers: descendants of this process if it started a cluster, or of the driver."""
    return below(os.getpid()) if on_cluster else in_session(search.drivers[-1].session)


@contextmanager
def _running(search: Search, watch: Watch) -> Iterator[None]:
    """End all processes of the search when the context ends."""
    watch.start()
    try:
        yield
    finally:
        watch.stop()
        search.end()


@contextmanager
def _striking(plagues: Sequence[Plague]) -> Iterator[None]:
    with ExitStack() as stack:
        for plague in plagues:
            plague.start()
            stack.callback(plague.stop)
        yield


def _kill_drivers(
    search: Search, driver: Driver, times: int, watch: Watch, chance: random.Random, *, renamed: bool
) -> list[Fault]:
    """Kill the driver at random times and restart it, this many times or until the search is over."""
    faults = []
    for _ in range(times):
        if chance.random() < STARTS_STRUCK:
            until = driver.started + chance.uniform(0, START_SECONDS)
        else:
            until = _first_epoch_or_end(search, driver, watch) + chance.uniform(0, SEARCHING_SECONDS)
        while driver.code is None and time.time() < until:
            time.sleep(0.01)
        if driver.code is not None:
            break
        faults.append(Fault(kind=DRIVER, at=time.time()))
        driver.kill()
        if renamed:
            search.rename()
        driver = search.start()
    return faults


def _first_epoch_or_end(search: Search, driver: Driver, watch: Watch) -> float:
    """Time when the driver's first epoch was written, or when it exited."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if written := watch.first_after(driver.started):
            return written
        if driver.code is not None:
            return time.time()
        time.sleep(0.01)
    raise AssertionError(f"{search.run} makes no progress:\n{driver.last_words()}")


def _to_its_end(search: Search, watch: Watch) -> None:
    """Wait for the last driver to exit successfully; fail if no epoch is written for too long."""
    driver = search.drivers[-1]
    while driver.code is None:
        idle = time.time() - max(driver.started, watch.last)
        assert idle < PATIENCE_SECONDS, f"{search.run} hangs:\n{driver.last_words()}"
        time.sleep(0.05)
    assert driver.code == 0, f"{search.run} ended with {driver.code}:\n{driver.last_words()}"


def as_record(outcome: Outcome) -> dict[str, Any]:
    """The outcome as a row of a table or of a results file."""
    found, recovery = outcome.found, outcome.recovery_seconds
    return {
        "scenario": outcome.name,
        **{kind: outcome.times(kind) for kind in KINDS},
        "trials": found.trials,
        "failed": found.failed,
        "restarted": found.restarted,
        "pauses": found.pauses,
        "resumed": found.resumed,
        "epochs": found.epochs,
        "epochs repeated": found.epochs_repeated,
        "rows lost": found.rows_lost,
        "rows doubled": found.rows_doubled,
        "zombies": found.zombies,
        "disagreements": found.disagreements,
        "left over": found.left_over,
        "wrong models": found.models_wrong,
        "went on after s, median": round(statistics.median(outcome.recovery_seconds), 1)
        if outcome.recovery_seconds
        else None,
        "at most": round(max(recovery), 1) if recovery else None,
        "seconds": round(outcome.seconds),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """Markdown table with a column per scenario."""
    names = [name for name in records[0] if name != "scenario"]
    lines = [["", *(record["scenario"] for record in records)]]
    lines += [
        [name, *("" if record[name] is None else str(record[name]) for record in records)] for name in names
    ]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|---" * len(lines[0]) + "|", *text[1:]])
