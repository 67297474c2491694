"""Measured costs of earlier searches, in a file of the cache folder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genre_core.system.atomic import atomic_file, make_folder
from search.engine.costs import CellCost

FILE = "costs.json"
"""Name in the cache folder."""
VERSION = 1
"""Version of the file format; a file of another version counts as empty."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What costs depend on, except the network, and the number of segments, to which they are proportional."""

    place: str
    """The name of the machine, or the address of the cluster."""
    mels: int
    frames: int
    batch_size: int
    threads: int
    """Threads of each trial on a CPU."""
    precision: str
    sharing: bool
    """Whether activations of frozen blocks can be stored."""


def read(cache: Path, conditions: Conditions, *, segments: int) -> dict[str, list[CellCost]]:
    """Device -> costs under these conditions, scaled to a number of segments; empty if there are none."""
    found: dict[str, list[CellCost]] = {}
    for entry in _entries(cache):
        if entry["conditions"] == asdict(conditions):
            cost = CellCost(**entry["cost"]).scaled(segments / entry["segments"])
            found.setdefault(entry["device"], []).append(cost)
    return found


def update(
    cache: Path, conditions: Conditions, measured: Mapping[str, Iterable[CellCost]], *, segments: int
) -> None:
    """Add costs to the file, in place of earlier ones of the same kind of trial.

    The file is replaced atomically. If two searches end at the same time, the costs of one may be lost.

    Raises:
        OSError: the file cannot be written.
    """
    new = [
        {"device": device, "conditions": asdict(conditions), "segments": segments, "cost": asdict(cost)}
        for device, costs in measured.items()
        for cost in costs
    ]
    if not new:
        return
    kept = {_key(entry): entry for entry in [*_entries(cache), *new]}
    make_folder(cache)
    with atomic_file(cache / FILE, durable=False) as partial:
        partial.write_text(
            json.dumps({"version": VERSION, "costs": list(kept.values())}, indent=1), encoding="utf-8"
        )


def _entries(cache: Path) -> list[dict[str, Any]]:
    """All entries; none if the file is missing, damaged or of another version, as it can be measured again."""
    try:
        content = json.loads((cache / FILE).read_text(encoding="utf-8"))
        entries: list[dict[str, Any]] = content["costs"] if content["version"] == VERSION else []
        for entry in entries:
            _key(entry), CellCost(**entry["cost"]), entry["segments"] / 1
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return entries


def _key(entry: Mapping[str, Any]) -> str:
    """The key of an entry: a newer measurement replaces an entry with the same key."""
    cost = entry["cost"]
    return json.dumps([entry["device"], entry["conditions"], cost["backbone"], cost["frozen_blocks"]])
