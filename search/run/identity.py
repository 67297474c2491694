"""Which run a folder is: an id in its config.yaml that survives renaming and moving, and that a copy does not share."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genre_core.system.atomic import atomic_file

RUN_ID, FOLDER = "run_id", "folder"
"""Keys of `provenance` in config.yaml: the id, and the absolute path at which the run was last driven."""
EXTENDED = "extended_after_finish"
"""Key of `provenance` in config.yaml: when the search was extended though its test part had been read, and how many
trials had ended by then; one entry for each time."""

Provenance = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A run's id and place."""

    run_id: str
    folder: Path
    """Absolute, links resolved."""
    copy_of: Path | None = None
    """The run that this folder is a copy of, where it has just been found to be one."""

    @property
    def provenance(self) -> dict[str, str]:
        """What config.yaml keeps of it."""
        return {RUN_ID: self.run_id, FOLDER: str(self.folder)}


def new_identity(folder: Path) -> Identity:
    """That of a run that begins in this folder."""
    return Identity(run_id=uuid.uuid4().hex, folder=folder.resolve())


def identify(folder: Path) -> Identity:
    """That of an existing run, recorded in its config.yaml when this returns. For its driver only.

    A folder that was renamed, moved, mounted elsewhere or reached through a link keeps its id. A copy whose original
    is still at its place gets one of its own, since from now on the two are different runs. So does a run of a version
    that had no ids.
    """
    provenance = read_provenance(folder)
    identity = _identified(folder, provenance)
    if any(provenance.get(key) != value for key, value in identity.provenance.items()):
        record(folder, identity.provenance)
    return identity


def read_provenance(folder: Path) -> dict[str, Any]:
    """What config.yaml says of where the run comes from; empty where it says nothing."""
    return dict(_settings(folder).get("provenance") or {})


def record(folder: Path, facts: Provenance) -> None:
    """Set these keys of a run's provenance; everything else in its config.yaml stays as it is."""
    settings = _settings(folder)
    _write(folder, settings | {"provenance": {**(settings.get("provenance") or {}), **facts}})


def set_data(folder: Path, data: str) -> None:
    """Set where a run's music is; everything else in its config.yaml stays as it is."""
    _write(folder, _settings(folder) | {"data": data})


def _write(folder: Path, settings: Mapping[str, Any]) -> None:
    with atomic_file(folder / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")


def _identified(folder: Path, provenance: Provenance) -> Identity:
    here = folder.resolve()
    run_id, last = provenance.get(RUN_ID), Path(str(provenance.get(FOLDER)))
    if not run_id:
        return new_identity(folder)
    if _holds(last, run_id) and not last.samefile(here):
        return Identity(run_id=uuid.uuid4().hex, folder=here, copy_of=last)
    return Identity(run_id=run_id, folder=here)


def _holds(place: Path, run_id: str) -> bool:
    """Whether the run of this id is at a place."""
    return (place / "config.yaml").is_file() and read_provenance(place).get(RUN_ID) == run_id


def _settings(folder: Path) -> dict[str, Any]:
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}
