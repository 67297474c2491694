"""Relocation of a corpus whose files have moved: the same tracks at new paths."""

from dataclasses import replace
from pathlib import Path

from genre_core.corpus.audit import audit
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.errors import ErrorCode, InputError
from genre_core.system.progress import ProgressCallback


def relocate_corpus(
    corpus: Corpus,
    data: Path | str,
    *,
    cache: Path,
    progress: ProgressCallback | None = None,
) -> Corpus:
    """Find the usable tracks of a corpus in another folder or manifest.

    Tracks are found by id, and those whose files were renamed by content. Whether a file found by id still has the same
    content is not checked here.

    Args:
        corpus: an audited corpus.
        data: path or address of a folder or manifest, see `read_corpus`.
        cache: folder for the findings of the audit, see `audit`.
        progress: called with (files done, files to decode) while files are decoded to find tracks by content.

    Returns:
        The corpus with new paths.

    Raises:
        InputError: some tracks were not found.
    """
    found = read_corpus(data)
    locations = {track.track_id: track.location for track in found.tracks}
    places = {track.track_id: locations.get(track.track_id) for track in corpus.usable}
    if not all(places.values()):
        taken = set(places.values())
        others = Corpus(tuple(track for track in found.usable if track.location not in taken))
        decoded = audit(others, minimum_seconds=0.0, cache=cache, progress=progress)
        by_hash = {track.content: track.location for track in decoded.tracks if track.content}
        by_hash |= {track.file_hash: track.location for track in decoded.tracks if track.file_hash}
        places = {
            t.track_id: places[t.track_id] or by_hash.get(t.file_hash or "") or by_hash.get(t.content or "")
            for t in corpus.usable
        }
    if missing := [name for name, place in places.items() if not place]:
        raise InputError(
            f"--data must contain the tracks that the search started with, but {data} lacks {len(missing)} of "
            f"{len(places)}, among them {missing[0]!r}; give the folder or manifest that has them now",
            code=ErrorCode.TRACKS_NOT_FOUND,
        )
    return Corpus(tuple(replace(t, location=places.get(t.track_id) or t.location) for t in corpus.tracks))


def relocate_corpus_by_name(corpus: Corpus, data: Path | str) -> Corpus:
    """Change the paths of the tracks that another folder or manifest has by id; no audio file is opened.

    Raises:
        InputError: see `read_corpus`.
    """
    places = {track.track_id: track.location for track in read_corpus(data).tracks}
    return Corpus(tuple(replace(t, location=places.get(t.track_id, t.location)) for t in corpus.tracks))
