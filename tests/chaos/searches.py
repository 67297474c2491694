"""A search of a few seconds that can be started, killed and resumed, and a watch on its folder."""

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
    """A search in a folder of its own."""

    folder: Path
    """Parent of the run's folder and of the log."""
    music: Path
    cache: Path
    trials: int
    workers: int = 2
    address: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Changes to SETTINGS."""
    drivers: list[Driver] = field(default_factory=list)
    """All drivers in the order in which they were started."""
    name: str = "chaos"
    """Name of the run's folder."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    def rename(self) -> None:
        """Rename the run's folder if it exists; no driver may be running."""
        before, self.name = self.run, f"renamed {len(self.drivers)}"
        if before.exists():
            before.rename(self.run)

    @property
    def keep_models(self) -> int:
        """Number of models that the search keeps."""
        return int((SETTINGS | self.settings)["keep_models"])

    def start(self) -> Driver:
        """Start the search, or resume it if its folder exists."""
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
        """Run `genre-search` with these arguments."""
        driver = Driver(*arguments, cache=self.cache, log=self.folder / "driver.log")
        self.drivers.append(driver)
        return driver

    def end(self) -> None:
        """End all processes."""
        for driver in self.drivers:
            driver.end()


class Watch(threading.Thread):
    """Records when epochs are written until it is stopped."""

    def __init__(self, search: Search) -> None:
        """Args: the search, whose run need not exist yet and may be renamed."""
        super().__init__(daemon=True)
        self._search = search
        self._enough = threading.Event()
        self._written: dict[str, float] = {}
        self._moments: list[float] = []

    def run(self) -> None:
        """Poll each trial's file of epochs, which is replaced with every epoch."""
        while not self._enough.wait(POLL_SECONDS):
            for file in (self._search.run / "results" / "epochs").glob("trial-*.parquet"):
                self._look(file)

    def first_after(self, moment: float) -> float | None:
        """Time of the first epoch after a moment, both in seconds since 1970."""
        return min((written for written in self._moments if written > moment), default=None)

    @property
    def last(self) -> float:
        """Time of the latest epoch; 0 before the first."""
        return max(self._moments, default=0.0)

    def stop(self) -> None:
        """Stop polling."""
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
