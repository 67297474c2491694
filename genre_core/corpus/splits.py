"""Splits into train, validation and test: each has every genre, and each group is in only one of them."""

import os
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from genre_core.corpus.tracks import SPLITS, Corpus, Track
from genre_core.errors import ErrorCode, InputError
from genre_core.system.addresses import readable, source_of

K = TypeVar("K")
V = TypeVar("V")

SEEDS_TRIED = 5
"""Shuffles that are compared to find the fold that is nearest to the requested share."""
CLOSE_ENOUGH = 0.01
"""Distance from the requested share, averaged over genres, at which the search ends."""
SCARCE_GENRE_WARNING = "The least populated class in y"
"""Beginning of scikit-learn's warning of a genre with fewer tracks than folds; here the folds are checked instead."""


def split_corpus(
    corpus: Corpus, *, validation: float, test: float, seed: int, draw_validation: bool = False
) -> Corpus:
    """Split the usable tracks by group; a split given in the manifest is verified and kept.

    The same tracks and seed always give the same split.

    Args:
        corpus: the tracks.
        validation: share of the tracks, approached in each genre as closely as whole groups allow by one of n equal
            folds (1/2, 1/3, 1/4, ...).
        test: as `validation`.
        seed: of the shuffles.
        draw_validation: whether a given split without validation tracks gets some, drawn from train.

    Raises:
        InputError: the shares are invalid, or no split has every genre in each part and each group in only one.
    """
    if not (validation > 0 and test > 0 and validation + test <= 0.5):
        raise InputError(
            "validation and test must be shares above 0 and at most 0.5 together, "
            f"but got validation={validation} and test={test}",
            code=ErrorCode.SPLIT_SHARES,
        )
    require_genres(corpus)
    # sorted, so that the split does not depend on the order of the corpus
    tracks = sorted(corpus.usable, key=lambda track: track.track_id)
    given = {track.split for track in tracks}
    if given == {None}:
        splits = _draw_splits(tracks, validation, test, seed)
        tracks = [replace(track, split=splits[track.group]) for track in tracks]
    elif draw_validation and "validation" not in given:
        tracks = _with_validation(tracks, validation, seed)
    _verify_split(tracks)
    by_id = {track.track_id: track for track in tracks}
    return Corpus(tuple(by_id.get(track.track_id) or replace(track, split=None) for track in corpus.tracks))


def require_genres(corpus: Corpus) -> None:
    """Raise InputError if there are fewer than two genres, and suggest a subfolder that may have the genres."""
    if len(corpus.genres) > 1:
        return
    hint = "add some"
    if below := _folders_below(corpus):
        folder, names = source_of(below[0]), below[1]
        where = readable(folder) if isinstance(folder, str) else folder
        shown = f"{', '.join(map(repr, names[:3]))}{' and others' if len(names) > 3 else ''}"
        hint = f"add some, or, if the folders {shown} in {where} are the genres, give that folder"
    found = f"only {corpus.genres[0]!r}" if corpus.genres else "none"
    raise InputError(
        f"a corpus needs at least two genres with usable tracks, but has {found}; {hint}",
        code=ErrorCode.TOO_FEW_GENRES,
    )


def _folders_below(corpus: Corpus) -> tuple[Path, list[str]] | None:
    """The folder in that of the only genre whose subfolders hold all tracks, and their names; None if there is none."""
    of_folders = [
        Path(readable(track.location) if track.is_remote else track.location).parent
        for track in corpus.usable
        if track.genre == unicodedata.normalize("NFC", track.track_id.partition("/")[0])
    ]
    if not of_folders or len(of_folders) < len(corpus.usable):
        return None
    where = Path(os.path.commonpath(of_folders))
    names = {folder.relative_to(where).parts[:1] for folder in of_folders}
    return (where, sorted(name[0] for name in names)) if () not in names else None


def _with_validation(tracks: Sequence[Track], validation: float, seed: int) -> list[Track]:
    """Move a share of all tracks from train to validation."""
    train = [track for track in tracks if track.split == "train"]
    for genre, groups in sorted(_sets_by_key((track.genre, track.group) for track in train).items()):
        if len(groups) < 2:
            raise InputError(
                f"drawing validation from train needs two groups of each genre in train, but {genre!r} has only "
                f"{next(iter(groups))!r}: add tracks by other artists or remove the genre",
                code=ErrorCode.TOO_FEW_GROUPS,
            )
    share = validation * len(tracks) / max(1, len(train))
    held = _held_out(train, min(share, 0.5), seed, leave=1) if train else frozenset()
    return [replace(track, split="validation") if track.group in held else track for track in tracks]


