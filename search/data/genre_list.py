"""Overview of a corpus by genre: tracks, groups, splits and warnings."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from genre_core.corpus.manifest import MISSING_VALUES
from genre_core.corpus.tracks import SPLIT_ALIASES, SPLITS, Corpus
from genre_core.synthetic.styles import GENRES
from search.data.sanity_checks import missing_groups_warning

if TYPE_CHECKING:
    from rich.table import Table

FEW_TRACKS = 10
"""Genres with fewer tracks have at most two for validation and for test, too few for reliable scores."""
NO_GENRE = (*MISSING_VALUES, "unknown", "undefined", "unlabeled", "unlabelled", "")
"""Names, in lower case, of unknown genres."""
_LISTED = 24
"""Genres named in the summary."""
_NAMED = 4
"""Genres or groups named in a warning."""


def summary(corpus: Corpus) -> str:
    """One line with the usable tracks and groups of each genre; of many genres, only the first by name."""
    tracks, groups = _counts(corpus)
    names = [f"{_printable(genre)} {tracks[genre]}/{groups[genre]}" for genre in corpus.genres[:_LISTED]]
    more = len(corpus.genres) - _LISTED
    rest = f", and {more} more genres (genre-search data check lists them)" if more > 0 else ""
    return f"Tracks/groups: {', '.join(names)}{rest}"


def table(corpus: Corpus) -> "Table":
    """A table of usable tracks, groups and, if the corpus is split, tracks by part for each genre, with a total row."""
    from rich.table import Table

    parts = SPLITS if any(track.split for track in corpus.usable) else ()
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("genre", overflow="fold")
    for title in ("tracks", "groups", *parts):
        shown.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    tracks, groups = _counts(corpus)
    sides = Counter((track.genre, track.split) for track in corpus.usable)
    for genre in corpus.genres:
        cells = [tracks[genre], groups[genre], *(sides[genre, part] for part in parts)]
        shown.add_row(_printable(genre), *map(str, cells))
    every = [len(corpus.usable), len({track.group for track in corpus.usable})]
    shown.add_row("all", *map(str, [*every, *(len(corpus.part(part)) for part in parts)]), style="bold")
    return shown


def warnings(corpus: Corpus) -> list[str]:
    """Return suspicious genres and groups of the usable tracks, one sentence each."""
    return [
        *_name_warnings(corpus.genres),
        *_spelling_warnings(corpus.genres),
        *_count_warnings(corpus),
        *_group_warnings(corpus),
        *filter(None, [missing_groups_warning([track.group for track in corpus.usable])]),
    ]


def _name_warnings(genres: Sequence[str]) -> list[str]:
    parts = [genre for genre in genres if genre.lower() in SPLIT_ALIASES]
    numbers = [genre for genre in genres if re.fullmatch(r"[\d\s.,_-]*\d[\d\s.,_-]*", genre)]
    nothing = [genre for genre in genres if genre.strip().lower() in NO_GENRE]
    found = []
    if parts:
        found.append(
            f"genres named like parts of a split: {_named(parts)}; if their subfolders are the genres, list the "
            "tracks in a manifest with the columns path, genre and split"
        )
    if numbers:
        found.append(f"genres that are numbers: {_named(numbers)}; check whether they are ids or years")
    if nothing:
        found.append(
            f"genres named like missing values: {_named(nothing)}; remove the tracks of unknown genre"
        )
    return found


def _spelling_warnings(genres: Sequence[str]) -> list[str]:
    """Warn about names that differ only in case, spaces, hyphens, underscores or compatibility characters."""
    alike = defaultdict(list)
    for genre in genres:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", genre).casefold())
        alike[re.sub(r"[\s_\-\u2010-\u2015]", "", plain)].append(genre)
    return [
        f"genres that differ only in spelling: {_named(names)}; if they are the same genre, use one name"
        for names in alike.values()
        if len(names) > 1
    ]


def _count_warnings(corpus: Corpus) -> list[str]:
    tracks, _ = _counts(corpus)
    few = [genre for genre in corpus.genres if tracks[genre] < FEW_TRACKS]
    if not few:
        return []
    counts = _joined([f"{genre!r} has {tracks[genre]}" for genre in few])
    return [f"genres with fewer than {FEW_TRACKS} tracks, too few for reliable scores: {counts}"]


def _group_warnings(corpus: Corpus) -> list[str]:
    """Warn about groups that span all genres, and about GTZAN without groups."""
    genres = defaultdict(set)
    for track in corpus.usable:
        genres[track.group].add(track.genre)
    everywhere = sorted(group for group, names in genres.items() if len(names) == len(corpus.genres) > 1)
    found = []
    if everywhere:
        found.append(
            f"groups that span all genres: {_named(everywhere)}; a group should be an artist or a recording, since all "
            "its tracks end up in the same split"
        )
    alone = len(genres) == len(corpus.usable)
    if alone and set(corpus.genres) == set(GENRES) and not any(track.split for track in corpus.usable):
        found.append(
            "these are GTZAN's genres; if this is GTZAN, create the split that separates its artists with: "
            "genre-search data get gtzan DIR"
        )
    return found


def _counts(corpus: Corpus) -> tuple[Counter[str], Counter[str]]:
    """Count tracks and groups by genre."""
    tracks = Counter(track.genre for track in corpus.usable)
    groups = Counter(genre for genre, _ in {(track.genre, track.group) for track in corpus.usable})
    return tracks, groups


def _named(names: Iterable[str]) -> str:
    return _joined([repr(name) for name in names])


def _joined(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)
