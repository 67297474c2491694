"""A corpus whose files have moved: the same tracks at their new paths."""

from dataclasses import replace
from pathlib import Path

from genre_core.corpus.audit import audit
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.errors import InputError
from genre_core.system.progress import ProgressCallback


def relocated(
    corpus: Corpus,
    data: Path,
    *,
    cache: Path,
    progress: ProgressCallback | None = None,
) -> Corpus:
    """The corpus with its usable tracks at the paths that they have in a folder or manifest.

    Tracks are found by their names in the corpus, and where files were renamed too, by what they decode to. That a file
    found by its name has the same content is not checked here.

    Args:
        corpus: audited.
        data: see `read_corpus`.
        cache: remembers what was decoded, see `audit`.
        progress: told (files done, files in all) of those that have to be decoded.

    Raises:
        InputError: some tracks are not there.
    """
    found = read_corpus(data)
    paths = {track.track_id: track.path for track in found.tracks}
    places = {track.track_id: paths.get(track.track_id) for track in corpus.usable}
    if not all(places.values()):
        taken = {path for path in places.values() if path}
        others = Corpus(tuple(track for track in found.usable if track.path not in taken))
        decoded = audit(others, minimum_seconds=0.0, cache=cache, progress=progress)
        contents = {track.content: track.path for track in decoded.tracks if track.content}
        places = {t.track_id: places[t.track_id] or contents.get(t.content or "") for t in corpus.usable}
    if missing := [name for name, path in places.items() if not path]:
        raise InputError(
            f"--data must hold the music that the search began with, but {data} lacks {len(missing)} of "
            f"{len(places)} tracks, {missing[0]!r} among them; name the folder or manifest where they are now"
        )
    return Corpus(tuple(replace(t, path=places.get(t.track_id) or t.path) for t in corpus.tracks))


def relocated_by_name(corpus: Corpus, data: Path) -> Corpus:
    """The corpus with those tracks at new paths that a folder or manifest has by their names; no file is opened.

    Raises:
        InputError: see `read_corpus`.
    """
    paths = {track.track_id: track.path for track in read_corpus(data).tracks}
    return Corpus(tuple(replace(t, path=paths.get(t.track_id, t.path)) for t in corpus.tracks))
