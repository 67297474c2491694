"""A run's identity: an id in its config.yaml that survives renaming and moving and that a copy does not share."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genre_core.system.atomic import atomic_file
from search.run.folder import RunFolder

RUN_ID, FOLDER = "run_id", "folder"
"""Keys of `provenance` in config.yaml: the run's id, and the absolute path where it was last driven."""
EXTENDED = "extended_after_finish"
"""Key of `provenance` in config.yaml: one entry per extension of the search after its test set was used, with the time
and the number of trials that had ended by then."""

Provenance = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Id and location of a run."""

    run_id: str
    folder: Path
    """Absolute path with links resolved."""
    copy_of: Path | None = None
    """The original, if this folder was just found to be a copy of it."""

    @property
    def provenance(self) -> dict[str, str]:
        """The keys that are stored in config.yaml."""
        return {RUN_ID: self.run_id, FOLDER: str(self.folder)}


def new_identity(folder: Path) -> Identity:
    """Identity of a new run in this folder."""
    return Identity(run_id=uuid.uuid4().hex, folder=folder.resolve())


def identify(folder: Path) -> Identity:
    """Identity of an existing run, which is also recorded in its config.yaml. Only its driver may call this.

    A folder that was renamed, moved, mounted elsewhere or reached through a link keeps its id. A copy whose original
    still exists gets an id of its own, because the two are different runs from now on. So does a run created by a
    version without ids.
    """
    provenance = read_provenance(folder)
    identity = _identified(folder, provenance)
    if any(provenance.get(key) != value for key, value in identity.provenance.items()):
        record(folder, identity.provenance)
    return identity


def read_provenance(folder: Path) -> dict[str, Any]:
    """The `provenance` in a run's config.yaml; empty if it has none."""
    return dict(_settings(folder).get("provenance") or {})


def record(folder: Path, facts: Provenance) -> None:
    """Set these keys of a run's provenance; the rest of its config.yaml is unchanged."""
    settings = _settings(folder)
    _write(folder, settings | {"provenance": {**(settings.get("provenance") or {}), **facts}})


def set_data(folder: Path, data: str) -> None:
    """Set the location of a run's music; the rest of its config.yaml is unchanged."""
    _write(folder, _settings(folder) | {"data": data})


def _write(folder: Path, settings: Mapping[str, Any]) -> None:
    with atomic_file(RunFolder(folder).config) as partial:
        partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")


def _identified(folder: Path, provenance: Provenance) -> Identity:
    here = folder.resolve()
    run_id, last = provenance.get(RUN_ID), Path(str(provenance.get(FOLDER)))
    if not run_id:
        return new_identity(folder)
    if _holds(last, run_id) and not last.samefile(here):
        return Identity(run_id=uuid.uuid4().hex, folder=here, copy_of=last)
    return Identity(run_id=run_id, folder=here)


def _holds(folder: Path, run_id: str) -> bool:
    """Whether the run with this id is in a folder."""
    return RunFolder(folder).config.is_file() and read_provenance(folder).get(RUN_ID) == run_id


def _settings(folder: Path) -> dict[str, Any]:
    settings = yaml.safe_load(RunFolder(folder).config.read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}
