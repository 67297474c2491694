"""The genres of a corpus: tracks, groups and parts of each, and what looks wrong in the list."""

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
"""A genre with fewer leaves at most two tracks for each of validation and test, too few for reliable scores."""
NO_GENRE = (*MISSING_VALUES, "unknown", "undefined", "unlabeled", "unlabelled", "")
"""Names, in lower case, that mean that the genre is not known."""
_LISTED = 24
"""Genres that the compact list names."""
_NAMED = 4
"""Genres or groups that a warning names."""
_WIDTH = 34
"""Columns of the screen for a genre's name: with five columns of numbers the table fits 80."""


def summary(corpus: Corpus) -> str:
    """Each genre's usable tracks and groups in one line, of many genres the first by name."""
    tracks, groups = _counts(corpus)
    names = [f"{_printable(genre)} {tracks[genre]}/{groups[genre]}" for genre in corpus.genres[:_LISTED]]
    more = len(corpus.genres) - _LISTED
    rest = f", and {more} more genres: see genre-search data check" if more > 0 else ""
    return f"Tracks/groups: {', '.join(names)}{rest}"


def table(corpus: Corpus) -> "Table":
    """Genre by usable tracks, groups and, where there is a split, the tracks of each part; the last row is the sum."""
    from rich.table import Table

    parts = SPLITS if any(track.split for track in corpus.usable) else ()
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("genre", max_width=_WIDTH, no_wrap=True, overflow="ellipsis")
    for title in ("tracks", "groups", *parts):
        shown.add_column(title, justify="right")
    tracks, groups = _counts(corpus)
    sides = Counter((track.genre, track.split) for track in corpus.usable)
    for genre in corpus.genres:
        cells = [tracks[genre], groups[genre], *(sides[genre, part] for part in parts)]
        shown.add_row(_printable(genre), *map(str, cells))
    every = [len(corpus.usable), len({track.group for track in corpus.usable})]
    shown.add_row("all", *map(str, [*every, *(len(corpus.part(part)) for part in parts)]), style="bold")
    return shown


def warnings(corpus: Corpus) -> list[str]:
    """What looks wrong in the genres and groups of the usable tracks, a sentence each."""
    found = [
        *_of_names(corpus.genres),
        *_of_spellings(corpus.genres),
        *_of_counts(corpus),
        *_of_groups(corpus),
        missing_groups_warning(corpus),
    ]
    return [sentence for sentence in found if sentence]


def _of_names(genres: Sequence[str]) -> list[str]:
    parts = [genre for genre in genres if genre.lower() in SPLIT_ALIASES]
    numbers = [genre for genre in genres if re.fullmatch(r"[\d\s.,_-]*\d[\d\s.,_-]*", genre)]
    nothing = [genre for genre in genres if genre.strip().lower() in NO_GENRE]
    found = []
    if parts:
        found.append(
            f"genres named like the parts of a split: {_named(parts)}; where the folders in them are the genres, list "
            "the tracks in a manifest with the columns path, genre and split"
        )
    if numbers:
        found.append(f"genres that are only numbers: {_named(numbers)}; are they ids or years?")
    if nothing:
        found.append(
            f"genres named like missing values: {_named(nothing)}; leave out tracks of unknown genre"
        )
    return found


def _of_spellings(genres: Sequence[str]) -> list[str]:
    """Warnings about names that are equal but for case, spaces, hyphens, underscores and compatible letters."""
    alike = defaultdict(list)
    for genre in genres:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", genre).casefold())
        alike[re.sub(r"[\s_\-\u2010-\u2015]", "", plain)].append(genre)
    return [
        f"genres that differ only in spelling: {_named(names)}; if they are one genre, give it one name"
        for names in alike.values()
        if len(names) > 1
    ]


def _of_counts(corpus: Corpus) -> list[str]:
    tracks, _ = _counts(corpus)
    few = [genre for genre in corpus.genres if tracks[genre] < FEW_TRACKS]
    if not few:
        return []
    counts = _joined([f"{genre!r} has {tracks[genre]}" for genre in few])
    return [f"genres with fewer than {FEW_TRACKS} tracks, too few for reliable scores: {counts}"]


def _of_groups(corpus: Corpus) -> list[str]:
    """Warnings about groups that span all genres, and about a published data set without its groups."""
    genres = defaultdict(set)
    for track in corpus.usable:
        genres[track.group].add(track.genre)
    everywhere = sorted(group for group, names in genres.items() if len(names) == len(corpus.genres) > 1)
    found = []
    if everywhere:
        found.append(
            f"groups that span all genres: {_named(everywhere)}; a group is meant to be an artist or a recording, and "
            "all its tracks are on one side of the split"
        )
    alone = len(genres) == len(corpus.usable)
    if alone and set(corpus.genres) == set(GENRES) and not any(track.split for track in corpus.usable):
        found.append(
            "these are GTZAN's genres: if it is GTZAN, genre-search data get gtzan DIR gives it the split that keeps "
            "its artists apart"
        )
    return found


def _counts(corpus: Corpus) -> tuple[Counter[str], Counter[str]]:
    """Tracks and groups by genre."""
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
