"""Steps before an existing run is resumed: its identity, its study, and whether it may be extended."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from genre_core.errors import InputError
from search.config.schema import SearchConfig
from search.errors import SearchErrorCode
from search.recovery.rebuild import rebuild
from search.run.folder import RunFolder
from search.run.identity import EXTENDED, identify
from search.run.tables import test_used_at
from search.study.journal import own_study, repair_journal, unshare_journal


def with_identity(config: SearchConfig, folder: Path, say: Callable[[str], None]) -> SearchConfig:
    """Add the run's identity to the configuration, and to config.yaml if it is new or has changed."""
    identity = identify(folder)
    if identity.copy_of:
        say(f"{folder} is a copy of {identity.copy_of}: from now on they are two separate runs")
    return config.model_copy(update={"provenance": (config.provenance or {}) | identity.provenance})


def record_extension(config: SearchConfig, folder: Path, *, trials: int, allowed: bool) -> SearchConfig:
    """Add to the provenance that the search is extended although its test set has been used, if it has.

    Args:
        config: the configuration of the run.
        folder: the folder of the run.
        trials: number of trials that have ended.
        allowed: whether the user allows it (--after-finish).

    Raises:
        InputError: the test set has been used, and the user does not allow an extension.
    """
    if (at := test_used_at(folder)) is None:
        return config
    if not allowed:
        raise InputError(
            f"a search must not be extended after its test set was used, but that of {folder} was used on "
            f"{at:%Y-%m-%d %H:%M} UTC; start a new search with --warm-start {shlex.quote(str(folder))}, "
            "or give --after-finish, which is recorded and shown with the results",
            code=SearchErrorCode.TEST_SET_USED,
        )
    provenance = config.provenance or {}
    extension = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "trials": trials}
    extensions = [*provenance.get(EXTENDED, []), extension]
    return config.model_copy(update={"provenance": provenance | {EXTENDED: extensions}})


def restore_study(config: SearchConfig, folder: Path, say: Callable[[str], None]) -> str:
    """Repair the journal of a run, or rebuild it if it is lost; returns the name of the run's study."""
    journal = RunFolder(folder).journal
    unshare_journal(journal)
    repair_journal(journal)
    own, others = own_study(folder) if journal.exists() else (None, [])
    if others:
        names = ", ".join(map(repr, others))
        say(f"{journal} also holds other studies, which are not used and not changed: {names}")
    name = own or folder.resolve().name
    if own is None and (trials := rebuild(folder, config, name=name)):
        say(f"{journal} was lost: rebuilt from the results tables, with {trials} trials")
    return name
