"""Measure what stock Ray Tune loses when its driver is killed, with Tuner.restore used as documented.

python benchmarks/chaos_stock_tune.py --storage journal --kills 3 --seed 0

Trials are simulated: an epoch takes as long as a small one, and its F1 depends on the parameters. Each call appends its
searches to the results file, so that a measurement can be made in parts.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results" / "chaos_stock.json"
TRIALS, EPOCHS, GRACE_EPOCHS, WORKERS = 24, 6, 2, 2
EPOCH_SECONDS = 0.3
KILL_AFTER_SECONDS = (1.0, 20.0)
"""Range of the time between the first epoch after a start or restore, and the kill."""
PATIENCE_SECONDS = 120.0
"""Time without an epoch after which a search counts as hanging."""
RAY_GONE_SECONDS = 30.0
"""Time after which remaining processes of a killed driver's Ray are killed."""
TEMP = "CHAOS_RAY_TEMP"
"""Environment variable with the folder for the files of the driver's Ray."""
N_BLOCKS = {"alexnet": 8, "densenet121": 5, "resnet18": 5, "resnet34": 5, "vgg16": 8}
STORAGES = {
    "journal": "Optuna journal file",
    "journal_often": "Optuna journal file, Tune's snapshot at every checkpoint (num_to_keep=1)",
    "memory": "Optuna in memory, which Tune pickles",
}


# The measured search, written as in the documentation