def _verify_split(tracks: Sequence[Track]) -> None:
    """Raise InputError unless all tracks have a split, all splits have every genre and each group is in one split."""
    if bare := [track.track_id for track in tracks if track.split is None]:
        raise InputError(
            f"all tracks or none must have a split, but {bare[0]!r} has none; add it or remove the others",
            code=ErrorCode.SPLIT_PARTLY_GIVEN,
        )
    splits = _sets_by_key((track.group, track.split or "") for track in tracks)
    for group, found in splits.items():
        if len(found) > 1:
            raise InputError(
                f"a group must be in one split, but {group!r} is in {' and '.join(sorted(found))}; move it to one",
                code=ErrorCode.GROUP_IN_TWO_SPLITS,
            )
    present = _sets_by_key((track.split or "", track.genre) for track in tracks)
    if absent := [split for split in SPLITS if split not in present]:
        raise _missing_splits(absent)
    for split in SPLITS:
        if missing := {track.genre for track in tracks} - present[split]:
            names = ", ".join(map(repr, sorted(missing)))
            raise InputError(
                f"every split needs every genre, but {split} has no usable track of {names}; add some or remove "
                "the genre",
                code=ErrorCode.SPLIT_WITHOUT_GENRE,
            )


def _missing_splits(absent: Sequence[str]) -> InputError:
    """The error for a given split that lacks whole parts."""
    if absent == ["validation"]:
        return InputError(
            "the given split has train and test but no validation tracks, on which trials are compared: draw "
            "them from train with --set split.draw_validation=true, or add them",
            code=ErrorCode.SPLIT_WITHOUT_VALIDATION,
        )
    return InputError(
        f"the given split has no usable {' and no '.join(absent)} track: add some, or leave the split of all tracks "
        "empty to have it drawn",
        code=ErrorCode.SPLIT_WITHOUT_PART,
    )


def _sets_by_key(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, set[V]]:
    sets: defaultdict[K, set[V]] = defaultdict(set)
    for key, value in pairs:
        sets[key].add(value)
    return sets


def _draw_splits(tracks: Sequence[Track], validation: float, test: float, seed: int) -> dict[str, str]:
    """Group -> split: test is drawn from all tracks, then validation from the rest."""
    groups = _sets_by_key((track.genre, track.group) for track in tracks)
    for genre, names in sorted(groups.items()):
        if len(names) < len(SPLITS):
            raise InputError(
                f"a split needs {len(SPLITS)} groups of each genre, but {genre!r} has {len(names)}: "
                f"{', '.join(map(repr, sorted(names)))}; add tracks by other artists or remove the genre",
                code=ErrorCode.TOO_FEW_GROUPS,
            )
    held_test = _held_out(tracks, test, seed, leave=2)
    rest = [track for track in tracks if track.group not in held_test]
    held_validation = _held_out(rest, validation / (1 - test), seed, leave=1)
    splits = dict.fromkeys((track.group for track in tracks), "train")
    return splits | dict.fromkeys(held_test, "test") | dict.fromkeys(held_validation, "validation")


def _held_out(tracks: Sequence[Track], share: float, seed: int, leave: int) -> frozenset[str]:
    """Groups of the fold that is nearest to `share` in each genre and leaves at least `leave` groups of each genre.

    If no fold of the requested size has every genre, larger folds are tried; thirds come last, since they can divide
    three groups per genre where halves cannot.
    """
    groups = _sets_by_key((track.genre, track.group) for track in tracks)
    most = max(map(len, groups.values()))
    for folds in [*range(min(max(2, round(1 / share)), most), 1, -1), min(3, most)]:
        distances: dict[frozenset[str], float] = {}
        for attempt in range(SEEDS_TRIED):
            for held in _folds(tracks, folds, (seed + attempt) % 2**32):
                if all(0 < len(names & held) <= len(names) - leave for names in groups.values()):
                    distances[held] = _distance(tracks, held, share)
            if min(distances.values(), default=1.0) < CLOSE_ENOUGH:
                break
        if distances:
            return min(distances, key=distances.__getitem__)
    scarce = min(groups, key=lambda genre: (len(groups[genre]), genre))
    raise InputError(
        f"no split has every genre in each part, because groups span several genres: {scarce!r} has the fewest "
        f"groups, {len(groups[scarce])}; add tracks by other artists to it or remove it",
        code=ErrorCode.SPLIT_NOT_POSSIBLE,
    )


def _folds(tracks: Sequence[Track], folds: int, seed: int) -> Iterator[frozenset[str]]:
    """Iterate over the groups of each stratified fold."""
    from sklearn.model_selection import StratifiedGroupKFold  # importing it takes a second

    genres, groups = _ranks([track.genre for track in tracks]), _ranks([track.group for track in tracks])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", SCARCE_GENRE_WARNING, UserWarning)
        parts = list(
            StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(genres, genres, groups)
        )
    return (frozenset(tracks[index].group for index in held) for _, held in parts)


def _ranks(names: Sequence[str]) -> list[int]:
    """The position of each name among the sorted names: as numbers, they take less memory in numpy's arrays."""
    ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
    return [ranks[name] for name in names]


def _distance(tracks: Sequence[Track], held: frozenset[str], share: float) -> float:
    """Distance between the share of held-out tracks and `share`, averaged over genres."""
    total = Counter(track.genre for track in tracks)
    kept = Counter(track.genre for track in tracks if track.group in held)
    return sum(abs(kept[genre] / total[genre] - share) for genre in total) / len(total)
