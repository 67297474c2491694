"""Train, validation and test: every genre on each side, every group on one."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from genre_core.corpus import SPLITS, Corpus, Track
from genre_core.errors import InputError

K = TypeVar("K")
V = TypeVar("V")

SEEDS_TRIED = 5  # shuffles looked over for the fold that is nearest to the share asked for
CLOSE_ENOUGH = 0.01  # mean distance from that share, over genres, at which the looking ends


def split_corpus(corpus: Corpus, *, validation: float, test: float, seed: int) -> Corpus:
    """The usable tracks parted over groups; a split that the manifest gave is verified and kept.

    `validation` and `test` are shares of the tracks, approached per genre as near as whole groups allow, each
    by one of n equal folds (1/2, 1/3, 1/4, ...). The same tracks and seed give the same split. Raises
    InputError unless every genre is on every side and no group on two.
    """
    if not (validation > 0 and test > 0 and validation + test <= 0.5):
        raise InputError(
            "validation and test are shares above 0 and at most 0.5 together, "
            f"but got validation={validation} and test={test}"
        )
    if len(corpus.genres) < 2:
        raise InputError(
            f"a corpus needs two genres with usable tracks, but has {list(corpus.genres)}: add some"
        )
    tracks = sorted(corpus.usable, key=lambda track: track.track_id)  # the draw must not hang on their order
    if not any(track.split for track in tracks):
        sides = _drawn_sides(tracks, validation, test, seed)
        tracks = [replace(track, split=sides[track.group]) for track in tracks]
    _verify_split(tracks)
    split_of = {track.track_id: track.split for track in tracks}
    return Corpus(tuple(replace(track, split=split_of.get(track.track_id)) for track in corpus.tracks))


def _verify_split(tracks: Sequence[Track]) -> None:
    """Every track has a side, every genre is on every side, and no group is on two."""
    if bare := [track.track_id for track in tracks if track.split is None]:
        raise InputError(f"the split: {bare[0]!r} has no split though others have; fill all or none")
    sides = _collected((track.group, track.split or "") for track in tracks)
    for group, found in sides.items():
        if len(found) > 1:
            raise InputError(
                f"the split: group {group!r} is in {' and '.join(sorted(found))}; keep it in one"
            )
    present = _collected((track.split or "", track.genre) for track in tracks)
    for split in SPLITS:
        if missing := {track.genre for track in tracks} - present[split]:
            names = ", ".join(map(repr, sorted(missing)))
            raise InputError(f"the split: no usable {split} track of {names}; add some or drop the genre")


def _collected(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, set[V]]:
    sets: defaultdict[K, set[V]] = defaultdict(set)
    for key, value in pairs:
        sets[key].add(value)
    return sets


def _drawn_sides(tracks: Sequence[Track], validation: float, test: float, seed: int) -> dict[str, str]:
    """Group -> side: the test part from all, then the validation part from what is left."""
    groups = _collected((track.genre, track.group) for track in tracks)
    for genre, names in sorted(groups.items()):
        if len(names) < len(SPLITS):
            raise InputError(
                f"genre {genre!r} has {len(names)} group(s), {', '.join(map(repr, sorted(names)))}, and a "
                f"split needs {len(SPLITS)}: add tracks of other artists or recordings, or drop the genre"
            )
    held_test = _held_out(tracks, test, seed, leave=2)
    rest = [track for track in tracks if track.group not in held_test]
    held_validation = _held_out(rest, validation / (1 - test), seed, leave=1)
    sides = dict.fromkeys((track.group for track in tracks), "train")
    return sides | dict.fromkeys(held_test, "test") | dict.fromkeys(held_validation, "validation")


def _held_out(tracks: Sequence[Track], share: float, seed: int, leave: int) -> frozenset[str]:
    """The groups of the fold nearest to `share` of each genre, of those that leave each genre `leave` groups.

    Where no fold of the wanted size has every genre, as with few groups a genre, larger folds do; thirds come
    last, since they part three groups a genre where halves cannot.
    """
    groups = _collected((track.genre, track.group) for track in tracks)
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
        f"no split found with every genre on every side: groups that span genres leave too few, "
        f"genre {scarce!r} the fewest with {len(groups[scarce])}; add groups to it or drop it"
    )


def _folds(tracks: Sequence[Track], folds: int, seed: int) -> Iterator[frozenset[str]]:
    """The groups of each of `folds` stratified parts."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second: only a drawn split pays it

    genres, groups = [track.genre for track in tracks], [track.group for track in tracks]
    with warnings.catch_warnings():
        # A genre with fewer tracks than folds: the caller looks at which folds have it.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        parts = list(
            StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(genres, genres, groups)
        )
    return (frozenset(groups[index] for index in held) for _, held in parts)


def _distance(tracks: Sequence[Track], held: frozenset[str], share: float) -> float:
    """Mean over genres of how far the held share of its tracks is from `share`."""
    total = Counter(track.genre for track in tracks)
    kept = Counter(track.genre for track in tracks if track.group in held)
    return sum(abs(kept[genre] / total[genre] - share) for genre in total) / len(total)