def train(config: dict[str, Any], ledger: Path) -> None:
    """The trainable function: it resumes from its checkpoint and reports each epoch."""
    import torch
    from ray import tune

    layer = torch.nn.Linear(64, 10)
    optimiser = torch.optim.SGD(layer.parameters(), lr=config["learning_rate"], momentum=config["momentum"])
    done = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt")
        layer.load_state_dict(state["layer"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["epoch"]
    for epoch in range(done + 1, EPOCHS + 1):
        began = time.monotonic()
        optimiser.zero_grad()
        layer(torch.randn(32, 64)).square().mean().backward()
        optimiser.step()
        time.sleep(max(0.0, EPOCH_SECONDS - (time.monotonic() - began)))
        note(ledger, event="epoch", trial=tune.get_context().get_trial_id(), epoch=epoch)
        with tempfile.TemporaryDirectory() as folder:
            state = {"layer": layer.state_dict(), "optimiser": optimiser.state_dict(), "epoch": epoch}
            torch.save(state, Path(folder) / "state.pt")
            tune.report(
                {"f1": f1(config, epoch), "epoch": epoch}, checkpoint=tune.Checkpoint.from_directory(folder)
            )


def f1(config: dict[str, Any], epoch: int) -> float:
    """A learning curve that rises to a limit that depends on the parameters."""
    ceiling = 0.8 * math.exp(-((math.log10(config["learning_rate"]) + 2) ** 2) / 2)
    frozen: float = config["frozen_blocks"] / N_BLOCKS[config["backbone"]]
    return (ceiling - 0.1 * abs(frozen - 0.5)) * (1 - math.exp(-epoch / 2))


def define(trial: Any) -> None:
    """The define-by-run search space: the range of the freeze depth depends on the backbone."""
    backbone = trial.suggest_categorical("backbone", list(N_BLOCKS))
    trial.suggest_int("frozen_blocks", 0, N_BLOCKS[backbone])
    trial.suggest_float("learning_rate", 1e-4, 0.1, log=True)
    trial.suggest_float("momentum", 0.0, 0.99)


def search(folder: Path, storage: str, seed: int) -> None:
    """Run the driver, which will be killed: it restores the search, or begins one."""
    import ray
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ledger = folder / "ledger.jsonl"

    class EndedTrials(tune.Callback):
        """Logs which trials Tune considers finished."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            note(ledger, event="end", trial=trial.trial_id)

    ray.init(
        "local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 1024**2,
        _temp_dir=os.environ[TEMP],
    )
    trainable = tune.with_resources(tune.with_parameters(train, ledger=ledger), {"cpu": 1})
    experiment = folder / "tune"
    if tune.Tuner.can_restore(experiment):
        tuner = tune.Tuner.restore(str(experiment), trainable=trainable, resume_errored=True)
    else:
        note(ledger, event="begin")
        journal = (
            None if storage == "memory" else JournalStorage(JournalFileBackend(str(folder / "study.journal")))
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(
                    space=define, metric="f1", mode="max", storage=journal, study_name="study", seed=seed
                ),
                scheduler=ASHAScheduler(
                    "epoch", metric="f1", mode="max", max_t=EPOCHS, grace_period=GRACE_EPOCHS
                ),
                num_samples=TRIALS,
                max_concurrent_trials=WORKERS,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                verbose=0,
                callbacks=[EndedTrials()],
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=1 if storage == "journal_often" else None
                ),
            ),
        )
    results = tuner.fit()
    ended = [str(result.path).rsplit("/", 1)[-1] for result in results]  # type: ignore[attr-defined]  # by number
    note(ledger, event="done", trials=ended)


def note(ledger: Path, **what: Any) -> None:
    """Append a line to the search's ledger, which is independent of Tune and Optuna."""
    line = json.dumps(what | {"time": time.time()}) + "\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


# The measurement


@dataclass(kw_only=True)
class Search:
    """The results of one search."""

    storage: str
    seed: int
    kills: int = 0
    restores: int = 0
    """Number of starts after a kill."""
    restores_failed: int = 0
    after_an_end: int = 0
    """Number of restores for which a trial had finished since Tune's last snapshot."""
    after_an_end_failed: int = 0
    errors: list[str] = field(default_factory=list)
    went_on_seconds: list[float] = field(default_factory=list)
    """Seconds from a kill to the next epoch."""
    finished: bool = False
    """Whether the search was completed."""
    trials_ended: int = 0
    ended_run_again: int = 0
    """Number of trials that computed epochs after they had finished."""
    epochs: int = 0
    epochs_repeated: int = 0
    trials_forgotten: int = 0
    """Number of trials that computed epochs, but that Tune does not list at the end."""
    epochs_forgotten: int = 0
    study_trials: int | None = None
    zombies: int | None = None
    """Number of trials that are RUNNING in the study at the end."""
    study_pruned: int | None = None
    stopped_early: int = 0
    """Number of trials that finished before their last epoch."""
    seconds: float = 0.0


class Driver:
    """A search's driver process, in its own session and with its own Ray."""

    def __init__(self, folder: Path, storage: str, seed: int) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
        self._log = (folder / f"driver-{uuid.uuid4().hex[:6]}.log").open("w+")
        command = [
            sys.executable,
            __file__,
            "--search",
            str(folder),
            "--storage",
            storage,
            "--seed",
            str(seed),
        ]
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
        self._process = subprocess.Popen(
            command,
            env=os.environ | quiet | {TEMP: str(self.temp)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def clear(self) -> None:
        """Wait until its raylet and workers have exited by themselves, and kill all remaining processes."""
        if not self.ended:
            self.kill()
        until = time.monotonic() + RAY_GONE_SECONDS
        while time.monotonic() < until and any(runs_trials(process) for process in self._left()):
            time.sleep(0.1)
        for process in self._left():
            process.kill()
        self._log.close()
        shutil.rmtree(self.temp, ignore_errors=True)

    def error(self) -> str | None:
        """The last line of its output if it failed."""
        if self._process.poll() in (0, -signal.SIGKILL, None):
            return None
        lines = [line for line in Path(self._log.name).read_text().splitlines() if line.strip()]
        named = [line for line in lines if "Error" in line and not line.startswith((" ", "\t"))]
        return (named or lines or ["no output"])[-1][:300]

    def _left(self) -> list[psutil.Process]:
        """Its session's live processes."""
        return [process for process in psutil.process_iter() if in_session(process, self._process.pid)]


def in_session(process: psutil.Process, session: int) -> bool:
    """Whether a process is alive and belongs to a session."""
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


def runs_trials(process: psutil.Process) -> bool:
    """Whether a process is a raylet or a trial's worker, not one of Ray's agents."""
    try:
        return process.name() == "raylet" or "ImplicitFunc" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def main() -> None:
    """Run the measurement, or the measured driver."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--storage", choices=STORAGES, default="journal")
    parser.add_argument("--kills", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="only print the results file")
    arguments = parser.parse_args()
    if arguments.search:
        search(arguments.search, arguments.storage, arguments.seed)
        return
    if not arguments.table:
        measure(arguments.storage, arguments.kills, arguments.seed)
    print(table(json.loads(RESULTS.read_text())))


def measure(storage: str, kills: int, seed: int) -> None:
    """Run searches until `kills` drivers were killed; a search that fails to restore twice is abandoned."""
    chance, spent = random.Random(seed), 0
    while spent < kills:
        folder = Path(tempfile.mkdtemp(prefix="gsc", dir="/tmp"))
        outcome = one_search(folder, storage, seed * 100 + spent, kills - spent, chance)
        spent += max(1, outcome.kills)
        print(json.dumps(asdict(outcome)), flush=True)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*kept, asdict(outcome)], indent=1) + "\n")
        shutil.rmtree(folder)


def one_search(folder: Path, storage: str, seed: int, kills: int, chance: random.Random) -> Search:
    """Run one search with at most `kills` kills, to its end or until it cannot be restored."""
    outcome = Search(storage=storage, seed=seed)
    began = time.monotonic()
    killed_at: float | None = None
    ended_since_snapshot, in_a_row = False, 0
    while not outcome.finished and in_a_row < 2:
        driver = Driver(folder, storage, seed)
        resumed = wait_for(driver, folder, lines=len(ledger(folder)))
        if killed_at is not None:
            outcome.restores += 1
            outcome.after_an_end += ended_since_snapshot
            if resumed and not in_a_row:
                outcome.went_on_seconds.append(resumed - killed_at)
        until = time.monotonic() + chance.uniform(*KILL_AFTER_SECONDS)
        last = outcome.kills >= kills
        while not driver.ended and (last or time.monotonic() < until):
            time.sleep(0.05)
        failed = driver.ended and not any(line["event"] == "done" for line in ledger(folder))
        if failed and killed_at is not None:
            in_a_row += 1
            outcome.restores_failed += 1
            outcome.after_an_end_failed += ended_since_snapshot
            outcome.errors.append(driver.error() or "hangs")
        elif not driver.ended:
            in_a_row = 0
            killed_at = time.time()
            driver.kill()
            outcome.kills += 1
            ended_since_snapshot = ended_after(folder, snapshot_time(folder))
        else:
            outcome.finished = not failed
            in_a_row = 2
        driver.clear()
    outcome.seconds = time.monotonic() - began
    count(outcome, folder)
    return outcome


def wait_for(driver: Driver, folder: Path, *, lines: int) -> float | None:
    """The time of the first epoch after `lines` lines of the ledger; None if the driver ends without one."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not driver.ended and time.monotonic() < until:
        for line in ledger(folder)[lines:]:
            if line["event"] == "epoch":
                return float(line["time"])
        time.sleep(0.05)
    if not driver.ended:
        driver.kill()
    return None


def ledger(folder: Path) -> list[dict[str, Any]]:
    """The lines of the search's ledger, in order."""
    file = folder / "ledger.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def snapshot_time(folder: Path) -> float:
    """The time of Tune's last snapshot; 0 if there is none."""
    times = [file.stat().st_mtime for file in (folder / "tune").glob("experiment_state-*.json")]
    return max(times, default=0.0)


def ended_after(folder: Path, moment: float) -> bool:
    """Whether a trial finished after this moment."""
    return any(line["event"] == "end" and line["time"] > moment for line in ledger(folder))


def count(outcome: Search, folder: Path) -> None:
    """Fill in the results from the ledger and the study."""
    lines = ledger(folder)
    epochs = [(line["trial"], line["epoch"]) for line in lines if line["event"] == "epoch"]
    ends: dict[str, float] = {}
    for line in lines:
        if line["event"] == "end":
            ends.setdefault(line["trial"], line["time"])
    again = {
        line["trial"]
        for line in lines
        if line["event"] == "epoch" and line["time"] > ends.get(line["trial"], math.inf)
    }
    known = next((line["trials"] for line in lines if line["event"] == "done"), None)
    outcome.trials_ended = len(ends)
    outcome.ended_run_again = len(again)
    outcome.epochs = len(epochs)
    outcome.epochs_repeated = sum(times - 1 for times in Counter(epochs).values())
    deepest = {trial: max(e for t, e in epochs if t == trial) for trial, _ in epochs}
    outcome.stopped_early = sum(deepest.get(trial, 0) < EPOCHS for trial in ends)
    if known is not None:
        forgotten = {trial for trial, _ in epochs if not any(trial in name for name in known)}
        outcome.trials_forgotten = len(forgotten)
        outcome.epochs_forgotten = sum(trial in forgotten for trial, _ in set(epochs))
    journal = folder / "study.journal"
    if journal.exists():
        states = study_states(journal)
        outcome.study_trials = states.total()
        outcome.zombies = states["RUNNING"] + states["WAITING"]
        outcome.study_pruned = states["PRUNED"]


def study_states(journal: Path) -> Counter[str]:
    """Number of the study's trials in each state."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="study", storage=storage)
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def table(searches: list[dict[str, Any]]) -> str:
    """Markdown: a row per kind of storage."""
    columns: dict[str, Callable[[list[dict[str, Any]]], object]] = {
        "searches": len,
        "completed": lambda rows: total(rows, "finished"),
        "kills": lambda rows: total(rows, "kills"),
        "failed restores (each tried twice)": lambda rows: (
            f"{total(rows, 'restores_failed')} of {total(rows, 'restores')}"
        ),
        "of those after a trial finished": lambda rows: (
            f"{total(rows, 'after_an_end_failed')} of {total(rows, 'after_an_end')}"
        ),
        "finished trials run again": lambda rows: (
            f"{total(rows, 'ended_run_again')} of {total(rows, 'trials_ended')}"
        ),
        "epochs repeated": lambda rows: f"{total(rows, 'epochs_repeated')} of {total(rows, 'epochs')}",
        "trials forgotten": lambda rows: total(rows, "trials_forgotten"),
        "stopped early, PRUNED in the study": lambda rows: (
            f"{total(rows, 'study_pruned')} of {total(rows, 'stopped_early')}"
        ),
        "left RUNNING in the study": lambda rows: total(rows, "zombies"),
        "trials in the study": lambda rows: total(rows, "study_trials"),
    }
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for storage, title in STORAGES.items():
        if rows := [row for row in searches if row["storage"] == storage]:
            lines.append(f"| {title} | " + " | ".join(str(f(rows)) for f in columns.values()) + " |")
    errors = Counter(re.sub(r"#\d+", "#N", error)[:120] for row in searches for error in row["errors"])
    return "\n".join([*lines, "", *(f"{times} x {error}" for error, times in errors.most_common())])


def total(rows: list[dict[str, Any]], column: str) -> int:
    """The sum of the known values."""
    return sum(row[column] or 0 for row in rows)


if __name__ == "__main__":
    main()
