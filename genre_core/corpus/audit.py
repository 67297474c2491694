"""What is wrong with each file of a corpus."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from genre_core.audio import decode
from genre_core.corpus.tracks import Corpus, Track
from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback
from genre_core.system.threads import ALL_CORES, map_in_threads

CACHE_NAME = "audit-3.parquet"  # a new number when what is stored, or how it is computed, changes

CACHE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False, metadata={"unit": "bytes"}),
        pa.field("modified", pa.int64(), nullable=False, metadata={"unit": "ns since 1970"}),
        pa.field("seconds", pa.float64(), metadata={"unit": "s"}),
        pa.field("content", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
    ]
)

Version = tuple[int, int]  # size in bytes, time of change in ns: which state of a file was decoded


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What decoding one file showed: its length, content and warnings, or the reason against it."""

    seconds: float | None = None
    content: str | None = None
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    lasting: bool = True  # False: ask again next time, the fault may lie outside the file


Known = dict[Path, tuple[Version, Finding]]


def audit(
    corpus: Corpus,
    *,
    minimum_seconds: float,
    cache: Path | None,
    workers: int = ALL_CORES,
    progress: ProgressCallback | None = None,
) -> Corpus:
    """Decode every file not yet excluded: the corpus with lengths, contents and excluded reasons.

    Excluded are files that `audio.inspect` refuses or that are shorter than `minimum_seconds`; of
    exact copies within a genre all but the first; of exact copies across genres all, since no label can be
    trusted. Usable files may have warnings. `cache` is a folder that remembers what was decoded, so that a
    second audit only looks at sizes and times of change; an interrupted audit keeps what it has. `progress` is
    told (done, total) after each decoded file. Raises InputError for a cache folder that cannot be written.
    """
    known = _remembered(cache) if cache else {}
    versions = {track.path: _version(track.path) for track in corpus.usable}
    findings = {
        path: known[path][1] for path in versions if path in known and known[path][0] == versions[path]
    }
    unknown = [path for path in versions if path not in findings]
    try:
        for done, (path, finding) in enumerate(_decoded(unknown, workers), 1):
            findings[path] = finding
            if progress:
                progress(done, len(unknown))
    finally:
        fresh = {path: (versions[path], findings[path]) for path in unknown if path in findings}
        if cache and any(finding.lasting for _, finding in fresh.values()):
            _remember(known | fresh, cache)
    judged = (
        track if track.excluded_reason else _judged(track, findings[track.path], minimum_seconds)
        for track in corpus.tracks
    )
    return _without_copies(Corpus(tuple(judged)))


def reason_counts(corpus: Corpus) -> dict[str, int]:
    """Number of excluded tracks by kind of reason, the most frequent first."""
    reasons = (str(track.excluded_reason) for track in corpus.excluded)
    return dict(Counter(reason.partition(":")[0] for reason in reasons).most_common())


def excluded_summary(corpus: Corpus) -> str:
    """How many files were left out for which kinds of reason, in one line; empty where none was."""
    counts = reason_counts(corpus)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{sum(counts.values())} of {len(corpus.tracks)} files left out: {kinds}" if counts else ""


def warned(corpus: Corpus) -> list[tuple[Track, str]]:
    """The usable tracks that an audit warns of, once for each warning."""
    return [(track, warning) for track in corpus.usable for warning in track.warnings]


def warned_summary(corpus: Corpus) -> str:
    """How many usable files have warnings, in one line; empty where none has."""
    count = sum(bool(track.warnings) for track in corpus.usable)
    return f"{count} of {len(corpus.usable)} usable files have warnings" if count else ""


def copies_across(corpus: Corpus) -> list[tuple[Track, Track]]:
    """Of an audited corpus, exact copies on other sides of the split that was given: each with its first track."""
    first: dict[str, Track] = {}
    for track in corpus.tracks:
        if track.content and track.split:
            first.setdefault(track.content, track)
    originals = ((first.get(track.content or "", track), track) for track in corpus.tracks)
    return [(original, track) for original, track in originals if track.split not in (None, original.split)]


def _decoded(paths: list[Path], workers: int) -> Iterator[tuple[Path, Finding]]:
    """Each path with its finding, in order, as they come. Threads: decoding and hashing release the GIL."""
    yield from zip(paths, map_in_threads(_decode, paths, workers), strict=True)


def _decode(path: Path) -> Finding:
    try:
        facts = decode.inspect(path)
    except decode.BadAudio as bad:
        return Finding(reason=str(bad), lasting=bad.reason is not decode.Reason.UNREADABLE)
    return Finding(seconds=facts.seconds, content=facts.content, warnings=facts.warnings)


def _judged(track: Track, finding: Finding, minimum_seconds: float) -> Track:
    reason = finding.reason
    if finding.seconds is not None and finding.seconds < minimum_seconds:
        doubts = "".join(f"; {warning}" for warning in finding.warnings)  # it may have been cut short
        reason = f"shorter than a segment: {finding.seconds:.6g} s < {minimum_seconds:.6g} s{doubts}"
    return replace(
        track,
        seconds=finding.seconds,
        content=finding.content,
        excluded_reason=reason,
        warnings=finding.warnings,
    )


def _without_copies(corpus: Corpus) -> Corpus:
    """Exclude the exact copies among the usable tracks."""
    copies: defaultdict[str | None, list[Track]] = defaultdict(list)
    for track in corpus.usable:
        copies[track.content].append(track)

    def reason(track: Track) -> str | None:
        same = copies[track.content]
        if others := [copy for copy in same if copy.genre != track.genre]:
            return f"duplicate across genres: {others[0].track_id}"
        return None if track is same[0] else f"duplicate: {same[0].track_id}"

    return Corpus(
        tuple(
            track if track.excluded_reason else replace(track, excluded_reason=reason(track))
            for track in corpus.tracks
        )
    )


def _version(path: Path) -> Version:
    """A file that cannot be looked at has no state that a cache could know."""
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return (status.st_size, status.st_mtime_ns)


def _remembered(cache: Path) -> Known:
    """What earlier audits decoded; nothing where the table is missing, damaged or of another shape."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache {cache} cannot be made: {error.strerror}; name another folder"
        ) from error
    try:
        table = pq.read_table(cache / CACHE_NAME)
    except (OSError, pa.ArrowException):
        return {}
    if table.schema != CACHE_SCHEMA:
        return {}
    return {
        Path(row.pop("path")): (
            (row.pop("size"), row.pop("modified")),
            Finding(**row | {"warnings": tuple(row["warnings"])}),
        )
        for row in table.to_pylist()
    }


def _remember(known: Known, cache: Path) -> None:
    rows = [
        {"path": str(path), "size": size, "modified": modified} | vars(finding)
        for path, ((size, modified), finding) in known.items()
        if finding.lasting
    ]
    try:
        with atomic_file(cache / CACHE_NAME, durable=False) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=CACHE_SCHEMA), partial)
    except OSError as error:
        raise InputError(
            f"the cache {cache} cannot be written: {error.strerror}; name another folder"
        ) from error
