"""A search of seconds that is started, killed and gone on with: its commands, and what its folder says meanwhile."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Driver
from tiny import TINY

SETTINGS: dict[str, Any] = TINY | {
    "pruner": {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0},
    "keep_models": 2,
}
"""Some trials are pruned."""
POLL_SECONDS = 0.02


@dataclass(kw_only=True)
class Search:
    """One search in a folder of its own."""

    folder: Path
    """Where its run and its logs go."""
    music: Path
    cache: Path
    trials: int
    workers: int = 2
    address: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Changes to SETTINGS."""
    drivers: list[Driver] = field(default_factory=list)
    """All that were started, the last one last."""
    name: str = "chaos"
    """Of the run's folder."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    def rename(self) -> None:
        """Give the run's folder another name, if it is there; no driver may be at work."""
        before, self.name = self.run, f"renamed {len(self.drivers)}"
        if before.exists():
            before.rename(self.run)

    @property
    def keep_models(self) -> int:
        """How many models it keeps."""
        return int((SETTINGS | self.settings)["keep_models"])

    def start(self) -> Driver:
        """Begin the search, or go on with it if there is anything to go on with."""
        if (self.run / "config.yaml").exists():
            return self.drive("resume", self.run)
        settings = SETTINGS | self.settings
        pairs = (part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}"))
        place = ("--address", self.address, "--trials-per-gpu", 0) if self.address else ()
        return self.drive(
            *("run", "--data", self.music, "--runs", self.folder, "--name", self.run.name),
            *("--trials", self.trials, "--workers", self.workers, *place, *pairs),
        )

    def drive(self, *arguments: object) -> Driver:
        """Start the command with these arguments."""
        driver = Driver(*arguments, cache=self.cache, log=self.folder / "driver.log")
        self.drivers.append(driver)
        return driver

    def end(self) -> None:
        """Leave no process behind."""
        for driver in self.drivers:
            driver.end()


class Watch(threading.Thread):
    """Notes when epochs are written, for as long as it is not stopped."""

    def __init__(self, search: Search) -> None:
        """Args: whose run is watched, which need not be there yet and may be renamed."""
        super().__init__(daemon=True)
        self._search = search
        self._enough = threading.Event()
        self._written: dict[str, float] = {}
        self._moments: list[float] = []

    def run(self) -> None:
        """Look at each trial's file of epochs, which is replaced with every epoch."""
        while not self._enough.wait(POLL_SECONDS):
            for file in (self._search.run / "results" / "epochs").glob("trial-*.parquet"):
                self._look(file)

    def first_after(self, moment: float) -> float | None:
        """When the first epoch after this moment was written, both in seconds since 1970."""
        return min((written for written in self._moments if written > moment), default=None)

    @property
    def last(self) -> float:
        """When the last epoch so far was written; 0 before the first."""
        return max(self._moments, default=0.0)

    def stop(self) -> None:
        """Return when it has looked for the last time."""
        self._enough.set()
        self.join()

    def _look(self, file: Path) -> None:
        try:
            written = file.stat().st_mtime
        except FileNotFoundError:
            return
        if self._written.get(file.name) != written:
            self._written[file.name] = written
            self._moments.append(written)
