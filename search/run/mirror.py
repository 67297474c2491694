"""A copy of a run's folder in remote storage, from which the search can be resumed if the head's disk is lost."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

import yaml

from genre_core.errors import InputError
from genre_core.system.addresses import masked
from genre_core.system.atomic import atomic_folder
from genre_core.system.storage import STORAGE_ERRORS, reason
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import CONFIG, JOURNAL, RunFolder
from search.run.identity import RUN_ID
from search.run.remote_folder import RemoteFolder, ask, is_kept

INTERVAL_SECONDS = 30.0
"""Time between two syncs: about this much work is lost if the head dies."""
GIVE_UP_FILES = 3
"""After this many failed files in one sync, the storage counts as unavailable: the rest waits for the next sync."""
NAMED_FILES = 3
"""Maximum number of missing files that the last message names."""

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns: changed if the file has."""


class Mirror:
    """Keep a copy of a run's folder at ADDRESS/NAME while the context lasts, with a last sync at its end.

    The folder is the source of truth: new and changed files are uploaded, deleted ones are deleted from the copy, and
    the search can be resumed from the copy at any moment. The tables hold an epoch before the journal mentions it, so a
    sync first reads the journal, then uploads all other files, and then uploads the journal as it was read. The copy's
    journal thus mentions nothing that the copy lacks, and resuming expects files that are newer than the journal.
    Files that are deleted at the end of a sync were gone before the journal was read, so no running trial needs them.
    """

    def __init__(
        self,
        run: Path,
        address: str,
        *,
        say: Callable[[str], None],
        resumed: bool,
        run_id: str | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """Check the address by writing to it.

        Args:
            run: the run's folder, which need not exist yet.
            address: where the copy's folder is kept.
            say: called with a line when the storage fails, when it works again, and when the last sync fails.
            resumed: whether a copy that exists already may be this run's.
            run_id: id of this run; a copy with another id is not overwritten.
            interval_seconds: time between two syncs.

        Raises:
            InputError: the address is invalid, unreachable or not writable, or holds another run of this name.
        """
        self._run = run
        self._say = say
        self._interval_seconds = interval_seconds
        self._shown = masked(address)
        self._copied: dict[str, Stamp] = {}
        self._failing = False
        self._remote, existing = ask(address, lambda: _opened(address, run.name, writable=True))
        if not resumed:
            _require_new(existing, address, run.name)
        elif CONFIG in existing and self._remote_run_id() not in (None, run_id):
            raise InputError(
                f"--storage must hold no other run of this name, but {self._shown} holds another {run.name}; "
                "rename this run's folder, or use another address",
                code=SearchErrorCode.STORAGE_HOLDS_ANOTHER_RUN,
            )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sync_until_stopped, name="storage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _remote_run_id(self) -> object:
        """Id of the run that the copy belongs to; None for a copy by a version without ids."""
        settings = yaml.safe_load(ask(self._shown, lambda: self._remote.read(CONFIG)))
        return ((settings or {}).get("provenance") or {}).get(RUN_ID)

    def _sync_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._sync_and_report()
            self._stop.wait(self._interval_seconds)
        self._sync_and_report(last=True)

    def _sync_and_report(self, *, last: bool = False) -> None:
        """Sync once; any error is reported once and retried by the next sync, because the search must not fail."""
        try:
            self._sync()
        except Exception as error:  # noqa: BLE001  # reported, with its type
            if last:
                self._say(self._incomplete(error))
            elif not self._failing:
                self._say(f"--storage {self._shown} failed and is retried: {reason(error)}")
            self._failing = True
            return
        if self._failing:
            self._say(f"--storage {self._shown} works again; the copy of {self._run.name} is complete")
        self._failing = False

    def _incomplete(self, error: Exception) -> str:
        """The message for a copy that stays incomplete: how many files it lacks, some names, and what to do."""
        try:
            missing = self._uncopied()
        except OSError:  # which is the error that is reported
            missing = []
        more = f" and {len(missing) - NAMED_FILES} more" if len(missing) > NAMED_FILES else ""
        files = f" ({len(missing)} files: {', '.join(missing[:NAMED_FILES])}{more})" if missing else ""
        return (
            f"--storage {self._shown} lacks the latest changes to {self._run.name}{files}: {reason(error)}; "
            f"once it works again, copy them with: {command('resume', self._run)}"
        )

    def _uncopied(self) -> list[str]:
        """Names of the files whose current version was not uploaded."""
        stamps = {name: _stamp((self._run / name).stat()) for name in _file_names(self._run)}
        if JOURNAL in stamps:
            stamps[JOURNAL] = _journal_stamp(_complete_lines(RunFolder(self._run).journal))
        return sorted(name for name, stamp in stamps.items() if self._copied.get(name) != stamp)

    def _sync(self) -> None:
        before = _file_names(self._run)
        journal = _complete_lines(RunFolder(self._run).journal)
        local = _file_names(self._run) - {JOURNAL}
        if CONFIG not in local:  # not started yet, or the folder was removed: no reason to empty the copy
            return
        remote = self._remote.files()
        vanished = self._upload_changed(local, remote)
        if journal:
            self._upload_if_changed(JOURNAL, io.BytesIO(journal), _journal_stamp(journal), remote)
        self._delete(remote - before - local - {JOURNAL}, kept=remote | local, vanished=vanished)

    def _upload_changed(self, local: set[str], remote: set[str]) -> set[str]:
        """Upload new and changed files; return the names of those that were deleted meanwhile.

        After a file that fails the others are still uploaded, except model cards, which promise that weights exist.

        Raises:
            _NotCopied: a file failed, so the journal must not be uploaded.
        """
        vanished, failed = set(), list[_NotCopied]()
        for name in sorted(local, key=_cards_last):
            if failed and (name.endswith(".json") or len(failed) == GIVE_UP_FILES):
                break
            try:
                if not self._upload_file(name, remote):
                    vanished.add(name)
            except Exception as error:  # noqa: BLE001  # raised below
                failed.append(_NotCopied(f"{name}: {reason(error)}"))
        if failed:
            raise failed[0]
        return vanished

    def _upload_file(self, name: str, remote: set[str]) -> bool:
        """Upload a file if it is new or changed; False if it was deleted meanwhile."""
        try:
            file = (self._run / name).open("rb")
        except FileNotFoundError:
            return False
        with file:
            self._upload_if_changed(name, file, _stamp(os.fstat(file.fileno())), remote)
        return True

    def _upload_if_changed(self, name: str, source: BinaryIO, stamp: Stamp, remote: set[str]) -> None:
        if name not in remote or self._copied.get(name) != stamp:
            self._remote.upload(name, source)
            self._copied[name] = stamp

    def _delete(self, stale: set[str], *, kept: set[str], vanished: set[str]) -> None:
        """Delete files, and the folders that this empties.

        If a trial's checkpoint was replaced before it could be uploaded, the copy keeps the previous one.
        """
        spared = {_trial(name) for name in vanished}
        deleted = {name for name in stale if _trial(name) not in spared}
        for name in sorted(deleted, key=_cards_last, reverse=True):
            self._remote.delete(name)
        for folder in sorted(_folders(deleted) - _folders(kept - deleted), reverse=True):
            self._remote.delete_subfolder(folder)


class _NotCopied(OSError):
    """A file could not be uploaded; the message is its name and why."""


def require_usable(address: str, name: str, *, resumed: bool) -> None:
    """Check before a search starts that its copy can be kept at an address; nothing of the check remains there.

    Args:
        address: see Mirror.
        name: of the run.
        resumed: whether a copy that exists already may be this run's.

    Raises:
        InputError: see Mirror.
    """
    _, existing = ask(address, lambda: _opened(address, name, writable=True))
    if not resumed:
        _require_new(existing, address, name)


def _require_new(existing: set[str], address: str, name: str) -> None:
    if CONFIG in existing:
        raise InputError(
            f"--name must be new, but --storage {masked(address)} already holds a search {name}; "
            "choose another name, or resume that search: genre-search resume RUN --storage ADDRESS",
            code=SearchErrorCode.STORAGE_HOLDS_ANOTHER_RUN,
        )


def fetch(address: str, name: str, folder: Path) -> None:
    """Restore the copy of a search into a new run folder.

    Args:
        address: see Mirror.
        name: of the run.
        folder: to create.

    Raises:
        InputError: the folder exists, the address cannot be read, or holds no such search.
    """
    if folder.exists():
        raise InputError(
            f"a run must be restored into a new folder, but {folder} exists; use another path",
            code=SearchErrorCode.RESTORE_TARGET_EXISTS,
        )
    remote, names = ask(address, lambda: _opened(address, name, writable=False))
    if CONFIG not in names:
        raise InputError(
            f"RUN must be a search in the storage, but {masked(address)} holds no {name}; "
            "check the address and the run's name",
            code=SearchErrorCode.STORAGE_WITHOUT_RUN,
        )
    try:
        with atomic_folder(folder) as partial:
            for file in names:
                remote.download(file, partial / file)
    except STORAGE_ERRORS as error:
        raise InputError(
            f"the download from --storage {masked(address)} failed, try again: {reason(error)}",
            code=SearchErrorCode.STORAGE_DOWNLOAD_FAILED,
        ) from error


def _opened(address: str, name: str, *, writable: bool) -> tuple[RemoteFolder, set[str]]:
    """The folder of a run's copy and the names of its files; checked by writing to it if it must be writable."""
    remote = RemoteFolder(address, name)
    if writable:
        remote.check()
    return remote, remote.files()


def _file_names(run: Path) -> set[str]:
    """Complete files of a run, by their paths in it."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # of a folder that was just deleted
            raise error

    found = (Path(at, file) for at, _, files in os.walk(run, onerror=failed) for file in files)
    return {name for path in found if is_kept(name := path.relative_to(run).as_posix())}


def _complete_lines(journal: Path) -> bytes:
    """The journal without a last line that is being written."""
    content = journal.read_bytes() if journal.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _journal_stamp(lines: bytes) -> Stamp:
    return len(lines), 0


def _folders(names: set[str]) -> set[str]:
    return {str(parent) for name in names for parent in PurePosixPath(name).parents}


def _cards_last(name: str) -> tuple[bool, str]:
    """Upload order: a model's card promises that its weights exist."""
    return name.endswith(".json"), name


def _trial(name: str) -> str:
    """The common prefix of a trial's models, or of its checkpoints."""
    return name.partition("-epoch-")[0]
