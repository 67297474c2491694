"""Audit of a corpus: decodes each file once, and excludes bad files and exact copies with a reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genre_core.audio import decode
from genre_core.audio.on_disk import on_disk
from genre_core.corpus.tracks import Corpus, Exclusion, Track
from genre_core.errors import ErrorCode, InputError
from genre_core.system import remote_files
from genre_core.system.addresses import is_address
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback
from genre_core.system.remote_files import MISSING, FileVersion
from genre_core.system.threads import ALL_CORES, map_in_threads

CACHE_NAME, EARLIER_CACHE = "audit-5.parquet", "audit-4.parquet"
"""The number changes with what is stored or how it is computed. The earlier one lacks the hashes of files."""

CACHE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False, metadata={"unit": "bytes"}),
        pa.field("modified", pa.int64(), nullable=False, metadata={"unit": "ns since 1970"}),
        pa.field("seconds", pa.float64(), metadata={"unit": "s"}),
        pa.field("content", pa.string()),
        pa.field("file_hash", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
    ]
)

_HASH_FIELD = CACHE_SCHEMA.get_field_index("file_hash")
"""Position of the field that the earlier table lacks."""
CACHE_ROWS = 10_000
"""Findings that are converted at a time: as dictionaries they take several times the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Result of decoding one file: its length, hashes and warnings, or the reason why it is bad."""

    seconds: float | None = None
    content: str | None = None
    file_hash: str | None = None
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    lasting: bool = True
    """False if the cause may lie outside the file, which is then decoded again by the next audit."""

    @classmethod
    def of(cls, info: decode.AudioInfo) -> "Finding":
        """The finding on a file that could be decoded."""
        return cls(
            seconds=info.seconds, content=info.content, file_hash=info.file_hash, warnings=info.warnings
        )

    @classmethod
    def of_bad(cls, bad: decode.BadAudio) -> "Finding":
        """The finding on a bad file."""
        return cls(reason=str(bad), lasting=bad.reason is not decode.Reason.UNREADABLE)


_UNKNOWN = Finding()
"""Stands for the finding on a file that has not been decoded yet."""

Examine = Callable[[Mapping[str, FileVersion]], Iterable[tuple[str, Finding]]]
"""Decodes the files at these locations, given with their versions, and yields the finding on each, in any order."""


def audit(
    corpus: Corpus,
    *,
    minimum_seconds: float,
    cache: Path | None,
    workers: int = ALL_CORES,
    progress: ProgressCallback | None = None,
    examine: Examine | None = None,
) -> Corpus:
    """Decode every file that is not yet excluded.

    Files are excluded if `decode.inspect` rejects them or they are too short. Of exact copies within a genre, all but
    the first are excluded; of exact copies across genres, all, since none of their labels can be trusted.

    Args:
        corpus: the tracks.
        minimum_seconds: length below which a file is excluded.
        cache: folder for the findings, so that the next audit decodes only files with another size or modification
            time; an interrupted audit keeps the findings it has. None for no cache.
        workers: number of threads.
        progress: called with (files done, files to decode) after each decoded file.
        examine: decodes files; None for `decode.inspect` in threads.

    Returns:
        The corpus with lengths, hashes, reasons for exclusion and warnings.

    Raises:
        InputError: the cache folder cannot be written, or the storage of files cannot be reached.
    """
    listed = _remote_versions(corpus.usable, workers)
    findings = dict.fromkeys((track.location for track in corpus.usable), _UNKNOWN)
    for file, version, finding in _load_cache(cache) if cache else ():
        if file in findings and version == (listed.get(file) or version_of(file)):
            findings[file] = finding
    unhashed = {file: f for file, f in findings.items() if f.content and not f.file_hash}
    new = [file for file, finding in findings.items() if finding is _UNKNOWN]
    versions = {file: listed.get(file) or version_of(file) for file in (*unhashed, *new)}
    examined = (examine or partial(_inspected, workers=workers))({file: versions[file] for file in new})
    try:
        for done, (file, finding) in enumerate(chain(_hashed(unhashed, workers), examined), 1):
            findings[file] = finding
            if progress:
                progress(done, len(versions))
    finally:
        fresh = {file: findings[file] for file in versions if _is_kept(findings[file])}
        if cache and fresh:
            _save_cache(fresh, versions, cache)
    tracks = (
        track if track.excluded_reason else _apply(track, findings[track.location], minimum_seconds)
        for track in corpus.tracks
    )
    return _without_copies(Corpus(tuple(tracks)))


def _is_kept(finding: Finding) -> bool:
    return finding.lasting and finding is not _UNKNOWN


def reason_counts(corpus: Corpus) -> dict[str, int]:
    """Count the excluded tracks by kind of reason, the most frequent first."""
    reasons = (str(track.excluded_reason) for track in corpus.excluded)
    return dict(Counter(reason.partition(":")[0] for reason in reasons).most_common())


def excluded_summary(corpus: Corpus) -> str:
    """Summarize in one line how many files were left out and why; "" if none was."""
    counts = reason_counts(corpus)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{sum(counts.values())} of {len(corpus.tracks)} files left out: {kinds}" if counts else ""


def track_warnings(corpus: Corpus) -> list[tuple[Track, str]]:
    """List the warnings of usable tracks, each with its track."""
    return [(track, warning) for track in corpus.usable for warning in track.warnings]


def warnings_summary(corpus: Corpus) -> str:
    """Summarize in one line how many usable files have warnings; "" if none has."""
    count = sum(bool(track.warnings) for track in corpus.usable)
    return f"{count} of {len(corpus.usable)} usable files have warnings" if count else ""


def copies_across_splits(corpus: Corpus) -> list[tuple[Track, Track]]:
    """List the exact copies in an audited corpus whose given split differs: (first track, copy)."""
    first: dict[str, Track] = {}
    for track in corpus.tracks:
        if track.content and track.split:
            first.setdefault(track.content, track)
    originals = ((first.get(track.content or "", track), track) for track in corpus.tracks)
    return [(original, track) for original, track in originals if track.split not in (None, original.split)]


def _remote_versions(tracks: Sequence[Track], workers: int) -> dict[str, FileVersion]:
    """Versions of files at addresses, by location; one that was not listed costs a request."""
    remote = [track for track in tracks if track.is_remote]
    unlisted = [track.location for track in remote if track.version is None]
    asked = dict(zip(unlisted, map_in_threads(version_of, unlisted, workers), strict=True))
    return {track.location: track.version or asked[track.location] for track in remote}


def _inspected(locations: Iterable[str], *, workers: int) -> Iterator[tuple[str, Finding]]:
    """Decode files in threads, since decoding and hashing release the GIL, and yield the findings in order."""
    yield from zip(locations, map_in_threads(_inspect, list(locations), workers), strict=True)


def _inspect(location: str) -> Finding:
    try:
        with on_disk(location) as path:
            return Finding.of(decode.inspect(path))
    except decode.BadAudio as bad:
        return Finding.of_bad(bad)


def _hashed(findings: Mapping[str, Finding], workers: int) -> Iterator[tuple[str, Finding]]:
    """Add the hashes of the files to findings that lack them, without decoding."""
    yield from zip(findings, map_in_threads(_hash, findings.items(), workers), strict=True)


def _hash(found: tuple[str, Finding]) -> Finding:
    location, finding = found
    try:
        with on_disk(location) as path:
            return replace(finding, file_hash=decode.hash_of(path))
    except decode.BadAudio as bad:
        return Finding.of_bad(bad)


def _apply(track: Track, finding: Finding, minimum_seconds: float) -> Track:
    """Add a finding to its track."""
    reason = finding.reason
    if finding.seconds is not None and finding.seconds < minimum_seconds:
        doubts = "".join(f"; {warning}" for warning in finding.warnings)  # which may explain why it is short
        reason = f"{Exclusion.TOO_SHORT}: {finding.seconds:.6g} s < {minimum_seconds:.6g} s{doubts}"
    return replace(
        track,
        seconds=finding.seconds,
        content=finding.content,
        file_hash=finding.file_hash,
        excluded_reason=reason,
        warnings=finding.warnings,
    )


def _without_copies(corpus: Corpus) -> Corpus:
    """Exclude the exact copies among the usable tracks."""
    first: dict[str | None, Track] = {}
    copies: dict[str | None, list[Track]] = {}
    for track in corpus.usable:
        if (original := first.setdefault(track.content, track)) is not track:
            copies.setdefault(track.content, [original]).append(track)
    if not copies:
        return corpus

    def reason(track: Track) -> str | None:
        same = copies.get(track.content, [track])
        if others := [copy for copy in same if copy.genre != track.genre]:
            return f"{Exclusion.DUPLICATE_ACROSS_GENRES}: {others[0].track_id}"
        return None if track is same[0] else f"{Exclusion.DUPLICATE}: {same[0].track_id}"

    return Corpus(
        tuple(
            replace(track, excluded_reason=why)
            if not track.excluded_reason and (why := reason(track))
            else track
            for track in corpus.tracks
        )
    )


def version_of(location: str) -> FileVersion:
    """The version of a file; one that no cache has if the file is not accessible."""
    if is_address(location):
        return remote_files.version(location)
    try:
        status = Path(location).stat()
    except OSError:
        return MISSING
    return (status.st_size, status.st_mtime_ns)


def _load_cache(cache: Path) -> Iterator[tuple[str, FileVersion, Finding]]:
    """Findings of earlier audits, each with the location and the version of its file."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(cache, error) from error
    with suppress(OSError, pa.ArrowException), _opened(cache) as table:
        for batch in table.iter_batches(CACHE_ROWS):
            for row in batch.to_pylist():
                file, version = row.pop("path"), (row.pop("size"), row.pop("modified"))
                yield file, version, Finding(**row | {"warnings": tuple(row["warnings"])})


