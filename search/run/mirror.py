"""A copy of a run's folder at any address that pyarrow takes, for the day when the head's disk is lost."""

import io
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, TypeVar

import pyarrow as pa
import pyarrow.fs
import yaml

from genre_core.errors import InputError
from genre_core.system.atomic import PARTIAL, atomic_folder
from search.run.commands import command
from search.run.identity import RUN_ID

INTERVAL_SECONDS = 30.0
"""About what a lost head costs."""
CHECK_SECONDS = 60.0
"""How long an address may take to prove itself; half of it passes where no key is given and nobody answers for one."""
S3_ATTEMPTS = 3
"""So a silent server is given up after 10 s; pyarrow by itself tries it for 100 s."""
GCS_RETRY_SECONDS = 10
"""How long a request to Google's storage is repeated; pyarrow by itself goes on for 15 minutes."""
CHUNK_BYTES = 1024**2
GIVE_UP_FILES = 3
"""So many that fail mean that the storage does, not the files: the rest wait for the next time."""
NAMED = 3
"""Files that are named of those that the copy lacks in the end."""

_CONFIG, _JOURNAL, _PROBE = "config.yaml", "study.journal", ".probe"
_OBJECT_STORES = ("s3", "gcs", "abfs")
"""There an object appears whole and needs no folder."""
_FAILURES = (OSError, ValueError, ImportError, pa.ArrowException)
"""What pyarrow raises, by file system, for an address, a server or a network that does not do."""
_T = TypeVar("_T")


