"""An existing run before it is resumed: its identity, its study, and whether it may have more trials."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from genre_core.errors import InputError
from search.config.schema import SearchConfig
from search.recovery.rebuild import rebuild
from search.run.folder import RunFolder
from search.run.identity import EXTENDED, identify
from search.run.tables import when_test_was_read
from search.study.journal import own_study, repair_journal, unshare_journal


def identified(config: SearchConfig, folder: Path, say: Callable[[str], None]) -> SearchConfig:
    """The configuration with the run's identity, which its config.yaml has too when this returns."""
    identity = identify(folder)
    if identity.copy_of:
        say(f"{folder} is a copy of {identity.copy_of}: from now on they are two runs")
    return config.model_copy(update={"provenance": (config.provenance or {}) | identity.provenance})


def after_finish(config: SearchConfig, folder: Path, *, trials: int, allowed: bool) -> SearchConfig:
    """The configuration, which records that trials follow a look at the test part where they do."""
    if (at := when_test_was_read(folder)) is None:
        return config
    if not allowed:
        raise InputError(
            f"a search must not be extended after its test part was read, but that of {folder} was read on "
            f"{at:%Y-%m-%d %H:%M} UTC; start a new search with --warm-start {shlex.quote(str(folder))}, "
            "or give --after-finish, which the results will say"
        )
    provenance = config.provenance or {}
    extension = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "trials": trials}
    extensions = [*provenance.get(EXTENDED, []), extension]
    return config.model_copy(update={"provenance": provenance | {EXTENDED: extensions}})


def restored_study(config: SearchConfig, folder: Path, say: Callable[[str], None]) -> str:
    """The name of a run's study; its journal is the run's alone and whole, and rebuilt where it was lost."""
    journal = RunFolder(folder).journal
    unshare_journal(journal)
    repair_journal(journal)
    own, others = own_study(folder) if journal.exists() else (None, [])
    if others:
        names = ", ".join(map(repr, others))
        say(f"{journal} holds other studies too, which are not used and stay as they are: {names}")
    name = own or folder.resolve().name
    if own is None and (trials := rebuild(folder, config, name=name)):
        say(f"{journal} was lost: rebuilt from the results tables, with {trials} trials")
    return name