def _opened(cache: Path) -> pq.ParquetFile:
    """The table of findings, perhaps that of an earlier version.

    Raises:
        OSError, ArrowException: it is missing, damaged or has another schema.
    """
    for name, schema in ((CACHE_NAME, CACHE_SCHEMA), (EARLIER_CACHE, CACHE_SCHEMA.remove(_HASH_FIELD))):
        with suppress(OSError, pa.ArrowException):
            table = pq.ParquetFile(cache / name)
            if table.schema_arrow == schema:
                return table
            table.close()
    raise FileNotFoundError(cache)


def _cached_table(cache: Path) -> pa.Table:
    """All findings of earlier audits; none if they cannot be read."""
    try:
        with _opened(cache) as file:
            table = file.read()
    except (OSError, pa.ArrowException):
        return CACHE_SCHEMA.empty_table()
    if "file_hash" not in table.column_names:
        hashes = pa.nulls(len(table), pa.string())
        table = table.add_column(_HASH_FIELD, CACHE_SCHEMA.field(_HASH_FIELD), hashes)
    return table


def _save_cache(fresh: Mapping[str, Finding], versions: Mapping[str, FileVersion], cache: Path) -> None:
    """Add findings to the table, or replace the earlier ones on the same files."""
    earlier = _cached_table(cache)
    kept = earlier.filter(pc.invert(pc.is_in(earlier["path"], value_set=pa.array(list(fresh)))))
    rows = (
        {"path": file, "size": versions[file][0], "modified": versions[file][1]} | asdict(finding)
        for file, finding in fresh.items()
    )
    try:
        with atomic_file(cache / CACHE_NAME, durable=False) as partial:
            table = pa.concat_tables([kept, *_tables(rows)])
            pq.write_table(table, partial, row_group_size=CACHE_ROWS)
    except OSError as error:
        raise _cache_error(cache, error) from error


def _tables(rows: Iterator[dict[str, object]]) -> Iterator[pa.Table]:
    while some := list(islice(rows, CACHE_ROWS)):
        yield pa.Table.from_pylist(some, schema=CACHE_SCHEMA)


def _cache_error(cache: Path, error: OSError) -> InputError:
    return InputError(
        f"the cache {cache} cannot be written: {error.strerror}; choose another folder",
        code=ErrorCode.AUDIT_CACHE_NOT_WRITABLE,
    )