class Mirror:
    """Keeps a copy of a run's folder as ADDRESS/NAME while the context lasts, and once more at its end.

    The folder is the truth: what is new or changed here is copied, what is gone here is deleted there, and a search
    can go on from the copy at any moment. For an epoch is in the tables before the journal speaks of it. So a sync
    first takes the journal as it stands, copies the other files, and then puts that journal there: it speaks of
    nothing that the copy lacks, and that files are newer than the journal is what a search that goes on expects.
    What is deleted at the end was gone before the journal was taken, so no trial that it calls running needs it.
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
        """Check the address at once, by writing to it.

        Args:
            run: the run's folder, which need not exist yet.
            address: where the copy's folder will stand.
            say: told when the storage fails, when it is back, and what the copy lacks in the end.
            resumed: whether a copy that is there already may be this run's.
            run_id: this run's; a copy that says it is another run's is not overwritten.
            interval_seconds: from one look at the folder to the next.

        Raises:
            InputError: the address is not understood, not reached, not writable, or holds another run of this name.
        """
        self._run = run
        self._say = say
        self._interval_seconds = interval_seconds
        self._shown = _masked(address)
        self._copied: dict[str, tuple[int, int]] = {}
        self._failing = False
        self._place, there = _ask(address, lambda: _checked(_Place(address, run.name)))
        if not resumed:
            _require_new(there, address, run.name)
        if resumed and _CONFIG in there and self._run_id_there() not in (None, run_id):
            raise InputError(
                f"--storage must hold no other run of this name, but {self._shown} holds another {run.name}; "
                "rename this run's folder, or give another address"
            )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="storage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run_id_there(self) -> object:
        """The id of the run whose copy is at the address; None of a version that had none."""
        settings = yaml.safe_load(_ask(self._shown, lambda: self._place.read(_CONFIG)))
        return ((settings or {}).get("provenance") or {}).get(RUN_ID)

    def _keep(self) -> None:
        while not self._ended.is_set():
            self._try()
            self._ended.wait(self._interval_seconds)
        self._try(last=True)

    def _try(self, *, last: bool = False) -> None:
        """Sync once; whatever fails, which may be anything, is reported once and tried again: the search goes on."""
        try:
            self._sync()
        except Exception as error:  # noqa: BLE001  # reported, with its kind
            if last:
                self._say(f"--storage {self._shown} {self._lacks()}: {_line(error)}; {self._way_out}")
            elif not self._failing:
                self._say(f"--storage {self._shown} fails and is tried again: {_line(error)}")
            self._failing = True
            return
        if self._failing:
            self._say(f"--storage {self._shown} is back, with all of {self._run.name}")
        self._failing = False

    def _lacks(self) -> str:
        """What the copy lacks, or has an earlier version of: how many files, and the first of them."""
        try:
            missing = self._uncopied()
        except OSError:  # which is what failed, and is reported
            missing = []
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        files = f", {len(missing)} files: {', '.join(missing[:NAMED])}{more}" if missing else ""
        return f"lacks the end of {self._run.name}{files}"

    def _uncopied(self) -> list[str]:
        """Names of the files that were not copied as they are now."""
        stamps = {name: _stamp((self._run / name).stat()) for name in _names(self._run)}
        if _JOURNAL in stamps:
            stamps[_JOURNAL] = _journal_stamp(_whole_lines(self._run / _JOURNAL))
        return sorted(name for name, stamp in stamps.items() if self._copied.get(name) != stamp)

    @property
    def _way_out(self) -> str:
        return f"when it works again, copy them with: {command('resume', self._run)}"

    def _sync(self) -> None:
        before = _names(self._run)
        journal = _whole_lines(self._run / _JOURNAL)
        here = _names(self._run) - {_JOURNAL}
        if _CONFIG not in here:  # not begun yet, or taken away: no reason to empty the copy
            return
        there = self._place.files()
        vanished = self._follow_all(here, there)
        if journal:
            self._put(_JOURNAL, io.BytesIO(journal), _journal_stamp(journal), there)
        # Of a trial whose checkpoint went before it could be copied, the copy keeps the earlier one.
        spared = {_trial(name) for name in vanished}
        gone = {n for n in there - before - here if _trial(n) not in spared} - {_JOURNAL}
        for name in sorted(gone, key=_card_last, reverse=True):
            self._place.delete(name)
        for folder in sorted(_folders(gone) - _folders((there | here) - gone), reverse=True):
            self._place.delete_folder(folder)

    def _follow_all(self, here: set[str], there: set[str]) -> set[str]:
        """Copy what is new or changed; the names of what has just gone.

        Files after one that fails are copied, but no model's card, which says that its weights are there.

        Raises:
            _NotCopied: one failed, so the journal must not follow.
        """
        vanished, failed = set(), list[_NotCopied]()
        for name in sorted(here, key=_card_last):
            if failed and (name.endswith(".json") or len(failed) == GIVE_UP_FILES):
                break
            try:
                if not self._follow(name, there):
                    vanished.add(name)
            except Exception as error:  # noqa: BLE001  # raised below
                failed.append(_NotCopied(f"{name}: {_line(error)}"))
        if failed:
            raise failed[0]
        return vanished

    def _follow(self, name: str, there: set[str]) -> bool:
        """Copy a file if it is new or changed; False where it has just gone."""
        try:
            file = (self._run / name).open("rb")
        except FileNotFoundError:
            return False
        with file:
            self._put(name, file, _stamp(os.fstat(file.fileno())), there)
        return True

    def _put(self, name: str, source: BinaryIO, stamp: tuple[int, int], there: set[str]) -> None:
        if name not in there or self._copied.get(name) != stamp:
            self._place.put(name, source)
            self._copied[name] = stamp


class _NotCopied(OSError):
    """A file could not be copied; the text names it, and why."""


class _Place:
    """A folder at an address; files are named by their paths in it."""

    def __init__(self, address: str, name: str) -> None:
        self._system, path = _opened(address)
        self._base = f"{path.rstrip('/')}/{name}"

    def files(self) -> set[str]:
        """What is there, but for what never was a run's."""
        selector = pyarrow.fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        found = (info.path for info in self._system.get_file_info(selector) if info.is_file)
        return {name for path in found if _is_kept(name := path.removeprefix(f"{self._base}/"))}

    def put(self, name: str, source: BinaryIO) -> None:
        """Copy a file to there, where it appears whole."""
        target = PurePosixPath(self._base, name)
        partial = target
        if self._system.type_name not in _OBJECT_STORES:
            partial = target.with_name(f".{target.name}{PARTIAL}")
            self._system.create_dir(str(target.parent), recursive=True)
        with self._system.open_output_stream(str(partial)) as out:
            shutil.copyfileobj(source, out, CHUNK_BYTES)
        if partial != target:
            self._system.move(str(partial), str(target))

    def get(self, name: str, target: Path) -> None:
        """Copy a file from there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._system.open_input_stream(f"{self._base}/{name}") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)

    def read(self, name: str) -> bytes:
        """A file's content."""
        with self._system.open_input_stream(f"{self._base}/{name}") as source:
            content: bytes = source.read()
        return content

    def delete(self, name: str) -> None:
        self._system.delete_file(f"{self._base}/{name}")

    def delete_folder(self, name: str) -> None:
        """Delete a folder, or what pyarrow lets stand for it in an object store."""
        self._system.delete_dir(f"{self._base}/{name}")

    def exists(self) -> bool:
        """Whether the folder itself exists; object stores have none to leave behind."""
        if self._system.type_name in _OBJECT_STORES:
            return True
        found: bool = self._system.get_file_info(self._base).type != pyarrow.fs.FileType.NotFound
        return found

    def delete_whole(self) -> None:
        """Delete the folder itself."""
        self._system.delete_dir(self._base)


def require_usable(address: str, name: str, *, resumed: bool) -> None:
    """Check, before anything is spent, that the copy of a search can be kept there; nothing of the check stays.

    Args:
        address: see Mirror.
        name: of the run.
        resumed: whether a copy that is there already is this run's.

    Raises:
        InputError: see Mirror.
    """

    def probe() -> set[str]:
        place = _Place(address, name)
        existed = place.exists()
        _, there = _checked(place)
        if not existed:
            place.delete_whole()
        return there

    there = _ask(address, probe)
    if not resumed:
        _require_new(there, address, name)


def _require_new(there: set[str], address: str, name: str) -> None:
    if _CONFIG in there:
        raise InputError(
            f"--name must be a new one, but --storage {_masked(address)} holds a search {name} already; "
            "choose another, or bring that one back and resume it"
        )


def fetch(address: str, name: str, folder: Path) -> None:
    """Bring the copy of the search `name` back as a new run's folder.

    Raises:
        InputError: the folder exists, the address cannot be read, or holds no such search.
    """
    if folder.exists():
        raise InputError(f"the folder for what is brought back must be a new one, but {folder} exists")
    place, names = _ask(address, lambda: _listed(_Place(address, name)))
    if _CONFIG not in names:
        raise InputError(
            f"NAME must be that of a search in the storage, but {_masked(address)} holds no {name}; "
            "see whether address and name are those of the search"
        )
    try:
        with atomic_folder(folder) as partial:
            for file in names:
                place.get(file, partial / file)
    except _FAILURES as error:
        raise InputError(f"--storage {_masked(address)} broke off, try again: {_line(error)}") from error


def _opened(address: str) -> tuple[Any, str]:
    """The file system at an address and the path in it; one that soon says so when it is not reached."""
    if address.startswith(("gs:", "gcs:")) and "retry_limit_seconds=" not in address:
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    if system.type_name == "s3":  # an address cannot say how often to try: the same again, told by keyword
        _, (settings,) = system.__reduce__()
        given = {k: v for k, v in settings.items() if v not in ("", -1.0, None) and k != "proxy_options"}
        attempts = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
        system = pyarrow.fs.S3FileSystem(**given, retry_strategy=attempts)
    return system, path


def _checked(place: _Place) -> tuple[_Place, set[str]]:
    """The place, where something was written and deleted, and what is there."""
    place.put(_PROBE, io.BytesIO(b"genre-search can write here"))
    place.delete(_PROBE)
    return _listed(place)


def _listed(place: _Place) -> tuple[_Place, set[str]]:
    return place, place.files()


def _ask(address: str, question: Callable[[], _T]) -> _T:
    """The answer from an address, or InputError, both in time: in a thread, for pyarrow cannot be interrupted."""
    answer: Future[_T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(CHECK_SECONDS)
    except _FAILURES as error:
        why = _line(error) if answer.done() else f"no answer in {CHECK_SECONDS:.0f} s"
        raise InputError(
            "--storage must be an address that can be written and read (s3://BUCKET/…, gs://…, file:///…), "
            f"but got {_masked(address)}: {why}"
        ) from error


def _names(run: Path) -> set[str]:
    """Files of a run that are whole, by their paths in it."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that has just gone
            raise error

    found = (Path(at, file) for at, _, files in os.walk(run, onerror=failed) for file in files)
    return {name for path in found if _is_kept(name := path.relative_to(run).as_posix())}


def _is_kept(name: str) -> bool:
    """Whether a file belongs in the copy: locks and what is being written do not."""
    return not any(p.startswith(".") or p.endswith((PARTIAL, ".lock")) for p in PurePosixPath(name).parts)


def _whole_lines(journal: Path) -> bytes:
    """What the journal says; it may be in the middle of a line."""
    said = journal.read_bytes() if journal.exists() else b""
    return said[: said.rfind(b"\n") + 1]


def _stamp(status: os.stat_result) -> tuple[int, int]:
    """By which a file is seen to have changed."""
    return status.st_size, status.st_mtime_ns


def _journal_stamp(lines: bytes) -> tuple[int, int]:
    return len(lines), 0


def _folders(names: set[str]) -> set[str]:
    return {str(parent) for name in names for parent in PurePosixPath(name).parents}


def _card_last(name: str) -> tuple[bool, str]:
    """The order of copying: a model's card says that its weights are there."""
    return name.endswith(".json"), name


def _trial(name: str) -> str:
    """What the files of a trial's models, or of its checkpoints, have in common."""
    return name.partition("-epoch-")[0]


def _masked(text: str) -> str:
    """Without the key and the secret that an address may carry."""
    return re.sub(r"//[^@?\s]*@", "//", text)


def _line(error: BaseException) -> str:
    """An error in one line; with its kind where it is none that file systems are known to raise."""
    text, kind = _masked(" ".join(str(error).split())), type(error).__name__
    return (text or kind) if isinstance(error, _FAILURES) else f"{kind}: {text}"
